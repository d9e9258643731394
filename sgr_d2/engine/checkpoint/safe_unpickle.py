"""Unpickling without running code: tensors, arrays, numbers, text and plain containers; all else is refused by name.

A pickle names the functions that rebuild its objects, and may name any function. Here only listed names are allowed.
"""

import io
import pickle
import re
from collections import OrderedDict
from typing import Any, BinaryIO

import numpy as np
import torch

# Python 2 and numpy 1 have other names for the same things.
_OLD_MODULES = (("__builtin__", "builtins"), ("numpy.core.", "numpy._core."))
# Finds the refused name in torch's error, which only has it in its message.
_NAMED_BY_TORCH = re.compile(r"GLOBAL ([\w.]*\w)")


class RefusedError(pickle.UnpicklingError):
    """A pickle needs an object that is not on the list; ``name`` is its full name."""

    def __init__(self, name: str):
        super().__init__(f"refused to unpickle {name}")
        self.name = name


def load_pickle(file: BinaryIO) -> Any:
    """Load a pickle of any protocol; Python 2 strings are decoded as latin-1.

    Raises:
        RefusedError: for anything but tensors, arrays, numbers, text, bytes and plain containers.
        Exception: of any kind for a damaged file, as in `pickle`.
    """
    return _Unpickler(file, encoding="latin1").load()


def load_torch(file: BinaryIO | str, *, mmap: bool = False) -> Any:
    """Load a file of `torch.save` onto the CPU; otherwise like `load_pickle`.

    With ``mmap``, which needs the path of a file in the present format, tensors are only read when they are used.
    """
    try:
        with torch.serialization.safe_globals(_NUMPY_FOR_TORCH):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        name = _NAMED_BY_TORCH.search(str(error))
        if name:
            raise RefusedError(name[1]) from error
        lines = [line for line in str(error).splitlines() if line and not line.startswith("Check the documentation")]
        raise pickle.UnpicklingError(lines[-1].strip() if lines else "") from error  # without the long advice before it


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        for old, new in _OLD_MODULES:
            if full.startswith(old):
                full = new + full.removeprefix(old)
        if full not in _ALLOWED:
            raise RefusedError(full)
        return _ALLOWED[full]


class _Function:
    """A function that a pickle may call but not modify, as pickles may also set attributes of named objects."""

    __slots__ = ("_call",)

    def __init__(self, call):
        object.__setattr__(self, "_call", call)

    def __call__(self, *args):
        return self._call(*args)

    def __setattr__(self, name, value):
        raise AttributeError(f"{name} cannot be set")


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":  # the only one that pickle itself writes, for bytes in protocol 2
        raise RefusedError(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


def _storage(data: bytes):
    return load_torch(io.BytesIO(data))


def _tensor(storage, offset: int, size: tuple, stride: tuple, *_hooks) -> torch.Tensor:
    return torch._utils._rebuild_tensor(storage, offset, size, stride)


def _parameter(data: torch.Tensor, requires_grad: bool, *_hooks) -> torch.nn.Parameter:
    return torch.nn.Parameter(data, requires_grad)


# The functions in numpy's pickles are private and move between versions, so they are obtained from numpy itself.
_NUMPY = {
    "multiarray._reconstruct": np.zeros(1).__reduce__()[0],
    "multiarray.scalar": np.float32(0).__reduce__()[0],
    "numeric._frombuffer": np.zeros(1).__reduce_ex__(5)[0],
}
# The types are implemented in C, so their attributes cannot be set.
_ALLOWED = {
    **{f"builtins.{t.__name__}": t for t in (bool, int, float, complex, str, bytes, bytearray)},
    **{f"builtins.{t.__name__}": t for t in (list, tuple, dict, set, frozenset)},
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _Function(_encode),
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    **{f"numpy._core.{name}": _Function(function) for name, function in _NUMPY.items()},
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    "torch._utils._rebuild_parameter": _Function(_parameter),
    "torch.storage._load_from_bytes": _Function(_storage),
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    **{str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)},
}
_NUMPY_FOR_TORCH = [
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefdFDSUO"},
    *((function, f"numpy.{core}.{name}") for name, function in _NUMPY.items() for core in ("core", "_core")),
]
