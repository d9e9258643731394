"""Keeping freed CPU memory in the process.

glibc returns the memory of every large tensor to the system when it is freed; for the next tensor, the system hands out
fresh pages and zeroes them one by one, which takes a fifth of a training step. Keeping the memory saves that time, but
the process then holds its peak memory until it ends.
"""

import ctypes
import os
import platform

# Environment variables, to start a process with.
KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**28),
}
# The same for a running process: parameters of glibc's mallopt (malloc.h), whose values are ints. -1 is "never trim";
# with any positive number, steps that need more than 2 GiB would return and fetch memory every time.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_OPTIONS = {_M_MMAP_THRESHOLD: 2**31 - 1, _M_TRIM_THRESHOLD: -1, _M_TOP_PAD: 2**28}


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next tensors; call it before large tensors are created.

    Does nothing if the C library is not glibc, or if the user has set any of its MALLOC_ variables.

    Returns:
        Whether freed memory is now kept.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(option, value) == 1 for option, value in _OPTIONS.items())
