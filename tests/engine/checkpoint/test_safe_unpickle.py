"""Pickles that want to run something are refused; everything that a checkpoint needs comes through."""

import copyreg
import io
import pickle
import pickletools
from collections import OrderedDict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sgr_d2.engine.checkpoint.safe_unpickle import RefusedError, load_pickle, load_torch


class Calls:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def plain(value, protocol=None) -> io.BytesIO:
    return io.BytesIO(pickle.dumps(value, protocol))


def saved(value, **options) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file, **options)
    file.seek(0)
    return file


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b) and a.requires_grad == b.requires_grad
    if isinstance(a, np.ndarray | np.generic):
        return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and a == b


def checkpoint() -> dict:
    return {
        "model": OrderedDict(
            weight=torch.arange(6.0).view(2, 3).t(),
            parameter=nn.Parameter(torch.ones(2)),
            half=torch.ones(2, dtype=torch.bfloat16),
            count=torch.tensor(3),
            empty=torch.zeros(0, 4),
        ),
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "scalars": [np.float64(0.5), np.bool_(True), np.int32(-3)],
        "plain": [1, 2**70, -0.5, 1j, "text", "\u00e9", b"\xff\x00", b"", None, True, (1, (2,)), {3}, frozenset({4})],
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol_come_through(protocol):
    assert same(load_pickle(plain(checkpoint(), protocol)), checkpoint())


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_come_through(zipped):
    value = checkpoint()
    value["plain"] = [1, 2**40, -0.5, "text", b"\xff\x00", None, True, (1, (2,)), {3}]
    assert same(load_torch(saved(value, _use_new_zipfile_serialization=zipped)), value)


def test_versions_of_modules_come_through():
    state = nn.BatchNorm2d(3).state_dict()
    assert load_pickle(plain(state))._metadata == load_torch(saved(state))._metadata == state._metadata


def test_pickles_of_python_2_and_numpy_1_come_through():
    # cPickle.dump({"a": np.array([1.0, 2.0], "f4"), "long": 3L, "set": {1}}, file, 2), opcode by opcode
    old = (
        b"\x80\x02}q\x00(U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08\x00\x00\x80?\x00\x00\x00@tb"
        b"U\x04long\x8a\x01\x03U\x03setc__builtin__\nset\n]K\x01a\x85Ru."
    )
    pickletools.dis(old, out=io.StringIO())  # well-formed
    value = load_pickle(io.BytesIO(old))
    assert same(value, {"a": np.array([1, 2], np.float32), "long": 3, "set": {1}})


@pytest.mark.parametrize(
    "function",
    [exec, eval, getattr, __import__, open, print, partial, copyreg._reconstructor, torch.load, np.load, Path, type],
)
def test_any_other_function_is_refused_by_name(function):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(RefusedError, match=rf"refused to unpickle [\w.]*{function.__name__}"):
            load_pickle(plain({"model": Calls(function, "1")}, protocol))
    for zipped in (True, False):
        with pytest.raises(RefusedError, match=rf"refused to unpickle [\w.]*{function.__name__}"):
            load_torch(saved({"model": Calls(function, "1")}, _use_new_zipfile_serialization=zipped))


def test_nothing_runs_on_the_way_to_the_refusal(tmp_path):
    victim = tmp_path / "victim"
    evil = {"a": Calls(exec, f"open({str(victim)!r}, 'w')"), "b": torch.zeros(2)}
    for file in (plain(evil, 2), plain(evil), plain([evil], 0)):
        with pytest.raises(RefusedError):
            load_pickle(file)
    inner = saved(evil, _use_new_zipfile_serialization=False).getvalue()
    with pytest.raises(RefusedError, match=r"exec"):  # a tensor in a plain pickle has a file of torch within
        load_pickle(plain(Calls(torch.storage._load_from_bytes, inner)))
    for zipped in (True, False):
        with pytest.raises(RefusedError):
            load_torch(saved(evil, _use_new_zipfile_serialization=zipped))
    assert not victim.exists()
    pickle.loads(pickle.dumps(evil))
    assert victim.exists()  # the pickle does what it is said to do


@pytest.mark.parametrize(
    "name", [b"_codecs\nencode", b"torch._utils\n_rebuild_tensor_v2", b"numpy.core.multiarray\nscalar", b"numpy\ndtype"]
)
@pytest.mark.parametrize("attribute", [b"__call__", b"_call", b"other"])
def test_a_pickle_cannot_change_what_it_names(name, attribute):
    # c: name; \x86: (None, {attribute: 1}) as the state; b: set it
    state = b"N}U" + bytes([len(attribute)]) + attribute + b"K\x01s\x86b."
    with pytest.raises((AttributeError, TypeError)):
        load_pickle(io.BytesIO(b"\x80\x02c" + name + b"\n" + state))


def test_text_is_not_encoded_by_codecs_of_the_files_choice():
    evil = b"\x80\x02c_codecs\nencode\nU\x01aU\x03hex\x86R."
    with pytest.raises(RefusedError, match=r"_codecs.encode to hex"):
        load_pickle(io.BytesIO(evil))


def rebuilt(offset: int, size: int, stride: int) -> torch.Tensor:
    storage = torch.zeros(4).storage()
    return load_pickle(plain(Calls(torch._utils._rebuild_tensor_v2, storage, offset, (size,), (stride,), False, {})))


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_a_tensor_cannot_reach_beyond_its_storage():
    assert rebuilt(1, 3, 1).tolist() == [0, 0, 0]
    for arguments in ((0, 1000, 1), (100, 4, 1), (0, 4, 100)):  # torch makes the storage larger
        assert rebuilt(*arguments).untyped_storage().nbytes() >= 4 * (
            arguments[0] + (arguments[1] - 1) * arguments[2] + 1
        )
    for arguments in ((-1, 4, 1), (0, -4, 1), (0, 4, -1)):
        with pytest.raises(RuntimeError):
            rebuilt(*arguments)
