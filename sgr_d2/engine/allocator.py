"""How the C library keeps memory on the CPU.

glibc gives every large tensor back to the system when it is freed, and the system hands out fresh pages, filled with
zeros one by one, when the next one is made: a fifth of a training step. Kept memory saves that; a process then holds
its peak until it ends.
"""

import ctypes
import os
import platform

# For the environment of a process.
KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**28),
}
# The same for a running one: parameters of glibc's mallopt (malloc.h), whose values are ints; -1 is "never trim", while
# any positive number would give back, and fetch again, what a step of more than 2 GiB needs.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_OPTIONS = {_M_MMAP_THRESHOLD: 2**31 - 1, _M_TRIM_THRESHOLD: -1, _M_TOP_PAD: 2**28}


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next tensors; call it before large ones are made.

    Does nothing where the C library is not glibc, or where the user has set any of its MALLOC_ variables.

    Returns:
        Whether it is so now.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(option, value) == 1 for option, value in _OPTIONS.items())
