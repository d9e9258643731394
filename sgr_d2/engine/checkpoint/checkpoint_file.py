"""Reads checkpoint files of several formats without running code in them."""

import os
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgr_d2.messages import first_few

from .safe_unpickle import RefusedError, load_pickle, load_torch

# Keys under which training codes store the tensors of the model, in the order in which they are tried.
CONTAINERS = ("model", "state_dict", "model_state", "model_state_dict", "blobs", "net")
# How the files begin: of torch.save, in its present and in its older format, and pickles of a dict.
_TORCH = b"PK"
_TORCH_LEGACY = torch.serialization.MAGIC_NUMBER.to_bytes(10, "little")
_PICKLED = (b"\x80", b"}", b"(d", b"ccollections\n")
# What a failed download leaves behind, by its first bytes.
_NOT_A_CHECKPOINT = {
    b"<": "a web page",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run git lfs pull",
}
# Files of fewer bytes are read as a whole by `check_weights`.
_SMALL = 2**20


def require_weights(path: str) -> None:
    """
    Raises:
        FileNotFoundError: if ``path`` is neither empty, a URL nor an existing file.
    """
    if path and "://" not in path:
        require_checkpoint(local_file(path), f"MODEL.WEIGHTS = {path}")


def require_checkpoint(path: str | Path, called: str = "") -> None:
    """
    Raises:
        FileNotFoundError: if ``path``, for which the message says ``called``, is not a file.
    """
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(f"{called or path} is a folder; give a checkpoint in it, such as model_final.pth.")
    if not path.is_file():
        raise FileNotFoundError(f"{called or path}: no such checkpoint.")


def check_weights(path: str) -> None:
    """`require_weights`, and a look into the file that does not read the tensors of a large one.

    Raises:
        FileNotFoundError: see `require_weights`.
        ValueError: as `read_checkpoint`; damage within the tensors, or within a large pickle, is only found there.
    """
    require_weights(path)
    if not path or "://" in path:
        return
    file = local_file(path)
    head, size = _head(file), file.stat().st_size
    if size < _SMALL:
        read_checkpoint(file)
    elif _is_safetensors(head, size):
        with _explained(file):
            _open_safetensors(file)
    elif head.startswith(_TORCH):
        with _explained(file):
            content = load_torch(str(file), mmap=True)
        _with_model(content, file)
    elif not (_TORCH_LEGACY in head or (head.startswith(_PICKLED) and _ends_with_stop(file))):
        read_checkpoint(file)  # to say what is wrong with it


def local_file(path: str) -> Path:
    """The file of a path that may end with Detectron2's options, ?matching_heuristics=True."""
    return Path(path.split("?")[0])


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint written by `torch.save` (both formats), `pickle` (Detectron2's model zoo) or safetensors.

    Returns:
        {"model": {name: tensor}} and whatever else the file contains. Files of Caffe2 (Detectron1, MSRA) also get
        Detectron2's "__author__": "Caffe2".

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, has no tensors, or contains anything but tensors, arrays, numbers, text and
            plain containers; the message names the file and the object.
    """
    path = Path(path)
    require_checkpoint(path)
    return _with_model(_read(path), path)


def _with_model(content: Any, path: Path) -> dict[str, Any]:
    """The content of a file with its tensors under "model", see `read_checkpoint`."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a dictionary of tensors.")
    rest = dict(content)
    container = next((key for key in CONTAINERS if isinstance(content.get(key), Mapping)), None)
    state = content if container is None else rest.pop(container)
    tensors = _tensors(state)
    if not tensors:
        raise ValueError(
            f"{path} holds no tensors, neither at the top level nor under {', '.join(CONTAINERS)}; its keys are "
            f"{first_few(content, 10)}."
        )
    if container is None:
        rest = {}
    if any(key.endswith("_w") for key in tensors) and not any("." in key for key in tensors):  # res2_0_branch2a_w
        tensors = {key: value for key, value in tensors.items() if not key.endswith("_momentum")}
        rest["__author__"] = "Caffe2"
    return {**rest, "model": tensors}


def _head(path: Path) -> bytes:
    """The first bytes. Raises ValueError if they show that the file is no checkpoint."""
    with path.open("rb") as file:
        head = file.read(32)
    if not head:
        raise ValueError(f"{path} is empty. Download it again.")
    for sign, what in _NOT_A_CHECKPOINT.items():
        if head.lstrip().startswith(sign):
            raise ValueError(f"{path} is {what}. Download the checkpoint again.")
    return head


def _read(path: Path) -> Any:
    head = _head(path)
    with path.open("rb") as file, _explained(path):
        if _is_safetensors(head, path.stat().st_size):
            return _load_safetensors(path)
        is_torch = head.startswith(_TORCH) or _TORCH_LEGACY in head
        return load_torch(file) if is_torch else load_pickle(file)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn whatever a damaged or dangerous file causes into a ValueError that names the file."""
    try:
        yield
    except RefusedError as error:
        raise ValueError(
            f"{path}: refused to unpickle {error.name}; only tensors, arrays, numbers, text and plain containers "
            "are read, as anything else may run code. If you trust the file, save only its tensors to another one."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # damaged pickles raise errors of every kind
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            f"{path} is damaged, truncated or not a checkpoint ({type(error).__name__}: {reason[:200]}). "
            "Download it again."
        ) from error


def _ends_with_stop(path: Path) -> bool:
    """Whether the last byte is that of a pickle."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == pickle.STOP


def _is_safetensors(head: bytes, size: int) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size


def _open_safetensors(path: Path) -> None:
    """Read the header, which has to account for every byte of the file."""
    from safetensors import safe_open  # comes with timm

    with safe_open(path, framework="pt"):
        pass


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _tensors(state: Mapping) -> OrderedDict[str, Tensor]:
    """Tensors and arrays of a state dict, as tensors, with the versions of its modules if it has them."""
    result = OrderedDict()
    for key, value in state.items():
        if isinstance(value, Tensor):
            result[str(key)] = value
        elif isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
            array = np.asarray(value)
            result[str(key)] = torch.from_numpy(array if array.flags.writeable else array.copy())
    if isinstance(getattr(state, "_metadata", None), Mapping):
        result._metadata = state._metadata
    return result
