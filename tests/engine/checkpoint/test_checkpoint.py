"""Whole loads: what fits is loaded, what does not is reported, nothing is run."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_backbone, build_model
from official_keys import official_state
from torch import nn
from toys import toy_cfg, toy_input

from sgr_d2.config import get_sgr_cfg
from sgr_d2.engine import load_weights
from sgr_d2.engine.checkpoint.checkpointer import Checkpointer


def toy_model(seed: int = 0, **options) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(toy_cfg(**options)).eval()


def save(folder, state, name="file.pth", **rest) -> str:
    torch.save({"model": state, **rest}, folder / name)
    return str(folder / name)


def resnet(depth: int = 50, norm: str = "FrozenBN") -> nn.Module:
    cfg = get_sgr_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.NORM = norm
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    return nn.ModuleDict({"backbone": build_backbone(cfg)})


def swin() -> nn.Module:
    cfg = get_sgr_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_swin_backbone"
    return nn.ModuleDict({"backbone": build_backbone(cfg)})


def test_a_model_comes_back_bit_by_bit(tmp_path):
    source, target = toy_model(1), toy_model(2)
    report = load_weights(target, save(tmp_path, source.state_dict()))
    expected = source.state_dict()
    assert report.loaded == sorted(expected)
    assert not (report.skipped or report.missing or report.new or report.unused)
    assert all(torch.equal(value, expected[key]) for key, value in target.state_dict().items())


class NoSpaceLeft:
    """Stops in the middle of being written."""

    def __reduce__(self):
        raise OSError("No space left on device")


@pytest.mark.parametrize("name", ["model_best", "model_0000009"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, name):
    model = nn.Linear(2, 2)
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_best", iteration=4)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert files["last_checkpoint"] == b"model_best.pth" and len(files) == 2
    nn.init.zeros_(model.weight)
    with pytest.raises(OSError, match="No space left"):
        checkpointer.save(name, iteration=9, rest=NoSpaceLeft())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    checkpointer.save(name, iteration=9)
    assert not torch.load(tmp_path / f"{name}.pth", weights_only=True)["model"]["weight"].any()
    assert (tmp_path / "last_checkpoint").read_text() == f"{name}.pth"


def test_another_number_of_classes_is_skipped_and_listed(tmp_path, caplog):
    path = save(tmp_path, toy_model(1, classes=7).state_dict())
    target = toy_model(2, classes=5)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with caplog.at_level("INFO", logger="sgr_d2"):
        report = load_weights(target, path)
    assert [(s.key, s.in_file[0], s.in_model[0]) for s in report.skipped] == [
        ("sem_seg_head.predictor.weight", 7, 5),
        ("sem_seg_head.predictor.bias", 7, 5),
    ]
    assert len(report.loaded) == len(before) - 2 and not (report.missing or report.unused)
    assert torch.equal(target.state_dict()["sem_seg_head.predictor.bias"], before["sem_seg_head.predictor.bias"])
    assert "Skipped sem_seg_head.predictor.bias: (7,) in the file, (5,) in the model" in caplog.text


def test_sgr_put_into_a_trained_model_is_new_and_changes_no_prediction(tmp_path, caplog):
    source, target = toy_model(1, sgr=False), toy_model(2, sgr=True)
    with caplog.at_level("INFO", logger="sgr_d2"):
        report = load_weights(target, save(tmp_path, source.state_dict()))
    assert report.new and all(key.startswith("sgr.") for key in report.new)
    assert not (report.missing or report.skipped or report.unused)
    assert "WARNING" not in caplog.text and "New, at their initial values: sgr." in caplog.text
    image = [toy_input(64, 96)]
    with torch.no_grad():
        assert torch.equal(source(image)[0]["sem_seg"], target(image)[0]["sem_seg"])


def test_all_that_a_trainer_saves_is_given_back(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    Checkpointer(model, str(tmp_path), optimizer=optimizer).save("a", iteration=3, best=np.float64(0.5))
    fresh = torch.optim.AdamW(model.parameters())
    rest = Checkpointer(model, str(tmp_path), optimizer=fresh).resume_or_load("", resume=True)
    assert rest == {"iteration": 3, "best": 0.5}
    assert torch.equal(fresh.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


def test_a_file_of_the_model_zoo_loads_with_its_heuristics(tmp_path):
    model = resnet()
    state = {
        key.removeprefix("backbone."): np.full(value.shape, 0.25, "f4") for key, value in model.state_dict().items()
    }
    state["stem.fc.weight"] = np.zeros((10, 3), "f4")
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"model": state, "__author__": "torchvision", "matching_heuristics": True}))
    report = load_weights(model, path)
    assert len(report.loaded) == 265 and report.unused == ["stem.fc.weight"] and not report.missing
    assert all((value == 0.25).all() for value in model.state_dict().values())


def test_names_that_no_layout_knows_are_left_to_detectron2s_heuristics(tmp_path):
    model = nn.ModuleDict({"outer": nn.ModuleDict({"inner": nn.Linear(2, 3)})})
    weights = {"inner.weight": torch.ones(3, 2), "inner.bias": torch.ones(3)}
    report = load_weights(model, save(tmp_path, weights, matching_heuristics=True))
    assert report.loaded == ["outer.inner.bias", "outer.inner.weight"]
    with pytest.raises(ValueError, match=r"nothing loaded"):
        load_weights(model, save(tmp_path, weights))
    load_weights(model, save(tmp_path, weights) + "?matching_heuristics=True")
    with pytest.raises(ValueError, match=r"\?heuristics=1: the only option is matching_heuristics=True"):
        load_weights(model, save(tmp_path, weights) + "?heuristics=1")


def caffe2_name(key: str) -> str:
    """Detectron2's name -> the one of the MSRA ResNets, that have an affine layer for BatchNorm."""
    block = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    kinds = {"weight": "s", "bias": "b"} if ".norm." in key else {"weight": "w"}
    parts = key.removeprefix("backbone.").removeprefix("stem.").replace(".norm", "_bn").split(".")
    parts = [
        block.get(part, block.get(part.removesuffix("_bn"), "") + "_bn" if "_bn" in part else part) for part in parts
    ]
    name = "_".join([*parts[:-1], kinds[parts[-1]]])
    return {"branch2a_w": "conv1_w", "branch2a_bn_s": "res_conv1_bn_s", "branch2a_bn_b": "res_conv1_bn_b"}.get(
        name, name
    )


def test_the_resnets_of_msra_load(tmp_path):
    model = resnet()
    state = model.state_dict()
    blobs = {caffe2_name(key): np.full(value.shape, 0.5, "f4") for key, value in state.items() if "running" not in key}
    assert {"conv1_w", "res_conv1_bn_s", "res2_0_branch1_w", "res5_2_branch2c_bn_b"} <= set(blobs)
    blobs |= {"fc1000_w": np.zeros((10, 3), "f4"), "conv1_w_momentum": np.zeros(1, "f4")}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(blobs, 2))
    report = load_weights(model, path)
    assert not (report.missing or report.skipped) and report.unused == ["fc1000.weight"]
    loaded = model.state_dict()
    assert all((loaded[key] == 0.5).all() for key in loaded if "running" not in key)
    assert all((loaded[key] == 0).all() for key in loaded if key.endswith("running_mean"))


@pytest.mark.parametrize(("name", "make", "count"), [("r50", resnet, 265), ("swin_tiny", swin, 189)])
def test_every_tensor_of_an_official_backbone_fits(name, make, count, tmp_path):
    model = make()
    state = {key: value for key, value in official_state(name).items() if key.startswith("backbone.")}
    report = load_weights(model, save(tmp_path, state))
    assert report.loaded == sorted(state) == sorted(model.state_dict()) and len(state) == count
    assert not (report.missing or report.skipped or report.unused)


def test_statistics_stay_where_the_file_has_no_such_layer(tmp_path):
    layers = {"norm": FrozenBatchNorm2d(2), "known": FrozenBatchNorm2d(2), "bn": nn.BatchNorm2d(2)}
    model = nn.ModuleDict({**layers, "head": nn.Linear(2, 2)})
    model["bn"].num_batches_tracked.fill_(9)
    for name in ("norm", "known"):
        model[name].running_mean.fill_(7)
    affine = {
        "known.weight": torch.ones(2),
        "known.bias": torch.ones(2),
    }  # as files of Caffe2: the statistics are in it
    report = load_weights(model, save(tmp_path, {**nn.ModuleDict({"head": nn.Linear(2, 2)}).state_dict(), **affine}))
    assert model["norm"].running_mean.tolist() == [7, 7] and model["known"].running_mean.tolist() == [0, 0]
    assert model["bn"].num_batches_tracked == 9
    parts = ["bias", "running_mean", "running_var", "weight"]
    counted = sorted([*parts, "num_batches_tracked"])
    assert report.missing == [*(f"bn.{part}" for part in counted), *(f"norm.{part}" for part in parts)]


def test_a_pickle_runs_nothing(tmp_path):
    victim = tmp_path / "victim"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(victim),)

    content = {"model": OrderedDict(weight=torch.zeros(2, 2)), "__author__": Evil(), "trainer": Evil()}
    torch.save(content, tmp_path / "evil.pth")
    torch.save(content, tmp_path / "evil_old.pth", _use_new_zipfile_serialization=False)
    for name in ("evil.pkl", "evil_text.pth", "evil.pyth"):
        (tmp_path / name).write_bytes(pickle.dumps(content, 0 if "text" in name else None))
    for name in ("evil.pth", "evil_old.pth", "evil.pkl", "evil_text.pth", "evil.pyth"):
        for checkpointables in (None, []):
            with pytest.raises(ValueError, match=rf"{name}: refused to unpickle (posix|nt).mkdir"):
                Checkpointer(nn.Linear(2, 2)).load(str(tmp_path / name), checkpointables=checkpointables)
        (tmp_path / "last_checkpoint").write_text(name)
        with pytest.raises(ValueError, match=r"refused"):
            Checkpointer(nn.Linear(2, 2), str(tmp_path)).resume_or_load("", resume=True)
    assert not victim.exists()


def test_a_load_after_a_failed_one_works(tmp_path):
    checkpointer = Checkpointer(nn.Linear(2, 2))
    (tmp_path / "bad.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"bad.pth is empty"):
        checkpointer.load(str(tmp_path / "bad.pth"))
    checkpointer.load(save(tmp_path, nn.Linear(2, 2).state_dict()))
    assert checkpointer.report.loaded == ["bias", "weight"]


def test_wrong_paths_and_files_of_another_model_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.pth: no such checkpoint"):
        load_weights(nn.Linear(2, 2), tmp_path / "nowhere.pth")
    with pytest.raises(FileNotFoundError, match=r"path is empty"):
        load_weights(nn.Linear(2, 2), "")
    with pytest.raises(ValueError, match=r"nothing loaded.*a\.b; the model needs bias, weight: "):
        load_weights(nn.Linear(2, 2), save(tmp_path, {"a.b": torch.zeros(1)}))
    with pytest.raises(ValueError, match=r"nothing loaded, no tensor of the file fits"):
        load_weights(nn.Linear(2, 2), save(tmp_path, nn.Linear(3, 4).state_dict()))  # the same names, other shapes


def test_an_address_that_cannot_be_reached_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    address = "http://127.0.0.1:9/weights.pth"  # nobody listens there
    with pytest.raises(ConnectionError, match=rf"MODEL.WEIGHTS = {address}: cannot be fetched.*path of a local copy"):
        load_weights(nn.Linear(2, 2), address)
