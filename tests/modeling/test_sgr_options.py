"""Options of SGR: from the config to the module, the order of its levels, and what regions start as."""

import math
from inspect import signature

import pytest
import torch
from toys import toy_cfg, toy_features, toy_shape

from sgr_d2.config import get_sgr_cfg
from sgr_d2.modeling.sgr import SGR, SGRCriterion
from sgr_d2.modeling.sgr.regions import FixedRegions

SMALL = {"num_tokens": 6, "token_dim": 16, "encoder_layers": 1, "num_heads": 2}


def run(*args, **options):
    """What a freshly drawn module makes of one image, and whether it can learn."""
    torch.manual_seed(0)
    sgr = SGR(*args, **options)
    torch.manual_seed(1)
    output = sgr(toy_features(1, 64, 64), torch.tensor([[64, 64]]))
    return output.features, output.region_logits, output.tokens, output.tokens.requires_grad


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("NUM_TOKENS", 11),
        ("TOKEN_DIM", 24),
        ("ENCODER_LAYERS", 3),
        ("NUM_HEADS", 4),
        ("POSITION", False),
        ("REGIONS", "softmax"),
        ("REGION_LAYERS", 2),
        ("NUM_PLACES", 5),
        ("FUSION_POSITION", True),
        ("FUSION_INIT", "normal"),
        ("NORM", "LN"),
        ("NORM", "BN"),
        ("FREEZE", True),
    ],
)
def test_every_key_of_the_config_reaches_the_module(key, value):
    cfg = toy_cfg()
    assert cfg.MODEL.SGR[key] != value
    cfg.MODEL.SGR[key] = value
    expected = run(toy_shape(*cfg.MODEL.SGR.IN_FEATURES), **{**SMALL, key.lower(): value})
    torch.testing.assert_close(run(cfg, toy_shape()), expected, rtol=0, atol=0)


def test_what_reaches_the_loss_and_the_fusion():
    cfg = toy_cfg()
    cfg.MODEL.SGR.LOSS_GRADIENT, cfg.MODEL.SGR.FUSION_RELATIVE = 0.7, False
    sgr = SGR(cfg, toy_shape())
    assert sgr.loss_gradient == 0.7 and not any(block.relative for block in sgr.fusion.values())
    cfg.MODEL.SGR.COMPONENT_WEIGHT = cfg.MODEL.SGR.DIVERSITY_WEIGHT = 0.0
    sgr = SGR(cfg, toy_shape())
    calls = []
    sgr.region_predictor.register_forward_hook(lambda *_: calls.append(1))
    sgr(toy_features(1, 64, 64), torch.tensor([[64, 64]]))
    assert len(calls) == 1  # no loss takes a gradient of regions, so they are predicted once


def test_defaults_are_those_of_the_config():
    cfg, shape = get_sgr_cfg(), toy_shape()
    cfg.MODEL.SGR.IN_FEATURES = list(shape)
    options = SGR.from_config(cfg, shape) | SGRCriterion.from_config(cfg, num_classes=0)
    for name in ("input_shape", "token_dim", "max_iter"):  # no default, the criterion's is none, and Detectron2's key
        del options[name]
    parameters = signature(SGR.__init__).parameters | signature(SGRCriterion.__init__).parameters
    assert {name: parameters[name].default for name in options} == options


def test_levels_may_be_named_in_any_order():
    levels, features = ("res2", "res3", "res5"), toy_features(1, 64, 64)
    forward, backward = SGR(toy_shape(*levels), **SMALL), SGR(toy_shape(*levels[::-1]), **SMALL)
    backward.load_state_dict(forward.state_dict())
    expected, output = (sgr(features, torch.tensor([[64, 64]])) for sgr in (forward, backward))
    assert output.stride == 4
    torch.testing.assert_close(output.region_logits, expected.region_logits)
    torch.testing.assert_close(output.tokens, expected.tokens)


@pytest.mark.parametrize(("regions", "share"), [("sigmoid", 1 / (1 + math.exp(2))), ("softmax", 1 / 6)])
def test_regions_start_faint_or_even(regions, share):
    sgr = SGR(toy_shape("res2"), **SMALL, regions=regions)
    torch.nn.init.zeros_(sgr.region_predictor.weight)
    found = sgr(toy_features(1, 64, 64), torch.tensor([[64, 64]])).region_logits.sigmoid()
    torch.testing.assert_close(found, torch.full_like(found, share))


def test_fixed_regions_differ_and_none_holds_all_of_the_image():
    torch.manual_seed(0)
    regions = FixedRegions(200)(torch.zeros(1, 4, 32, 32), None, torch.tensor([[32.0, 32.0]])).sigmoid()[0].flatten(1)
    shares = regions.mean(1)
    assert 0.005 < shares.min() < 0.1 and 0.3 < shares.max() < 0.8
    assert torch.corrcoef(regions).fill_diagonal_(-1).max() < 1 - 1e-6  # no two are the same
    assert regions.mean(0).min() > 0.02  # together they reach every corner


def test_a_fixed_region_is_a_disc_in_shares_of_the_image_and_not_of_its_padding():
    regions = FixedRegions(1)
    regions.centres[:], regions.radii[:] = torch.tensor([[0.5, 0.25]]), 0.2
    logits = regions(torch.zeros(2, 4, 4, 8), None, torch.tensor([[2.0, 8.0], [4.0, 4.0]]))
    for image, (height, width) in enumerate(((2, 8), (4, 4))):
        for y in range(height):
            for x in range(width):
                distance = math.hypot((y + 0.5) / height - 0.5, (x + 0.5) / width - 0.25)
                assert logits[image, 0, y, x].item() == pytest.approx(4 - 8 * (distance / 0.2) ** 2, abs=1e-3)
