"""MODEL.SGR.NORM BN: at the end of the encoder and in the fusion blocks."""

import pytest
import torch
from detectron2.modeling import build_model
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from toys import randomize_zeros, toy_cfg, toy_features, toy_shape

from sgr_d2.modeling.sgr import SGR
from sgr_d2.modeling.sgr.encoder import build_encoder
from sgr_d2.modeling.sgr.fusion import BatchNormFusion, Fusion, reproject

LEVELS = ("res2", "res3", "res5")


def make(**options) -> SGR:
    torch.manual_seed(0)
    return SGR(toy_shape(*LEVELS), **{"num_tokens": 7, "token_dim": 16, "num_heads": 2, "norm": "BN", **options})


def randomize_statistics(module):
    for norm in module.modules():
        if isinstance(norm, _BatchNorm):
            torch.nn.init.normal_(norm.running_mean), torch.nn.init.uniform_(norm.running_var, 0.5, 2)


def sizes(count=2):
    return torch.tensor([[64, 64]] * count)


def test_a_fresh_module_changes_no_bit_of_the_features():
    features = toy_features(2, 64, 64, *LEVELS)
    for training in (True, False):
        output = make().train(training)(features, sizes())
        assert all(torch.equal(output.features[name], features[name]) for name in features)


@pytest.mark.parametrize("layers", [0, 2])
def test_tokens_against_the_formula(layers):
    """What all tokens of all images have in common is taken away; what tells images and tokens apart is kept."""
    torch.manual_seed(0)
    encoder = build_encoder(16, layers, 2, "BN")
    torch.manual_seed(0)
    bare = build_encoder(16, layers, 2)
    if layers:
        bare.norm = None
    tokens = 100 + torch.randn(3, 7, 16)
    inner = bare(tokens)
    expected = (inner - inner.mean((0, 1))) / inner.std((0, 1), correction=0)
    torch.testing.assert_close(encoder(tokens), expected, rtol=1e-3, atol=1e-3)


def fuse_by_definition(fusion, features, tokens, regions):
    """F + conv(norm(ReLU(conv([LN(F), Y])))) with torch's convolutions and a norm by hand."""
    concatenated = torch.cat([fusion.features_norm(features), reproject(tokens, regions)], dim=1)
    weight = torch.cat([fusion.from_features.weight, fusion.from_tokens.weight[:, :, None, None]], dim=1)
    hidden = F.relu(F.conv2d(concatenated, weight, fusion.from_features.bias))
    deviation = hidden - hidden.mean((0, 2, 3), keepdim=True)
    hidden = deviation / (deviation.square().mean((0, 2, 3), keepdim=True) + fusion.norm.eps).sqrt()
    hidden = hidden * fusion.norm.weight[:, None, None] + fusion.norm.bias[:, None, None]
    return features + F.conv2d(hidden, fusion.out.weight, fusion.out.bias)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_fusion_and_its_gradients_equal_the_definition(memory_format):
    torch.manual_seed(0)
    fusion = BatchNormFusion(channels=5, token_dim=8)
    randomize_zeros(fusion)
    inputs = [torch.rand(shape, requires_grad=True) for shape in ((2, 5, 4, 6), (2, 3, 8), (2, 3, 4, 6))]
    weights, sources = torch.randn(2, 5, 4, 6), [*inputs, *fusion.parameters()]
    actual = fusion(inputs[0].to(memory_format=memory_format), *inputs[1:])
    expected = fuse_by_definition(fusion, *inputs)
    torch.testing.assert_close(actual, expected)
    gradients = torch.autograd.grad((actual * weights).sum(), sources)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), sources)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-5, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(fusion(inputs[0].to(memory_format=memory_format), *inputs[1:]), actual)


@pytest.mark.parametrize("build", [Fusion, BatchNormFusion])
def test_what_is_the_same_everywhere_is_for_the_bias_alone(build):
    """After the ReLU everything is positive; only with BN has the last convolution nothing constant to learn from."""
    torch.manual_seed(0)
    fusion = build(channels=5, token_dim=8)
    features, tokens, regions = torch.randn(2, 5, 8, 8), torch.randn(2, 3, 8), torch.rand(2, 3, 8, 8)
    fusion(features, tokens, regions).sum().backward()  # a gradient that is the same everywhere
    assert (fusion.out.weight.grad.abs().max() < 1e-3) == (build is BatchNormFusion)
    assert fusion.out.bias.grad.tolist() == [2 * 8 * 8] * 5


def test_padding_has_no_say_in_tokens_and_their_statistics():
    sgr, features = make(), toy_features(2, 64, 64, *LEVELS)
    found = []
    for garbage in (0.0, 1e3):
        for f in features.values():
            f[..., f.shape[-2] // 2 :, :] = garbage
        norm = sgr.encoder.norm.norm
        norm.reset_running_stats()
        tokens = sgr(features, torch.tensor([[32, 32], [30, 25]])).tokens
        found.append([tokens, norm.running_mean.clone(), norm.running_var.clone()])
    torch.testing.assert_close(*found)


def test_padding_has_no_say_in_inference():
    sgr, features = make().eval(), toy_features(1, 64, 64, *LEVELS)
    randomize_zeros(sgr)
    randomize_statistics(sgr)
    before = sgr(features, torch.tensor([[32, 32]])).features["res2"][..., :8, :8]
    for f in features.values():
        f[..., f.shape[-2] // 2 :, :] = -1e3
        f[..., :, f.shape[-1] // 2 :] = 1e3
    after = sgr(features, torch.tensor([[32, 32]])).features["res2"][..., :8, :8]
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize("options", [{}, {"num_tokens": 1}, {"encoder_layers": 0}, {"regions": "softmax"}])
def test_every_parameter_gets_a_gradient(options):
    sgr = make(**options)
    randomize_zeros(sgr)
    output = sgr(toy_features(2, 64, 64, *LEVELS), sizes())
    sum(f.square().sum() for f in output.features.values()).backward()
    assert [name for name, p in sgr.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_freeze_keeps_the_statistics():
    sgr = make(freeze=True).train()
    before = {name: buffer.clone() for name, buffer in sgr.named_buffers()}
    sgr(toy_features(2, 64, 64, *LEVELS), sizes())
    assert before and all(torch.equal(buffer, before[name]) for name, buffer in sgr.named_buffers())


def test_a_single_token_of_a_single_image():
    """It is its own mean: nothing would be left of it."""
    sgr, features = make(num_tokens=1), toy_features(1, 64, 64, *LEVELS)
    with pytest.raises(ValueError, match=r"MODEL.SGR.NUM_TOKENS = 1 and one image .* MODEL.SGR.NORM LN"):
        sgr(features, sizes(1))
    assert sgr.eval()(features, sizes(1)).tokens.abs().sum() > 0
    with pytest.raises(ValueError, match=r"MODEL.SGR.NORM .*'GN'"):
        make(norm="GN")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_gives_finite_float32_tokens(dtype):
    sgr, features = make(), toy_features(2, 64, 64, *LEVELS)
    randomize_zeros(sgr)
    exact = sgr(features, sizes())
    with torch.autocast("cpu", dtype=dtype):
        output = sgr(features, sizes())
    assert output.tokens.dtype == torch.float32
    torch.testing.assert_close(output.tokens, exact.tokens, rtol=0.2, atol=0.3)
    assert all(f.isfinite().all() for f in output.features.values())


def test_sync_bn_is_bn_on_a_cpu():
    """Whose processes cannot exchange statistics; so a config for GPUs runs there, too."""
    for norm in ("BN", "SyncBN"):
        cfg = toy_cfg()
        cfg.MODEL.SGR.NORM = norm
        model = build_model(cfg)
        kinds = {type(module) for module in model.sgr.modules() if isinstance(module, _BatchNorm)}
        assert torch.nn.SyncBatchNorm not in kinds and len(kinds) == 1
