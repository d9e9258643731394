"""Promises about configs/detection that a machine can check; those about all configs are in test_configs.py."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from sgr_d2.engine import load_config
from sgr_d2.modeling.backbone import find_sgr_backbone

ROOT = Path(__file__).parents[1]
LEAVES = sorted((ROOT / "configs/detection").glob("*.yaml"))
SMALL = ["MODEL.DEVICE", "cpu", "MODEL.TIMM.WEIGHTS", "", "MODEL.RPN.POST_NMS_TOPK_TEST", "20"]
# The others are larger, or differ from these in the schedule alone.
QUICK = ("mask_rcnn_sgr_R50_FPN_1x", "retinanet_sgr_R50_FPN_1x", "lite0_camvid_instances")


def to_build():
    for path in LEAVES:
        marks = () if path.stem.endswith(QUICK) else pytest.mark.slow
        yield pytest.param(path, id=path.stem, marks=marks)


@pytest.mark.parametrize("path", to_build())
def test_every_detector_builds_and_detects(path):
    cfg = load_config(str(path), SMALL)
    model = build_model(cfg).eval()
    with torch.no_grad():
        (result,) = model([{"image": torch.zeros(3, 70, 90, dtype=torch.uint8)}])
    assert result["instances"].image_size == (70, 90)
    assert result["instances"].has("pred_masks") == cfg.MODEL.MASK_ON == ("mask_rcnn" in path.stem)
    assert ("sgr" in result) == (find_sgr_backbone(model.backbone) is not None) == ("_sgr_" in path.stem)


def test_there_is_a_baseline_for_each():
    with_sgr = {path.stem for path in LEAVES if "_sgr_" in path.stem}
    assert {name.replace("_sgr_", "_") for name in with_sgr} | with_sgr == {path.stem for path in LEAVES}


@pytest.mark.parametrize("data_set", ["tiny_coco", "camvid_instances"])
def test_the_small_detectors_have_sgr_where_our_segmentation_models_have_it(data_set):
    detector = load_config(str(ROOT / f"configs/detection/mask_rcnn_sgr_effnet_lite0_{data_set}.yaml"), [])
    segmentor = load_config(str(ROOT / "configs/camvid/fpn_sgr_effnet_lite0.yaml"), [])
    segmentor.defrost()
    segmentor.MODEL.SGR.LOSS_DECAY = detector.MODEL.SGR.LOSS_DECAY  # of the training, not of the model
    for key in ("SGR", "FPN", "PIXEL_MEAN", "PIXEL_STD"):
        assert detector.MODEL[key] == segmentor.MODEL[key], key
    assert detector.MODEL.TIMM.NAME == segmentor.MODEL.TIMM.NAME
    assert detector.INPUT.FORMAT == segmentor.INPUT.FORMAT
