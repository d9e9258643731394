"""Checkpoint files by format: what is read from each, and what is said of broken ones."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sgr_d2.engine.checkpoint import checkpoint_file
from sgr_d2.engine.checkpoint.checkpoint_file import check_weights, read_checkpoint

STATE = {"a.weight": torch.arange(4.0), "a.bias": torch.ones(2, dtype=torch.float16)}
ARRAYS = {key: value.numpy() for key, value in STATE.items()}


def is_state(checkpoint: dict) -> bool:
    model = checkpoint["model"]
    return model.keys() == STATE.keys() and all(torch.equal(model[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize("content", [STATE, *({key: STATE} for key in ("model", "state_dict", "model_state"))])
def test_the_state_dict_is_found_in_its_container(content, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    assert is_state(read_checkpoint(tmp_path / "a.pth"))
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert is_state(read_checkpoint(tmp_path / "old.pth"))
    for protocol in (0, 2, 4, 5):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
        assert is_state(read_checkpoint(tmp_path / "a.pkl"))


def test_formats_are_told_by_content_not_by_the_name_of_the_file(tmp_path):
    zoo = {"model": ARRAYS, "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}
    (tmp_path / "a.pth").write_bytes(pickle.dumps(zoo))
    checkpoint = read_checkpoint(tmp_path / "a.pth")
    assert is_state(checkpoint)
    assert checkpoint["matching_heuristics"] is True and checkpoint["__author__"] == "Detectron2 Model Zoo"
    torch.save({"model": STATE, "iteration": 7}, tmp_path / "b.pkl")
    checkpoint = read_checkpoint(tmp_path / "b.pkl")
    assert is_state(checkpoint) and checkpoint["iteration"] == 7
    save_file(STATE, tmp_path / "c.bin")
    assert is_state(read_checkpoint(tmp_path / "c.bin"))


def test_files_of_caffe2_are_marked(tmp_path):
    blobs = {"conv1_w": np.zeros((2, 3), np.float32), "conv1_w_momentum": np.zeros(1, np.float32)}
    for content in (blobs, {"blobs": blobs, "cfg": "yaml"}):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, 2))
        checkpoint = read_checkpoint(tmp_path / "a.pkl")
        assert checkpoint["__author__"] == "Caffe2" and list(checkpoint["model"]) == ["conv1_w"]
    assert "__author__" not in {key for key in read_checkpoint(saved(tmp_path, {"model": STATE})) if key != "model"}


def saved(folder, content):
    torch.save(content, folder / "saved.pth")
    return folder / "saved.pth"


def test_what_is_no_tensor_is_left_out_of_the_model(tmp_path):
    state = {**STATE, "extra_state": {"a": 1}, "scalar": np.float64(2), "text": np.array("a"), "epoch": 3}
    model = read_checkpoint(saved(tmp_path, {"model": state}))["model"]
    assert list(model) == [*STATE, "scalar"] and model["scalar"] == 2


def test_versions_of_modules_are_kept(tmp_path):
    state = nn.Sequential(nn.BatchNorm2d(3)).state_dict()
    assert read_checkpoint(saved(tmp_path, {"model": state}))["model"]._metadata["0"] == {"version": 2}


class Evil:
    def __reduce__(self):
        return os.system, ("exit 0",)


def test_more_than_tensors_and_plain_data_is_refused_with_the_name_of_the_file(tmp_path):
    content = {"model": STATE, "args": Evil()}
    path = saved(tmp_path, content)
    with pytest.raises(ValueError, match=r"saved.pth: refused to unpickle (posix|nt).system; only tensors"):
        read_checkpoint(path)
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"a.pkl: refused to unpickle (posix|nt).system; only tensors"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"bad.pth is empty"),
        (b"\n<!DOCTYPE html><html>404</html>", r"bad.pth is a web page. Download"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", r"bad.pth is a Git LFS pointer.*git lfs pull"),
        (b"PK\x03\x04" + bytes(100), r"bad.pth is damaged, truncated or not a checkpoint"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), r"bad.pth is damaged, truncated or not a checkpoint"),
        (pickle.dumps({"model": ARRAYS})[:-20], r"bad.pth is damaged, truncated or.*truncated|ran out of"),
        (pickle.dumps([1, 2]), r"bad.pth holds a list, not a dictionary"),
        (pickle.dumps({"epoch": 3, "weights": {"a.b": 1}}), r"bad.pth holds no tensors.*its keys are epoch, weights"),
        (pickle.dumps({}), r"bad.pth holds no tensors"),
    ],
)
def test_broken_files_are_named(content, message, tmp_path):
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / "bad.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_download_that_stopped_half_way_is_named(zipped, tmp_path):
    path = tmp_path / "half.pth"
    torch.save({"model": {"a.b": torch.rand(5000)}}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for share in (0.05, 0.5, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=r"half.pth is damaged, truncated or not a checkpoint"):
            read_checkpoint(path)


@pytest.fixture
def reads(monkeypatch):
    """The files that `check_weights` has read as a whole."""
    names = []
    monkeypatch.setattr(checkpoint_file, "_SMALL", 0)
    monkeypatch.setattr(
        checkpoint_file, "read_checkpoint", lambda path: names.append(path.name) or read_checkpoint(path)
    )
    return names


def test_what_can_be_read_passes_the_check_at_a_glance(tmp_path, reads):
    torch.save({"model": STATE}, tmp_path / "a.pth")
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(STATE, tmp_path / "b.bin")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / f"dict_{protocol}.pkl").write_bytes(pickle.dumps({"model": ARRAYS}, protocol))
        (tmp_path / f"ordered_{protocol}.pkl").write_bytes(pickle.dumps(OrderedDict(ARRAYS), protocol))
    for path in tmp_path.iterdir():
        check_weights(str(path))
        check_weights(f"{path}?matching_heuristics=True")
    assert reads == []
    for path in ("", "https://nowhere/model.pth"):
        check_weights(path)


def test_pickles_of_another_kind_are_read_to_be_sure(tmp_path, reads):
    (tmp_path / "longer.pkl").write_bytes(pickle.dumps({"model": ARRAYS}) + b"\n")
    check_weights(str(tmp_path / "longer.pkl"))
    assert reads == ["longer.pkl"]


def _half(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


@pytest.mark.parametrize("name", ["a.pth", "b.bin", "c.pkl"])
def test_files_cut_in_half_do_not_pass_the_check(tmp_path, reads, name):
    torch.save({"model": STATE}, tmp_path / "a.pth")
    save_file(STATE, tmp_path / "b.bin")
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"model": ARRAYS}))
    (tmp_path / name).write_bytes(_half((tmp_path / name).read_bytes()))
    with pytest.raises(ValueError, match=f"{name} is damaged, truncated or not a checkpoint.*Download it again"):
        check_weights(str(tmp_path / name))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], r"saved\.pth holds a list, not a dictionary"),
        ({"epoch": 3}, r"saved\.pth holds no tensors"),
        (Evil(), r"saved\.pth: refused to unpickle (posix|nt)\.system"),
    ],
)
def test_files_of_something_else_do_not_pass_the_check(tmp_path, reads, content, message):
    with pytest.raises(ValueError, match=message):
        check_weights(str(saved(tmp_path, content)))
    assert reads == []


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.pth: no such checkpoint"):
        read_checkpoint(tmp_path / "nowhere.pth")


@pytest.mark.filterwarnings("ignore:.*TorchScript:UserWarning")
def test_a_torchscript_archive_is_not_run(tmp_path):
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(ValueError, match=r"script.pt is damaged.*TorchScript"):
        read_checkpoint(path)
