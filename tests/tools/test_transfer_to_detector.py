"""tools/transfer_to_detector.py as a user runs it."""

import os

import pytest
import torch
import transfer_to_detector as script
import yaml
from detectron2.modeling import build_model
from toy_detectors import detector_cfg

from sgr_d2.engine.checkpoint.checkpointer import Checkpointer
from sgr_d2.engine.checkpoint.model_card import KEY
from sgr_d2.engine.same_start import check_input_of_backbone


@pytest.fixture
def segmentor(tmp_path):
    """A checkpoint of a segmentation model with an FPN and SGR; its path and its tensors."""
    cfg = detector_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME = "SGRSegmentor", "build_timm_fpn_backbone"
    cfg.INPUT.FORMAT = "RGB"
    state = build_model(cfg).state_dict()
    card = {"config": cfg.dump(), "classes": ["a"], "colors": [[0, 0, 0]], "ignore_label": 255}
    torch.save({"model": state, "iteration": 5, KEY: card}, tmp_path / "seg.pth")
    return tmp_path / "seg.pth", state


def run(weights, output, *options):
    return script.main(["--weights", str(weights), "--output", str(output), *map(str, options)])


def model_of(path):
    return torch.load(path, weights_only=True)["model"]


def test_there_and_back_again(segmentor, tmp_path, capsys):
    path, state = segmentor
    assert run(path, tmp_path / "new/detector.pth") == 0
    out = capsys.readouterr().out
    shared = {key: value for key, value in state.items() if key.startswith(("backbone.", "sgr."))}
    assert f"{len(shared)} tensors of a segmentation model, named for a detector" in out
    assert f"Left out, {len(state) - len(shared)} tensors: sem_seg_head." in out
    detector = build_model(detector_cfg())
    report = detector.load_state_dict(model_of(tmp_path / "new/detector.pth"), strict=False)
    assert not report.unexpected_keys
    assert all(key.startswith(("proposal_generator.", "roi_heads.")) for key in report.missing_keys)
    assert torch.equal(detector.backbone.sgr.value.weight, state["sgr.value.weight"])

    assert run(tmp_path / "new/detector.pth", tmp_path / "back.pth") == 0
    assert "tensors of a detector, named for a segmentation model" in capsys.readouterr().out
    back = model_of(tmp_path / "back.pth")
    assert back.keys() == shared.keys() and all(torch.equal(back[key], shared[key]) for key in back)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["detector.pth"]


def test_training_from_the_result_sees_on_which_input_the_backbone_was_trained(segmentor, tmp_path):
    assert run(segmentor[0], tmp_path / "detector.pth") == 0
    cfg = detector_cfg()
    cfg.INPUT.FORMAT = "BGR"
    checkpointer = Checkpointer(build_model(cfg))
    checkpointer.load(str(tmp_path / "detector.pth"), checkpointables=[])
    with pytest.raises(ValueError, match=r"detector.pth: .*other input.*INPUT.FORMAT RGB instead of BGR"):
        check_input_of_backbone(cfg, checkpointer)


def test_a_checkpoint_without_config_is_transferred_without(segmentor, tmp_path):
    torch.save(segmentor[1], tmp_path / "plain.pth")
    assert run(tmp_path / "plain.pth", tmp_path / "detector.pth") == 0
    assert list(torch.load(tmp_path / "detector.pth", weights_only=True)) == ["model"]


def test_a_config_tells_what_is_loaded_once(segmentor, tmp_path, capsys, caplog):
    path, state = segmentor
    cfg = detector_cfg()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = 80
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = cfg.MODEL.POINT_HEAD.NUM_CLASSES = 0
    config = {"VERSION": 2, "DATASETS": {"TRAIN": ["tiny_coco_train"], "TEST": []}, "INPUT": {"FORMAT": "RGB"}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config | {"MODEL": yaml.safe_load(cfg.MODEL.dump())}))
    assert run(path, tmp_path / "out.pth", "--config-file", tmp_path / "toy.yaml") == 0
    out = capsys.readouterr().out
    number = sum(key.startswith("sgr.") or (key.startswith("backbone.") and "num_batches" not in key) for key in state)
    assert f"{number} tensors loaded, 0 skipped for their shape" in out
    told = out + caplog.text
    assert told.count("Missing in the file: proposal_generator") == told.count("Not used: sem_seg_head") == 1


def test_wrong_input(segmentor, tmp_path, capsys):
    path, _ = segmentor
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"model": {"head.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    for arguments, message in (
        ([tmp_path / "nowhere.pth", tmp_path / "o.pth"], "nowhere.pth: no such checkpoint"),
        ([tmp_path, tmp_path / "o.pth"], "is a folder; give a checkpoint in it"),
        ([tmp_path / "text.pth", tmp_path / "o.pth"], "text.pth"),
        ([tmp_path / "other.pth", tmp_path / "o.pth"], "other.pth: no tensor is named backbone.*"),
        ([path, path], "is the checkpoint itself"),
        ([path, tmp_path / "o.pth", "--config-file", tmp_path / "no.yaml"], "no.yaml: no such file"),
    ):
        assert run(*arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "o.pth").exists()


def test_a_full_disk_leaves_no_temporary_file(segmentor, tmp_path, monkeypatch, capsys):
    def fail(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    before = sorted(tmp_path.iterdir())
    run(segmentor[0], tmp_path / "out.pth")
    monkeypatch.undo()
    monkeypatch.setattr(os, "replace", fail)
    run(segmentor[0], tmp_path / "out.pth")
    assert capsys.readouterr().err.count(": No space left on device\n") == 2
    assert sorted(tmp_path.iterdir()) == before
