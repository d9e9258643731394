"""SGR with MODEL.SGR.NORM LN against its formula, every step with torch's own functions; precision under autocast."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import randomize_zeros, toy_features, toy_shape

from sgr_d2.modeling.sgr import SGR
from sgr_d2.modeling.sgr.fusion import Fusion, reproject
from sgr_d2.modeling.sgr.position import add_sine_position
from sgr_d2.modeling.sgr.sgr import project

LEVELS = ("res2", "res3", "res5")


def layer_norm(x, norm):
    """LayerNorm over the last dimension."""
    deviation = x - x.mean(-1, keepdim=True)
    return deviation / (deviation.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def channel_norm(x, norm):
    """LayerNorm over the channels of a map."""
    return layer_norm(x.permute(0, 2, 3, 1), norm).permute(0, 3, 1, 2)


def encode(encoder, x, heads):
    """The pre-norm transformer encoder, with ReLU and a norm at the end."""
    for layer in encoder.layers:
        own, dim = layer.self_attn, x.shape[-1]
        q, k, v = F.linear(layer_norm(x, layer.norm1), own.in_proj_weight, own.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        attended = (q @ k.transpose(-1, -2) / math.sqrt(dim // heads)).softmax(-1) @ v
        x = x + F.linear(attended.transpose(1, 2).flatten(2), own.out_proj.weight, own.out_proj.bias)
        hidden = F.linear(layer_norm(x, layer.norm2), layer.linear1.weight, layer.linear1.bias).relu()
        x = x + F.linear(hidden, layer.linear2.weight, layer.linear2.bias)
    return layer_norm(x, encoder.norm)


def sine_code(height, width, channels):
    """Channel by channel: sines, then cosines, of y in the first half of the channels, of x in the second."""
    code = torch.zeros(channels, height, width, dtype=torch.float64)
    for axis, length in enumerate((height, width)):
        for number in range(channels // 4):
            for cell in range(length):
                angle = 2 * math.pi * (cell + 0.5) / length * 10000 ** (-2 * number / (channels // 2))
                for part, value in enumerate((math.sin(angle), math.cos(angle))):
                    code[axis * channels // 2 + part * channels // 4 + number].select(axis, cell).fill_(value)
    return code.float()


def test_the_position_code():
    code = add_sine_position(torch.zeros(1, 16, 5, 7), torch.tensor([[5.0, 7.0]]))
    torch.testing.assert_close(code[0], sine_code(5, 7, 16), rtol=0, atol=1e-6)


def region_layer(pixels, layer):
    """A 3 x 3 convolution of every channel apart, then one across channels, a norm and ReLU."""
    depthwise, pointwise, norm, _ = layer
    padded = F.pad(pixels, (1, 1, 1, 1))
    height, width = pixels.shape[-2:]
    taps = [(y, x) for y in range(3) for x in range(3)]
    seen = sum(padded[..., y : y + height, x : x + width] * depthwise.weight[:, 0, y, x, None, None] for y, x in taps)
    mixed = torch.einsum("bchw,dc->bdhw", seen, pointwise.weight[..., 0, 0]) + pointwise.bias[:, None, None]
    return channel_norm(mixed, norm).relu()


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(
    ("layers", "region_layers", "kind", "places", "position"),
    [
        (0, 0, "sigmoid", 0, False),
        (2, 1, "sigmoid", 0, True),
        (1, 2, "sigmoid", 5, False),
        (2, 1, "softmax", 0, False),
    ],
)
def test_the_whole_module_on_images_without_padding(layers, region_layers, kind, places, position, relative):
    torch.manual_seed(0)
    sgr = SGR(
        toy_shape(*LEVELS),
        num_tokens=7,
        token_dim=16,
        num_heads=2,
        encoder_layers=layers,
        regions=kind,
        region_layers=region_layers,
        fusion_relative=relative,
        norm="LN",
        num_places=places,
        fusion_position=position,
    )
    randomize_zeros(sgr)
    features = toy_features(2, 64, 96, *LEVELS)
    pixels = sine_code(16, 24, 16)
    for name in LEVELS:
        conv, norm = sgr.reduce[name]
        level = channel_norm(F.conv2d(features[name], conv.weight, conv.bias), norm)
        pixels = pixels + F.interpolate(level, size=(16, 24), mode="bilinear", align_corners=False)
    seen = pixels
    for layer in sgr.region_predictor.layers:
        seen = region_layer(seen, layer)
    logits = F.conv2d(seen, sgr.region_predictor.weight, sgr.region_predictor.bias)
    if kind == "softmax":
        logits = torch.logit(logits.exp() / logits.exp().sum(1, keepdim=True), eps=1e-6)
    regions = logits.sigmoid()
    if places:  # tokens like the others, of which the output tells nothing
        discs = sgr.places(pixels, None, torch.tensor([[16.0, 24.0]] * 2)).sigmoid()
    pooled = project(pixels, torch.cat([regions, discs], 1) if places else regions)
    tokens = F.linear(pooled, sgr.value.weight, sgr.value.bias)
    tokens = encode(sgr.encoder, tokens, 2) if layers else tokens
    tokens, of_places = tokens[:, :7], tokens[:, 7:]
    output = sgr(features, torch.tensor([[64, 96]] * 2))
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(output.region_logits, logits, **close)
    torch.testing.assert_close(output.tokens, tokens, **close)
    for name, fusion in sgr.fusion.items():
        own = F.adaptive_avg_pool2d(regions, features[name].shape[-2:])
        inner = reproject(F.linear(tokens, fusion.from_tokens.weight), own)
        inner = inner + F.conv2d(features[name], fusion.from_features.weight, fusion.from_features.bias)
        if position:
            code = sine_code(*features[name].shape[-2:], 16)[None]
            inner = inner + F.conv2d(code, fusion.from_position.weight, fusion.from_position.bias)
        if places:
            own = F.adaptive_avg_pool2d(discs, features[name].shape[-2:])
            inner = inner + reproject(F.linear(of_places, fusion.from_places.weight), own)
        hidden = channel_norm(inner, fusion.norm).relu()
        correction = F.conv2d(hidden, fusion.out.weight, fusion.out.bias)
        size = features[name].square().mean((1, 2, 3), keepdim=True).sqrt() if relative else 1
        expected = features[name] + size * correction
        torch.testing.assert_close(output.features[name], expected, **close)


def test_pooling_is_in_float32_under_autocast():
    """In 8 bits of mantissa the mean over many pixels would lose what tells the pixels apart."""
    torch.manual_seed(0)
    sgr = SGR(toy_shape("res2"), num_tokens=7, token_dim=16, num_heads=2, encoder_layers=0, norm="LN")
    sgr.value = nn.Identity()
    pixels = []
    sgr.region_predictor.register_forward_pre_hook(lambda _, args: pixels.append(args[0].float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = sgr(toy_features(1, 64, 64, "res2"), torch.tensor([[64, 64]]))
    expected = project(pixels[0], output.region_logits.sigmoid())
    torch.testing.assert_close(output.tokens, expected, rtol=1e-5, atol=1e-6)


def test_reprojection_is_in_float32_under_autocast():
    torch.manual_seed(0)
    fusion, hidden = Fusion(channels=5, token_dim=8), []
    nn.init.zeros_(fusion.from_features.weight), nn.init.zeros_(fusion.from_features.bias)
    fusion.norm.register_forward_pre_hook(lambda _, args: hidden.append(args[0].float()))
    tokens, regions = torch.randn(1, 7, 8), torch.rand(1, 7, 4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        mixed = fusion.from_tokens(tokens).float()
        fusion(torch.randn(1, 5, 4, 6), tokens, regions)
    torch.testing.assert_close(hidden[0], reproject(mixed, regions), rtol=1e-5, atol=1e-6)


def test_the_layers_of_the_encoder_start_apart():
    layers = SGR(toy_shape("res2"), num_tokens=4, token_dim=16, num_heads=2, encoder_layers=3).encoder.layers
    for name, weight in layers[0].named_parameters():
        if weight.ndim > 1:
            others = [dict(layer.named_parameters())[name] for layer in layers[1:]]
            assert not any(torch.equal(weight, other) for other in others), name
            assert all(0.5 < (other.std() / weight.std()) < 2 for other in others), name
