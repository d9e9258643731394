import pytest
import torch
from torch.nn import functional as F
from toys import toy_cfg, toy_features, toy_shape

from sgr_d2.modeling.mask2former.fpn_pixel_decoder import FPNPixelDecoder
from sgr_d2.modeling.mask2former.pixel_decoder import PIXEL_DECODER_REGISTRY


def make(*names, **options):
    torch.manual_seed(0)
    return FPNPixelDecoder(toy_shape(*names), **{"conv_dim": 32, "mask_dim": 12, **options})


def test_against_the_pyramid_written_out():
    decoder = make()
    sizes = {"res2": (33, 47), "res3": (17, 23), "res4": (9, 11), "res5": (5, 5)}
    features = {name: torch.randn(3, spec.channels, *sizes[name]) for name, spec in toy_shape().items()}
    levels = []
    for name in ("res5", "res4", "res3", "res2"):
        x = F.group_norm(F.conv2d(features[name], decoder.lateral[name].weight), 32)
        if levels:
            x = x + F.interpolate(levels[-1], size=sizes[name], mode="bilinear", align_corners=False)
        levels.append(F.relu(F.group_norm(F.conv2d(x, decoder.output[name].weight, padding=1), 32)))
    masks = F.conv2d(levels[-1], decoder.mask_features.weight, decoder.mask_features.bias)
    output = decoder(features)
    torch.testing.assert_close(output.mask_features, masks)
    for level, expected in zip(output.levels, levels[:3], strict=True):
        torch.testing.assert_close(level, expected)


@pytest.mark.parametrize("norm", ["GN", "", "BN"])
def test_every_parameter_gets_a_gradient(norm):
    decoder = make(norm=norm)
    decoder(toy_features(2, 64, 96)).mask_features.square().sum().backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_three_features_suffice():
    output = make("res3", "res4", "res5", common_stride=8)(toy_features(1, 64, 96, "res3", "res4", "res5"))
    assert output.mask_features.shape == (1, 12, 8, 12)
    assert [tuple(level.shape[1:]) for level in output.levels] == [(32, 2, 3), (32, 4, 6), (32, 8, 12)]


def test_features_finer_than_the_masks_are_not_read():
    decoder = make(common_stride=8)
    assert decoder.in_features == ["res5", "res4", "res3"]
    assert decoder(toy_features(1, 64, 64)).mask_features.shape == (1, 12, 8, 8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    decoder, features = make(), toy_features(1, 64, 64)
    exact = decoder(features).mask_features
    with torch.autocast("cpu", dtype=dtype):
        output = decoder(features).mask_features
    assert (output - exact).square().mean() < 1e-3 * exact.square().mean()


def test_built_from_the_config():
    cfg = toy_cfg(sgr=False)
    cfg.MODEL.SEM_SEG_HEAD.MASK_DIM = 20
    decoder = PIXEL_DECODER_REGISTRY.get("FPNPixelDecoder")(cfg, toy_shape())
    assert decoder(toy_features(1, 64, 64)).mask_features.shape == (1, 20, 16, 16)
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["res3", "p4"]
    with pytest.raises(ValueError, match=r"IN_FEATURES.*'p4'.*Choose from.*res2"):
        FPNPixelDecoder(cfg, toy_shape())


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("res2", "res3"), {"common_stride": 16}, r"COMMON_STRIDE = 16.*\['res2', 'res3'\] it can use \[\]"),
        (("res3", "res4", "res5"), {}, r"COMMON_STRIDE = 4.*\[32, 16, 8\]"),
        ((), {"conv_dim": 40}, r"CONVS_DIM = 40 must be a multiple of 32 for NORM GN"),
    ],
)
def test_what_does_not_fit_names_its_key(names, options, message):
    with pytest.raises(ValueError, match=message):
        make(*names, **options)
