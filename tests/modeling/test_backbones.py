import pytest
import torch
from detectron2.modeling import build_backbone

import sgr_d2.modeling  # noqa: F401
from sgr_d2.config import get_sgr_cfg
from sgr_d2.modeling import SwinBackbone, TimmBackbone


@pytest.mark.parametrize(
    "name",
    [
        "resnet10t",
        "tf_efficientnet_lite0",
        "mobilenetv3_small_050",
        "convnext_atto",  # stages from stride 4
        "swin_tiny_patch4_window7_224",  # channels last, fixed window
        "regnetx_002",
    ],
)
def test_timm_models_give_levels_of_the_strides_in_their_names(name):
    backbone = TimmBackbone(name, out_features=["res3", "res5"]).eval()
    shape = backbone.output_shape()
    with torch.no_grad():
        features = backbone(torch.rand(1, 3, 64, 96))
    assert list(features) == list(shape) == ["res3", "res5"]
    for feature_name, stride in (("res3", 8), ("res5", 32)):
        assert shape[feature_name].stride == stride
        assert features[feature_name].shape == (1, shape[feature_name].channels, 64 // stride, 96 // stride)
    assert backbone.size_divisibility == 32


def test_output_stride_dilates_and_keeps_names_and_weights():
    plain = TimmBackbone("tf_efficientnet_lite0", out_features=["res2", "res5"])
    dilated = TimmBackbone("tf_efficientnet_lite0", out_features=["res2", "res5"], output_stride=16).eval()
    dilated.load_state_dict(plain.state_dict())
    with torch.no_grad():
        features = dilated(torch.rand(1, 3, 64, 96))
    assert [spec.stride for spec in dilated.output_shape().values()] == [4, 16]
    assert features["res5"].shape == (1, plain.output_shape()["res5"].channels, 4, 6)
    for name in ("swin_tiny_patch4_window7_224", "vgg11"):
        with pytest.raises(ValueError, match=f"OUTPUT_STRIDE = 16: {name}"):
            TimmBackbone(name, out_features=["res3"], output_stride=16)


def test_levels_asked_for_in_any_order_have_their_own_names():
    backbone = TimmBackbone("resnet18", out_features=["res5", "res3"]).eval()
    with torch.no_grad():
        features = backbone(torch.rand(1, 3, 64, 64))
    assert {name: spec.channels for name, spec in backbone.output_shape().items()} == {"res3": 128, "res5": 512}
    assert {name: f.shape[1:] for name, f in features.items()} == {"res3": (128, 8, 8), "res5": (512, 2, 2)}


def test_levels_of_one_stride_are_numbered():
    backbone = TimmBackbone("vit_tiny_patch16_224", out_features=["res4_1", "res4_3"]).eval()
    with torch.no_grad():
        features = backbone(torch.rand(1, 3, 64, 96))
    assert [f.shape for f in features.values()] == [(1, 192, 4, 6)] * 2


def test_a_model_with_fixed_windows_names_the_padding_that_it_needs():
    backbone = TimmBackbone("maxvit_rmlp_pico_rw_256", out_features=["res3", "res5"]).eval()
    message = r"NAME = 'maxvit_rmlp_pico_rw_256': images of 96x128 .* built for 256x256.*SIZE_DIVISIBILITY.*256 works"
    with torch.no_grad():
        with pytest.raises(ValueError, match=message) as refusal:
            backbone(torch.zeros(1, 3, 96, 128))
        assert isinstance(refusal.value.__cause__, AssertionError)
        assert backbone(torch.zeros(1, 3, 256, 512))["res5"].shape[-2:] == (8, 16)


@pytest.mark.parametrize("name", ["nest_tiny", "levit_128s"])  # an assertion, and sizes that do not match
@torch.no_grad()
def test_a_model_for_one_size_alone_is_refused_on_others(name):
    backbone = TimmBackbone(name).eval()
    for size, advice in (((64, 128), "SIZE_DIVISIBILITY"), ((224, 448), r"for 224x224\. Choose another model\.$")):
        with pytest.raises(ValueError, match=rf"TIMM.NAME = '{name}': images of {size[0]}x{size[1]} .*{advice}"):
            backbone(torch.zeros(1, 3, *size))
    backbone(torch.zeros(1, 3, 224, 224))


@torch.no_grad()
def test_a_model_with_too_few_position_codes_is_refused_on_larger_images():
    backbone = TimmBackbone("mvitv2_tiny", out_features=["res4"]).eval()
    assert backbone(torch.zeros(1, 3, 64, 96))["res4"].shape[-2:] == (4, 6)
    with pytest.raises(ValueError, match=r"images of 64x320 .* for 224x224\. Choose another model\.$") as refusal:
        backbone(torch.zeros(1, 3, 64, 320))
    assert isinstance(refusal.value.__cause__, IndexError)


def test_errors_of_another_kind_stay_as_they_are():
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 4"):
        TimmBackbone("levit_128s")(torch.zeros(1, 4, 64, 64))


def test_unknown_timm_names_list_the_choices():
    with pytest.raises(ValueError, match=r"TIMM.NAME = 'resnet19'.*resnet18"):
        TimmBackbone("resnet19")
    with pytest.raises(ValueError, match=r"OUT_FEATURES.*'p3'.*'res5'"):
        TimmBackbone("resnet10t", out_features=["p3"])
    with pytest.raises(ValueError, match=r"TIMM.NORM = 'GN'.*FrozenBN"):
        TimmBackbone("resnet10t", norm="GN")


def test_frozen_bn_has_no_trainable_statistics():
    backbone = TimmBackbone("resnet10t", norm="FrozenBN")
    assert not [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not [n for n, _ in backbone.named_parameters() if ".bn" in n]


@pytest.mark.parametrize("name", ["build_timm_backbone", "build_swin_backbone", "build_timm_fpn_backbone"])
def test_stages_that_cannot_be_frozen_are_refused(name):
    cfg = get_sgr_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = name, 3
    with pytest.raises(ValueError, match=r"FREEZE_AT = 3: build_\w+ cannot freeze stages"):
        build_backbone(cfg)


def test_a_pyramid_pads_for_the_network_below():
    cfg = get_sgr_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.TIMM.NAME = "build_timm_fpn_backbone", "tf_efficientnet_lite0"
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    assert build_backbone(cfg).size_divisibility == 32
    cfg.MODEL.TIMM.SIZE_DIVISIBILITY = 224
    assert build_backbone(cfg).size_divisibility == 224
    cfg.MODEL.TIMM.SIZE_DIVISIBILITY = 48
    assert build_backbone(cfg).size_divisibility == 96


def test_swin_has_the_names_of_resnet_and_the_keys_of_the_official_swin():
    backbone = SwinBackbone(
        out_features=["res2", "res4"], embed_dim=24, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4
    )
    features = backbone(torch.rand(1, 3, 64, 96))
    sum(f.sum() for f in features.values()).backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []  # no stage that nobody reads
    assert {n: tuple(f.shape) for n, f in features.items()} == {"res2": (1, 24, 16, 24), "res4": (1, 96, 4, 6)}
    assert {n: (s.channels, s.stride) for n, s in backbone.output_shape().items()} == {
        "res2": (24, 4),
        "res4": (96, 16),
    }
    keys = backbone.state_dict()
    assert {"patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table", "norm0.weight"} <= set(
        keys
    )
    with pytest.raises(ValueError, match=r"SWIN.OUT_FEATURES.*'p2'"):
        SwinBackbone(out_features=["p2"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": [1, 1, 1]}, r"SWIN.DEPTHS = \[1, 1, 1\]: give four"),
        ({"num_heads": [3, 6, 12]}, r"SWIN.NUM_HEADS = \[3, 6, 12\]: give four"),
        ({"embed_dim": 100}, r"SWIN.NUM_HEADS = .*channels of the stages, \[100, 200, 400, 800\]"),
    ],
)
def test_swin_stages_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SwinBackbone(out_features=["res2"], **options)


@pytest.mark.parametrize(
    "name",
    ["build_resnet_backbone", "build_resnet_fpn_backbone", "build_resnet_deeplab_backbone", "build_timm_fpn_backbone"],
)
def test_registered_backbones_build(name):
    cfg = get_sgr_cfg()
    cfg.MODEL.BACKBONE.NAME = name
    cfg.MODEL.RESNETS.DEPTH = 50
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.TIMM.NAME = "resnet10t"
    backbone = build_backbone(cfg).eval()
    with torch.no_grad():
        features = backbone(torch.rand(1, 3, 64, 64))
    assert {n: f.shape[1] for n, f in features.items()} == {n: s.channels for n, s in backbone.output_shape().items()}


def test_an_fpn_on_unknown_levels_is_refused():
    cfg = get_sgr_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_timm_fpn_backbone"
    cfg.MODEL.TIMM.NAME = "resnet10t"
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res6"]
    with pytest.raises(ValueError, match=r"FPN.IN_FEATURES.*'res6'.*'res5'"):
        build_backbone(cfg)
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res4"]
    with pytest.raises(ValueError, match=r"FPN.IN_FEATURES = .*have the strides \[4, 16\]"):
        build_backbone(cfg)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_small_050", "resnet10t"])
@pytest.mark.parametrize("last", ["res1", "res3", "res4"])
def test_what_comes_after_the_last_feature_is_not_there(name, last):
    """Parameters without a gradient stop DistributedDataParallel."""
    whole = TimmBackbone(name).eval()
    backbone = TimmBackbone(name, out_features=[last]).eval()
    assert not backbone.load_state_dict(whole.state_dict(), strict=False).missing_keys
    images = torch.rand(1, 3, 64, 64)
    features = backbone(images)
    features[last].sum().backward()
    assert not [key for key, parameter in backbone.named_parameters() if parameter.grad is None]
    if last in whole.output_shape():
        assert torch.equal(features[last], whole(images)[last])
