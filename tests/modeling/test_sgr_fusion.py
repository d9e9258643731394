"""From tokens back to the features: re-projection and the fusion blocks."""

import pytest
import torch
from torch.nn import functional as F
from toys import randomize_zeros

from sgr_d2.modeling.sgr.fusion import Fusion, build_fusion, reproject, root_mean_square
from sgr_d2.modeling.sgr.pointwise import PointwiseConv2d


def test_reproject_against_loops():
    tokens, regions = torch.rand(2, 6, 3), torch.rand(2, 6, 4, 5)
    pixels = reproject(tokens, regions)
    for y in range(4):
        for x in range(5):
            total = sum(regions[1, k, y, x] * tokens[1, k] for k in range(6))
            torch.testing.assert_close(pixels[1, :, y, x], total / regions[1, :, y, x].sum())


def fuse_by_definition(fusion, features, tokens, regions):
    """F + conv(ReLU(norm(conv([F, Y])))) with torch's convolutions, everything kept for the gradient."""
    concatenated = torch.cat([features, reproject(tokens, regions)], dim=1)
    weight = torch.cat([fusion.from_features.weight, fusion.from_tokens.weight[:, :, None, None]], dim=1)
    hidden = F.relu(fusion.norm(F.conv2d(concatenated, weight, fusion.from_features.bias)))
    return features + F.conv2d(hidden, fusion.out.weight, fusion.out.bias)


@pytest.mark.parametrize("norm", ["LN", "BN"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_relative_fusion_multiplies_with_the_size_of_the_features(norm, memory_format):
    torch.manual_seed(0)
    plain, relative = (build_fusion(5, 8, "normal", norm, relative=relative) for relative in (False, True))
    relative.load_state_dict(plain.state_dict())
    shapes = ((2, 5, 4, 6), (2, 3, 8), (2, 3, 4, 6))
    features, tokens, regions = (torch.rand(shape, requires_grad=True) for shape in shapes)
    valid = torch.ones(2, 1, 4, 6, dtype=torch.bool)
    valid[1, :, 3:], valid[1, :, :, 2:] = False, False
    inputs = (features.to(memory_format=memory_format), tokens, regions, valid)
    sizes = torch.stack([features[0].square().mean().sqrt(), features[1, :, :3, :2].square().mean().sqrt()]).detach()
    torch.testing.assert_close(root_mean_square(features, valid).flatten(), sizes)
    torch.testing.assert_close(root_mean_square(features).flatten(), features.square().mean((1, 2, 3)).sqrt())
    expected = features + sizes[:, None, None, None] * (plain(*inputs) - inputs[0])
    actual = relative(*inputs)
    torch.testing.assert_close(actual, expected)
    gradients, wanted = (
        torch.autograd.grad(result.square().sum(), [features, tokens, regions, *fusion.parameters()])
        for result, fusion in ((actual, relative), (expected, plain))
    )
    torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=1e-4)


def test_relative_fusion_of_empty_images_is_finite():
    fusion = build_fusion(5, 8, "normal", "LN", relative=True)
    nothing, valid = torch.zeros(1, 5, 4, 6, requires_grad=True), torch.zeros(1, 1, 4, 6, dtype=torch.bool)
    output = fusion(nothing, torch.rand(1, 3, 8), torch.zeros(1, 3, 4, 6), valid)
    output.sum().backward()
    assert not output.any() and nothing.grad.isfinite().all()


def test_features_times_ten_are_changed_ten_times_as_much():
    """Of a BN fusion: LN(F) takes the factor away, relative brings it back."""
    torch.manual_seed(0)
    fusion = build_fusion(5, 8, "normal", "BN", relative=True).eval()
    features, tokens, regions = torch.randn(2, 5, 4, 6), torch.rand(2, 3, 8), torch.rand(2, 3, 4, 6)
    once, tenfold = (fusion(f, tokens, regions) for f in (features, 10 * features))
    torch.testing.assert_close(tenfold, 10 * once, rtol=1e-3, atol=1e-3)


def fusion_and_inputs(dtype=torch.float32, relative=False):
    torch.manual_seed(0)
    fusion = Fusion(channels=5, token_dim=8, relative=relative).to(dtype)
    randomize_zeros(fusion)
    shapes = ((2, 5, 4, 6), (2, 3, 8), (2, 3, 4, 6))
    return fusion, [torch.rand(shape, dtype=dtype, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_fusion_and_its_gradients_equal_the_definition(memory_format):
    fusion, (features, tokens, regions) = fusion_and_inputs()
    weights = torch.randn(2, 5, 4, 6)
    sources = [features, tokens, regions, *fusion.parameters()]
    actual = fusion(features.to(memory_format=memory_format), tokens, regions)
    expected = fuse_by_definition(fusion, features, tokens, regions)
    torch.testing.assert_close(actual, expected)
    gradients = torch.autograd.grad((actual * weights).sum(), sources)
    torch.testing.assert_close(gradients, torch.autograd.grad((expected * weights).sum(), sources))
    with torch.no_grad():
        assert torch.equal(fusion(features.to(memory_format=memory_format), tokens, regions), actual)


@pytest.mark.parametrize("relative", [False, True])
def test_fusion_keeps_one_map_of_token_channels(relative):
    fusion, inputs = fusion_and_inputs(relative=relative)
    inputs[0] = inputs[0].detach().to(memory_format=torch.channels_last).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        fusion(*inputs)
    own = {t.untyped_storage().data_ptr() for t in [*inputs, *fusion.parameters()]}
    sizes = {t.untyped_storage().data_ptr(): t.numel() for t in kept if t.numel()}  # torch may keep empty ones
    made = {pointer: size for pointer, size in sizes.items() if pointer not in own}
    wanted = [2 * 3 * 8, 2 * 8 * 4 * 6]  # the tokens and the first convolution
    assert sorted(made.values()) == [2] * relative + wanted  # and two sizes of images


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pointwise_convolution_is_torchs_own(memory_format):
    torch.manual_seed(0)
    ours, theirs = PointwiseConv2d(5, 3), torch.nn.Conv2d(5, 3, 1)
    theirs.load_state_dict(ours.state_dict())
    maps = torch.randn(2, 5, 4, 7).to(memory_format=memory_format).requires_grad_()
    torch.testing.assert_close(ours(maps), theirs(maps))
    results = [torch.autograd.grad(conv(maps).square().sum(), [maps, *conv.parameters()]) for conv in (ours, theirs)]
    torch.testing.assert_close(*results)
    assert ours(maps).is_contiguous(memory_format=memory_format)
