"""Initial weights from another run: the input of their backbone, and the place of their SGR."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from toy_detectors import detector_cfg

from sgr_d2.engine import load_config
from sgr_d2.engine.checkpoint.checkpointer import Checkpointer
from sgr_d2.engine.checkpoint.model_card import KEY
from sgr_d2.engine.same_run import warn_of_another_model
from sgr_d2.engine.same_start import check_input_of_backbone, check_place_of_sgr

ROOT = Path(__file__).parents[2]


def segmentation_cfg(features=("p3", "p4")):
    cfg = detector_cfg(features=features)
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME = "SGRSegmentor", "build_timm_fpn_backbone"
    cfg.INPUT.FORMAT = "RGB"
    return cfg


def loaded(tmp_path, source, target):
    """The checkpointer of a model of ``target`` after loading a checkpoint of one of ``source``."""
    card = {"config": source.dump(), "classes": ["a"], "colors": [[0, 0, 0]], "ignore_label": 255}
    torch.save({"model": build_model(source).state_dict(), KEY: card}, tmp_path / "start.pth")
    checkpointer = Checkpointer(build_model(target))
    checkpointer.load(str(tmp_path / "start.pth"), checkpointables=[])
    return checkpointer


def test_a_transfer_to_another_input_is_refused_with_the_keys_to_set(tmp_path):
    source, target = segmentation_cfg(), detector_cfg()
    source.MODEL.PIXEL_STD, target.INPUT.FORMAT = [58.4, 57.1, 57.4], "BGR"
    target.MODEL.PIXEL_STD = [1.0, 1.0, 1.0]
    with pytest.raises(
        ValueError, match=r"start.pth: .*other input.*RGB instead of BGR.* Set INPUT.FORMAT \"RGB\" MODEL"
    ) as e:
        check_input_of_backbone(target, loaded(tmp_path, source, target))
    options = str(e.value).split(" Set ")[1].replace('"', "")
    assert options == "INPUT.FORMAT RGB MODEL.PIXEL_STD [58.4, 57.1, 57.4]"
    target.INPUT.FORMAT, target.MODEL.PIXEL_STD = "RGB", [58.395, 57.12, 57.375]  # another rounding
    check_input_of_backbone(target, loaded(tmp_path, source, target))


def test_the_stride_of_a_resnet_counts(tmp_path):
    source = detector_cfg("SGRRetinaNet", features=("p3",))
    source.MODEL.MASK_ON, target = False, source.clone()
    target.MODEL.RESNETS.STRIDE_IN_1X1 = not source.MODEL.RESNETS.STRIDE_IN_1X1
    target.MODEL.META_ARCHITECTURE, target.MODEL.BACKBONE.NAME = "SGRSegmentor", "build_retinanet_resnet_fpn_backbone"
    target.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["p3", "p4", "p5"]
    with pytest.raises(ValueError, match=r"MODEL.RESNETS.STRIDE_IN_1X1"):
        check_input_of_backbone(target, loaded(tmp_path, source, target))


def test_between_runs_of_one_task_another_mean_is_a_warning(tmp_path, caplog):
    source, target = detector_cfg(), detector_cfg()
    target.MODEL.PIXEL_MEAN = [90.0, 80.0, 70.0]
    check_input_of_backbone(target, loaded(tmp_path, source, target))
    assert "MODEL.PIXEL_MEAN" in caplog.text and "give those of the file" in caplog.text
    same = loaded(tmp_path, source, source)
    caplog.clear()
    check_input_of_backbone(source, same)
    assert not caplog.text


def test_an_sgr_that_does_not_fit_is_told_and_not_frozen(tmp_path, caplog):
    source, target = segmentation_cfg(), detector_cfg(features=("res3", "res4"))
    checkpointer = loaded(tmp_path, source, target)
    assert not checkpointer.report.new and any(".sgr." in name for name in checkpointer.report.missing)
    check_place_of_sgr(target, checkpointer)
    assert "nothing of its SGR fits" in caplog.text
    assert "reads ['p3', 'p4'], this one ['res3', 'res4'] (MODEL.SGR.IN_FEATURES)" in caplog.text
    target.MODEL.SGR.FREEZE = True
    with pytest.raises(ValueError, match=r"MODEL.SGR.FREEZE True would keep it untrained"):
        check_place_of_sgr(target, checkpointer)
    fitting = loaded(tmp_path, source, source), loaded(tmp_path, detector_cfg(sgr=False), source)
    caplog.clear()
    for checkpointer in fitting:  # the second has no SGR
        check_place_of_sgr(source, checkpointer)
    assert not caplog.text


def test_what_two_tasks_have_in_common_is_compared(tmp_path, caplog):
    """Keys that a model of the other task does not use would hide those that matter."""
    source, target = segmentation_cfg(), detector_cfg()
    target.MODEL.SGR.NUM_TOKENS = source.MODEL.SGR.NUM_TOKENS + 4
    warn_of_another_model(target, loaded(tmp_path, source, target))
    assert "MODEL.SGR.NUM_TOKENS" in caplog.text and "ANCHOR" not in caplog.text and "RPN" not in caplog.text


@pytest.mark.parametrize("sgr", ["", "_sgr"])
def test_the_recipe_for_a_transfer_has_the_input_of_the_segmentation_model(sgr):
    detector = load_config(str(ROOT / f"configs/detection/mask_rcnn{sgr}_R50_FPN_1x_transfer.yaml"))
    segmentation = load_config(str(ROOT / f"configs/coco_stuff/fpn{sgr}.yaml"))
    assert f"{segmentation.OUTPUT_DIR}/model_final.pth" == detector.MODEL.WEIGHTS
    assert detector.INPUT.FORMAT == segmentation.INPUT.FORMAT
    for key in ("RESNETS", "FPN", "PIXEL_MEAN", "PIXEL_STD"):
        assert detector.MODEL[key] == segmentation.MODEL[key], key
    differences = {key for key, value in detector.MODEL.SGR.items() if value != segmentation.MODEL.SGR[key]}
    assert differences <= {"COMPONENT_WEIGHT", "DIVERSITY_WEIGHT"}
