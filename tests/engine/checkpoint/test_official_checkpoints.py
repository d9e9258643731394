"""The published Mask2Former models: every tensor has its place in ours (names and shapes in tests/data_files)."""

import pytest
import torch
from detectron2.modeling import build_model
from official_keys import official_state
from torch import nn

import sgr_d2.modeling  # noqa: F401  registers models
from sgr_d2.config import get_sgr_cfg
from sgr_d2.engine import load_weights

LEVELS = ["res2", "res3", "res4", "res5"]
BACKBONES = {"r50": "build_resnet_backbone", "swin_tiny": "build_swin_backbone"}


def mask2former(name: str, *, classes: int = 150, sgr: bool = False) -> nn.Module:
    cfg = get_sgr_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = BACKBONES[name]
    cfg.MODEL.RESNETS.OUT_FEATURES = LEVELS
    cfg.MODEL.SEM_SEG_HEAD.NAME = "MaskFormerHead"
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = LEVELS
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 256
    cfg.MODEL.SEM_SEG_HEAD.NORM = "GN"
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = classes
    cfg.MODEL.SGR.ENABLED = cfg.MODEL.SGR.QUERY_ATTENTION = sgr
    cfg.MODEL.SGR.IN_FEATURES = ["res3", "res4", "res5"]
    return build_model(cfg)


def save(state: dict[str, torch.Tensor], folder) -> str:
    torch.save({"model": state, "__author__": "somebody"}, folder / "official.pth")
    return str(folder / "official.pth")


@pytest.mark.parametrize("name", BACKBONES)
def test_every_tensor_of_an_official_model_fits(name, tmp_path):
    state = official_state(name)
    model = mask2former(name)
    report = load_weights(model, save(state, tmp_path))
    assert not (report.skipped or report.missing or report.new)
    assert report.unused == ["criterion.empty_weight"]
    assert report.loaded == sorted(model.state_dict()) == sorted(set(state) - {"criterion.empty_weight"})
    assert all((value == 0).all() for value in model.state_dict().values())


def test_the_published_names_other_classes_and_sgr_at_once(tmp_path):
    """As in the published files: static_query; criterion.empty_weight of 150 classes and one."""
    state = {key.replace("query_feat", "static_query"): value for key, value in official_state("r50").items()}
    assert "sem_seg_head.predictor.static_query.weight" in state
    report = load_weights(mask2former("r50", classes=11, sgr=True), save(state, tmp_path))
    assert {(s.key, s.in_file[0], s.in_model[0]) for s in report.skipped} == {
        ("sem_seg_head.predictor.class_embed.weight", 151, 12),
        ("sem_seg_head.predictor.class_embed.bias", 151, 12),
    }
    assert "sem_seg_head.predictor.query_feat.weight" in report.loaded
    assert report.missing == [] and report.unused == ["criterion.empty_weight"]
    assert {key.split(".")[0] for key in report.new} == {"sgr", "sem_seg_head"}
    assert all(key.startswith("sgr.") or ".transformer_token_attention_layers." in key for key in report.new)
