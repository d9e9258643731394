"""Commands of semantic segmentation say where to read on when they are given a detector, or instances."""

import check_dataset
import explore_tokens
import export_model
import numpy as np
import predict
import pytest
from PIL import Image
from toy_checkpoint import write_checkpoint
from toy_detectors import write_detector

SECTION = '"Use a trained detector" in docs/detection.md'


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return write_detector(tmp_path_factory.mktemp("detector"))


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def last_line(capsys) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("config", [False, True])
@pytest.mark.parametrize("tool", [predict, export_model, explore_tokens])
def test_a_detector_is_refused(detector, photo, tmp_path, capsys, tool, config, monkeypatch):
    output = tmp_path / ("out.pt2" if tool is export_model else "out")
    inputs = {predict: [photo], export_model: [], explore_tokens: ["--images", photo]}[tool]
    if config:  # as for a checkpoint that carries none; this one is of 3 classes, those of tiny_coco are 80
        text = (detector.parent / "config.yaml").read_text().replace("NUM_CLASSES: 3", "NUM_CLASSES: 80")
        (tmp_path / "config.yaml").write_text(text)
        inputs += ["--config-file", tmp_path / "config.yaml"]
    assert tool.main([str(a) for a in ("--weights", detector, "--output", output, *inputs)]) == 2
    line = last_line(capsys)
    assert "is of a SGRGeneralizedRCNN, which does not segment classes" in line and SECTION in line
    assert not output.exists()


def test_the_explorer_of_a_detector_needs_no_data_set_to_refuse(tmp_path, capsys):
    detector = write_detector(tmp_path / "other", dataset="nobody_has_registered_this")
    assert explore_tokens.main(["--weights", str(detector), "--output", str(tmp_path / "out")]) == 2
    assert SECTION in last_line(capsys)


def test_instances_are_no_data_set_of_the_explorer(tmp_path, capsys):
    weights = write_checkpoint(tmp_path / "model.pth")
    arguments = ["--weights", weights, "--dataset", "tiny_coco_val", "--output", tmp_path / "out", "--device", "cpu"]
    assert explore_tokens.main([str(a) for a in arguments]) == 2
    line = last_line(capsys)
    assert "is for semantic segmentation, but data set 'tiny_coco_val' has no semantic classes" in line
    assert SECTION in line


@pytest.mark.parametrize(
    "target", ["camvid_instances_val", "configs/detection/mask_rcnn_sgr_effnet_lite0_tiny_coco.yaml"]
)
def test_instances_are_not_checked(target, tmp_path, capsys, pytestconfig, monkeypatch):
    monkeypatch.chdir(pytestconfig.rootpath)
    assert check_dataset.main([target, "--output", str(tmp_path / "out")]) == 2
    line = last_line(capsys)
    assert "is for semantic segmentation, but data set" in line and SECTION in line
    assert not (tmp_path / "out").exists()
