import pytest
import torch
from torch.nn import functional as F
from toys import randomize_zeros, toy_cfg, toy_features, toy_shape

from sgr_d2.modeling.sgr import SGR
from sgr_d2.modeling.sgr.fusion import reproject
from sgr_d2.modeling.sgr.position import add_sine_position
from sgr_d2.modeling.sgr.sgr import project

LEVELS = ("res2", "res3", "res5")


def make(**options) -> SGR:
    torch.manual_seed(0)
    return SGR(toy_shape(*LEVELS), **{"num_tokens": 7, "token_dim": 16, "num_heads": 2, **options})


def test_output_has_the_names_and_shapes_of_the_input():
    features = toy_features(2, 64, 96)
    output = make()(features, torch.tensor([[64, 96], [33, 65]]))
    assert {name: f.shape for name, f in output.features.items()} == {name: f.shape for name, f in features.items()}
    assert output.region_logits.shape == (2, 7, 16, 24)
    assert output.tokens.shape == (2, 7, 16)
    assert output.stride == 4
    assert output.valid.sum((1, 2, 3)).tolist() == [16 * 24, 9 * 17]
    assert make().output_shape() == toy_shape(*LEVELS)


def test_a_fresh_module_changes_no_bit_of_the_features():
    features = toy_features(1, 64, 64)
    output = make()(features, torch.tensor([[64, 64]]))
    assert all(torch.equal(output.features[name], features[name]) for name in features)


@pytest.mark.parametrize(("norm", "training"), [("LN", True), ("BN", False)])
def test_padding_has_no_say(norm, training):
    sgr = make(encoder_layers=1, norm=norm).train(training)
    randomize_zeros(sgr)
    small = toy_features(1, 64, 32, *LEVELS)
    sizes = torch.tensor([[50, 27]])
    alone = sgr(small, sizes)
    beside = {
        name: torch.cat(
            [
                F.pad(f, (0, f.shape[-1], 0, f.shape[-2]), value=50.0),
                torch.randn(1, f.shape[1], 2 * f.shape[2], 2 * f.shape[3]),
            ]
        )
        for name, f in small.items()
    }
    both = sgr(beside, torch.cat([sizes, torch.tensor([[128, 64]])]))
    rows, columns = 13, 7  # the cells of stride 4 that 50 x 27 pixels touch
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(both.tokens[0], alone.tokens[0], **close)
    torch.testing.assert_close(
        both.region_logits[0, :, :rows, :columns], alone.region_logits[0, :, :rows, :columns], **close
    )
    refined, expected = both.features["res2"][0], alone.features["res2"][0]
    torch.testing.assert_close(refined[:, :rows, :columns], expected[:, :rows, :columns], **close)


@pytest.mark.parametrize("norm", ["LN", "BN"])
@pytest.mark.parametrize("training", [True, False])
def test_garbage_in_the_padding_of_the_same_tensor_has_no_say(norm, training):
    sgr = make(norm=norm).train(training)
    randomize_zeros(sgr)
    features = toy_features(1, 64, 64, *LEVELS)
    sizes = torch.tensor([[32, 32]])
    before = sgr(features, sizes)
    for f in features.values():
        f[..., f.shape[-2] // 2 :, :] = -1e3
        f[..., :, f.shape[-1] // 2 :] = 1e3
    after = sgr(features, sizes)
    torch.testing.assert_close(before.tokens, after.tokens)
    torch.testing.assert_close(before.features["res2"][..., :8, :8], after.features["res2"][..., :8, :8])


def test_project_against_loops():
    pixels, regions = torch.rand(2, 3, 4, 5), torch.rand(2, 6, 4, 5)
    tokens = project(pixels, regions)
    for b in range(2):
        for k in range(6):
            total = sum(regions[b, k, y, x] * pixels[b, :, y, x] for y in range(4) for x in range(5))
            torch.testing.assert_close(tokens[b, k], total / regions[b, k].sum())


def test_empty_regions_give_finite_tokens_and_pixels():
    assert project(torch.rand(1, 4, 2, 2), torch.zeros(1, 3, 2, 2)).abs().max() == 0
    assert reproject(torch.rand(1, 3, 4), torch.zeros(1, 3, 2, 2)).abs().max() == 0


def test_position_depends_on_the_place_in_the_image_and_on_nothing_else():
    zeros = torch.zeros(1, 8, 4, 6)
    code = add_sine_position(zeros, torch.tensor([[4.0, 6.0]]))
    assert len({tuple(c.tolist()) for c in code.flatten(2)[0].T}) == 24
    padded = add_sine_position(torch.zeros(1, 8, 9, 9), torch.tensor([[4.0, 6.0]]))
    torch.testing.assert_close(padded[..., :4, :6], code)
    top_left = torch.tensor([[0.5 / 4, 0.5 / 6]]) * 2 * torch.pi
    assert code[0, 0, 0, 0].item() == pytest.approx(top_left[0, 0].sin().item(), abs=1e-6)
    assert code[0, 4, 0, 0].item() == pytest.approx(top_left[0, 1].sin().item(), abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_tokens": 1},
        {"encoder_layers": 0},
        {"encoder_layers": 0, "num_tokens": 1},
        {"region_layers": 2},
        {"regions": "softmax"},
        {"regions": "fixed"},
        {"num_places": 5},
        {"num_places": 5, "norm": "LN"},
        {"fusion_position": True},
    ],
)
def test_every_parameter_gets_a_gradient(options):
    sgr = make(**options)
    randomize_zeros(sgr)
    output = sgr(toy_features(2, 64, 64, *LEVELS), torch.tensor([[64, 64]] * 2))
    sum(f.square().sum() for f in output.features.values()).backward()
    without = [name for name, p in sgr.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_freeze():
    assert not any(p.requires_grad for p in make(freeze=True).parameters())


def gradients_of(what: str, **options) -> dict[str, torch.Tensor]:
    """Of the logits, or of the features, by parameter and (as "res2", ...) by level."""
    sgr = make(**options)
    randomize_zeros(sgr)
    features = {name: f.requires_grad_() for name, f in toy_features(2, 64, 64, *LEVELS).items()}
    output = sgr(features, torch.tensor([[64, 64], [64, 40]]))
    source = output.region_logits if what == "logits" else output.features["res2"]
    tensors = dict(sgr.named_parameters()) | features
    gradients = torch.autograd.grad(source.square().sum(), list(tensors.values()), allow_unused=True)
    return {name: g for name, g in zip(tensors, gradients, strict=True) if g is not None and g.any()}


@pytest.mark.parametrize("options", [{}, {"region_layers": 1}, {"regions": "softmax", "position": False}])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_share_of_the_gradient_of_the_regions_reaches_the_features(options, share):
    plain, shared = (gradients_of("logits", **options, loss_gradient=number) for number in (1.0, share))
    assert {"res2", "res3", "res5"} < set(plain)
    for name, gradient in plain.items():
        if name.startswith("region_predictor"):
            torch.testing.assert_close(shared[name], gradient)
        elif share:
            torch.testing.assert_close(shared[name], share * gradient, rtol=1e-3, atol=1e-4)
        else:
            assert name not in shared


def test_the_share_of_the_gradient_changes_nothing_else():
    plain, shared = (gradients_of("features", loss_gradient=number) for number in (1.0, 0.0))
    torch.testing.assert_close(shared, plain, rtol=0, atol=0)
    features, sizes = toy_features(2, 64, 64, *LEVELS), torch.tensor([[64, 64], [64, 40]])
    for share in (0.0, 0.3):
        expected, output = (make(loss_gradient=number)(features, sizes) for number in (1.0, share))
        assert torch.equal(output.region_logits, expected.region_logits)
        with torch.no_grad():
            assert torch.equal(make(loss_gradient=share)(features, sizes).region_logits, expected.region_logits)


@pytest.mark.parametrize(("dtype", "difference"), [(torch.float16, 0.1), (torch.bfloat16, 0.3)])
def test_autocast_gives_finite_float32_regions_and_tokens(dtype, difference):
    sgr = make()
    randomize_zeros(sgr)
    features = toy_features(1, 64, 64, *LEVELS)
    exact = sgr(features, torch.tensor([[64, 64]]))
    with torch.autocast("cpu", dtype=dtype):
        output = sgr(features, torch.tensor([[64, 64]]))
    assert output.region_logits.dtype == output.tokens.dtype == torch.float32
    torch.testing.assert_close(output.tokens, exact.tokens, rtol=0.1, atol=difference)
    (exact_gradient,) = torch.autograd.grad(exact.features["res3"].sum(), sgr.fusion["res3"].out.weight)
    (gradient,) = torch.autograd.grad(output.features["res3"].sum(), sgr.fusion["res3"].out.weight)
    torch.testing.assert_close(gradient, exact_gradient, rtol=0.1, atol=1.0)


def test_what_tokens_have_in_common_costs_no_digits_under_autocast():
    """A mean of ten times their spread, which the norm at the end of the encoder removes."""
    sgr = make(norm="BN")
    torch.nn.init.constant_(sgr.value.bias, 10.0)
    features, sizes = toy_features(2, 64, 64, *LEVELS), torch.tensor([[64, 64]] * 2)
    exact = sgr(features, sizes).tokens
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = sgr(features, sizes).tokens
    assert (tokens - exact).norm() / exact.norm() < 0.02


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"num_tokens": 0}, "NUM_TOKENS = 0"),
        ({"num_places": -1}, "NUM_PLACES = -1"),
        ({"token_dim": 18}, "TOKEN_DIM = 18"),
        ({"token_dim": 16, "num_heads": 3}, "NUM_HEADS = 3"),
        ({"encoder_layers": -1}, "ENCODER_LAYERS = -1"),
        ({"loss_gradient": -0.1}, "LOSS_GRADIENT = -0.1.*from 0"),
        ({"loss_gradient": 1.5}, "LOSS_GRADIENT = 1.5.*from 0"),
    ],
)
def test_bad_numbers_name_their_key(options, key):
    with pytest.raises(ValueError, match=key):
        make(**options)


def test_nothing_to_refine_names_the_arguments_and_the_keys():
    with pytest.raises(ValueError, match=r"\(input_shape; .*IN_FEATURES\), but is to refine only \['p9'\] \(refined; "):
        make(refined=["p9"])


def test_unknown_features_list_the_choices():
    cfg = toy_cfg()
    cfg.MODEL.SGR.IN_FEATURES = ["res3", "p3"]
    with pytest.raises(ValueError, match=r"MODEL.SGR.IN_FEATURES.*'p3'.*res2"):
        SGR(cfg, toy_shape())
    cfg.MODEL.SGR.IN_FEATURES = []
    with pytest.raises(ValueError, match="an empty list"):
        SGR(cfg, toy_shape())


# what can be varied


def test_softmax_regions_add_up_to_one():
    output = make(regions="softmax")(toy_features(1, 64, 64), torch.tensor([[64, 64]]))
    torch.testing.assert_close(output.region_logits.sigmoid().sum(1), torch.ones(1, 16, 16))


def test_fixed_regions_are_discs_that_do_not_see_the_image():
    sgr = make(regions="fixed")
    sgr.region_predictor.centres[0], sgr.region_predictor.radii[0] = torch.tensor([0.5, 0.25]), 0.25
    sizes = torch.tensor([[64, 64]])
    first, second = sgr(toy_features(1, 64, 64), sizes), sgr(toy_features(1, 64, 64), sizes)
    assert torch.equal(first.region_logits, second.region_logits)
    # cell (7, 3) of 16: half a cell off the centre, 1/32 of the image along each axis, an eighth of the radius
    assert first.region_logits[0, 0, 7, 3].item() == pytest.approx(4 - 8 * 2 / 64, abs=1e-5)
    assert not any(name.startswith("region_predictor") for name, _ in sgr.named_parameters())
    # twice the image: the same discs
    large = sgr(toy_features(1, 128, 128), torch.tensor([[128, 128]]))
    torch.testing.assert_close(F.avg_pool2d(large.region_logits, 2), first.region_logits, rtol=0.01, atol=0.1)


@pytest.mark.parametrize(
    "options", [{"region_layers": 2}, {"regions": "softmax"}, {"regions": "fixed"}, {"num_places": 5}]
)
def test_padding_has_no_say_in_other_regions(options):
    sgr = make(**options)
    randomize_zeros(sgr)
    features = toy_features(1, 64, 64, *LEVELS)
    sizes = torch.tensor([[32, 32]])
    before = sgr(features, sizes)
    for f in features.values():
        f[..., f.shape[-2] // 2 :, :] = -1e3
        f[..., :, f.shape[-1] // 2 :] = 1e3
    torch.testing.assert_close(sgr(features, sizes).tokens, before.tokens)


def test_without_position_pixels_of_equal_features_are_equal():
    features = {"res2": torch.ones(1, toy_shape("res2")["res2"].channels, 8, 8)}
    sizes = torch.tensor([[32, 32]])

    def spread(**options):
        torch.manual_seed(0)
        sgr = SGR(toy_shape("res2"), num_tokens=7, token_dim=16, num_heads=2, region_layers=0, **options)
        return sgr(features, sizes).region_logits.std(dim=(2, 3)).max().item()

    assert spread(position=False) < 1e-6 < 1e-2 < spread(position=True)


def test_normal_fusion_gives_up_the_identity():
    features = toy_features(1, 64, 64)
    output = make(fusion_init="normal")(features, torch.tensor([[64, 64]]))
    assert not any(torch.equal(output.features[name], features[name]) for name in LEVELS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regions": "hard"}, r"MODEL.SGR.REGIONS = 'hard'.*softmax"),
        ({"region_layers": -1}, "MODEL.SGR.REGION_LAYERS = -1"),
        ({"fusion_init": "one"}, r"MODEL.SGR.FUSION_INIT = 'one'.*normal"),
    ],
)
def test_unknown_variants_name_their_key(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
