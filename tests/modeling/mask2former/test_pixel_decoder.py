import json
from pathlib import Path

import pytest
import torch
from detectron2.layers import ShapeSpec
from official_keys import official_state
from torch.nn import functional as F
from toys import STRIDES, randomize_zeros, toy_cfg, toy_features, toy_shape

from sgr_d2.modeling.mask2former.pixel_decoder import PIXEL_DECODER_REGISTRY, MSDeformAttnPixelDecoder
from sgr_d2.modeling.mask2former.sample_grid import sample_grid
from sgr_d2.modeling.mask2former.sampling import sample_by_grid
from sgr_d2.modeling.mask2former.sine import sine_position

FIXTURES = Path(__file__).parents[4] / "shared" / "fixtures"
PREFIX = "sem_seg_head.pixel_decoder."
ODD = {"res2": (33, 47), "res3": (17, 23), "res4": (9, 11), "res5": (5, 5)}


def make(encoder_features=("res3", "res4", "res5"), **options) -> MSDeformAttnPixelDecoder:
    torch.manual_seed(0)
    sizes = {"conv_dim": 32, "mask_dim": 12, "num_layers": 2, "num_heads": 4, "dim_feedforward": 24}
    decoder = MSDeformAttnPixelDecoder(
        options.pop("input_shape", toy_shape()), encoder_features=list(encoder_features), **{**sizes, **options}
    )
    randomize_zeros(decoder)
    return decoder


def odd_features(batch):
    return {name: torch.randn(batch, spec.channels, *ODD[name]) for name, spec in toy_shape().items()}


def slow_layer(layer, tokens, position, grid):
    """A layer of the encoder as the paper has it, with torch's own softmax and grid_sample."""
    attention = layer.self_attn
    query = tokens + position
    offsets = attention.sampling_offsets(query).unflatten(2, (-1, 2))
    value, logits = attention.value_proj(tokens), attention.attention_weights(query)
    read = sample_by_grid(value, offsets[..., 0], offsets[..., 1], logits, grid)
    tokens = layer.norm1(tokens + attention.output_proj(read))
    return layer.norm2(tokens + layer.linear2(F.relu(layer.linear1(tokens))))


def slow_decoder(decoder, features):
    """The pixel decoder of FPN level res2 and encoder levels res5, res4, res3, written out."""
    names, transformer = ["res5", "res4", "res3"], decoder.transformer
    maps = [project(features[name]) for project, name in zip(decoder.input_proj, names, strict=True)]
    shapes = [tuple(m.shape[-2:]) for m in maps]
    tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
    embeds = zip(shapes, transformer.level_embed, strict=True)
    codes = [sine_position(*shape, maps[0].shape[1])[0].flatten(1).T + embed for shape, embed in embeds]
    grid = sample_grid(shapes, num_heads=transformer.num_heads, num_points=transformer.num_points)
    for layer in transformer.encoder["layers"]:
        tokens = slow_layer(layer, tokens, torch.cat(codes), grid)
    parts = tokens.transpose(1, 2).split([h * w for h, w in shapes], dim=2)
    levels = [part.reshape(len(part), -1, *shape) for part, shape in zip(parts, shapes, strict=True)]
    size = features["res2"].shape[-2:]
    up = F.interpolate(levels[-1], size=size, mode="bilinear", align_corners=False)
    return levels, decoder.mask_features(decoder.layer_1(decoder.adapter_1(features["res2"]) + up))


@pytest.mark.parametrize("batch", [1, 3])
def test_odd_sizes_against_the_written_out_decoder(batch):
    decoder, features = make(), odd_features(batch)
    output = decoder(features)
    levels, masks = slow_decoder(decoder, features)
    assert [tuple(level.shape) for level in output.levels] == [(batch, 32, *ODD[n]) for n in ("res5", "res4", "res3")]
    assert output.mask_features.shape == (batch, 12, 33, 47)
    torch.testing.assert_close(output.mask_features, masks, rtol=1e-4, atol=1e-5)
    for level, expected in zip(output.levels, levels, strict=True):
        torch.testing.assert_close(level, expected, rtol=1e-4, atol=1e-5)


def test_every_parameter_gets_the_gradient_of_the_written_out_decoder():
    decoder, features = make(), odd_features(2)
    parameters = dict(decoder.named_parameters())
    output = decoder(features)
    loss = output.mask_features.square().mean() + sum(level.square().mean() for level in output.levels)
    ours = torch.autograd.grad(loss, parameters.values())
    levels, masks = slow_decoder(decoder, features)
    loss = masks.square().mean() + sum(level.square().mean() for level in levels)
    for name, grad, expected in zip(parameters, ours, torch.autograd.grad(loss, parameters.values()), strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")
        # With one channel a group, group norm takes the bias of the convolution before it away.
        assert grad.any() or (name.startswith("input_proj") and name.endswith(".0.bias")), name


def test_a_batch_gives_what_its_images_give():
    decoder, features = make(), odd_features(3)
    together = decoder(features)
    alone = decoder({name: f[1:2] for name, f in features.items()})
    torch.testing.assert_close(together.mask_features[1:2], alone.mask_features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.levels[0][1:2], alone.levels[0], rtol=1e-4, atol=1e-5)


def test_channels_last_features_give_the_same_numbers():
    decoder, features = make(), toy_features(2, 64, 96)
    expected = decoder(features)
    output = decoder({name: f.contiguous(memory_format=torch.channels_last) for name, f in features.items()})
    torch.testing.assert_close(output.mask_features, expected.mask_features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_decodes_in_float32_under_autocast(dtype):
    decoder, features = make(), {name: f.to(dtype) for name, f in toy_features(2, 64, 96).items()}
    expected = decoder({name: f.float() for name, f in features.items()})
    with torch.autocast("cpu", dtype=dtype):
        output = decoder(features)
        loss = output.mask_features.square().mean()
    loss.backward()
    assert torch.equal(output.mask_features, expected.mask_features)
    assert all(torch.equal(level, other) for level, other in zip(output.levels, expected.levels, strict=True))
    assert all(p.grad.isfinite().all() for p in decoder.parameters() if p.grad is not None)


def test_features_of_one_pixel():
    features = {name: torch.randn(2, spec.channels, 1, 1) for name, spec in toy_shape().items()}
    output = make()(features)
    assert output.mask_features.shape == (2, 12, 1, 1)
    assert output.mask_features.isfinite().all()


def test_dropout_acts_in_training_only():
    decoder, features = make(dropout=0.5), toy_features(1, 64, 64)
    assert not torch.equal(decoder(features).levels[0], decoder(features).levels[0])
    decoder.eval()
    assert torch.equal(decoder(features).levels[0], decoder(features).levels[0])


@pytest.mark.parametrize(
    ("encoder_features", "common_stride", "adapters", "sizes"),
    [
        (["res4", "res5"], 4, {1: 8, 2: 12}, [2, 4, 8]),  # channels of res2 and res3: counted from the finest
        (["res5", "res3", "res4"], 4, {1: 8}, [2, 4, 8]),
        (["res2", "res3", "res4", "res5"], 4, {}, [2, 4, 8]),
        (["res4", "res5"], 8, {1: 12}, [2, 4, 8]),
        (["res3", "res4", "res5"], 8, {}, [2, 4, 8]),
    ],
)
def test_fpn_levels_fill_up_to_the_common_stride(encoder_features, common_stride, adapters, sizes):
    decoder = make(encoder_features, common_stride=common_stride)
    names = {name for name, _ in decoder.named_children() if name.startswith(("adapter", "layer"))}
    assert names == {f"{part}_{number}" for part in ("adapter", "layer") for number in adapters}
    assert {number: getattr(decoder, f"adapter_{number}").in_channels for number in adapters} == adapters
    output = decoder(toy_features(1, 64, 64))
    assert [level.shape[-1] for level in output.levels] == sizes
    assert output.mask_features.shape[-1] == 64 // common_stride


def test_built_from_the_config():
    cfg = toy_cfg(sgr=False)
    cfg.MODEL.SEM_SEG_HEAD.merge_from_list(["NORM", "GN", "MASK_DIM", 20, "TRANSFORMER_ENC_LAYERS", 1])
    decoder = PIXEL_DECODER_REGISTRY.get("MSDeformAttnPixelDecoder")(cfg, toy_shape())
    assert len(decoder.transformer.encoder["layers"]) == 1
    assert decoder(toy_features(1, 64, 64)).mask_features.shape == (1, 20, 16, 16)
    cfg.MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES = ["res3", "p5"]
    with pytest.raises(ValueError, match=r"DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES.*'p5'.*Choose from.*res2"):
        MSDeformAttnPixelDecoder(cfg, toy_shape())
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["p3"]
    with pytest.raises(ValueError, match=r"SEM_SEG_HEAD.IN_FEATURES.*'p3'.*res2"):
        MSDeformAttnPixelDecoder(cfg, toy_shape())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conv_dim": 48}, r"CONVS_DIM = 48 must be a positive multiple of 32"),
        ({"num_heads": 5}, r"NHEADS = 5"),
        ({"num_layers": 0}, r"TRANSFORMER_ENC_LAYERS = 0"),
        ({"encoder_features": []}, r"an empty list"),
        ({"common_stride": 16}, r"COMMON_STRIDE = 16 must be the encoder's finest stride, 8"),
        ({"common_stride": 2}, r"COMMON_STRIDE = 2 .* need features of stride \[2\]"),
        ({"encoder_features": ["res5"], "input_shape": toy_shape("res2", "res3", "res5")}, r"of stride \[16\]"),
    ],
)
def test_what_does_not_fit_names_its_key(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize(("model", "channels"), [("r50", (256, 512, 1024, 2048)), ("swin_tiny", (96, 192, 384, 768))])
def test_names_and_shapes_are_those_of_published_models(model, channels):
    shape = {n: ShapeSpec(channels=c, stride=s) for (n, s), c in zip(STRIDES.items(), channels, strict=True)}
    ours = MSDeformAttnPixelDecoder(shape, encoder_features=["res3", "res4", "res5"]).state_dict()
    official = official_state(model)
    expected = {k.removeprefix(PREFIX): v.shape for k, v in official.items() if k.startswith(PREFIX)}
    assert {name: t.shape for name, t in ours.items()} == expected


def test_sine_code_against_the_formula():
    code = sine_position(3, 5, 8)
    assert code.shape == (1, 8, 3, 5)
    row, column = torch.tensor(2 * torch.pi) * 2 / 3, torch.tensor(2 * torch.pi) * 4 / 5
    expected = [row.sin(), row.cos(), (row / 100).sin(), (row / 100).cos()]
    expected += [column.sin(), column.cos(), (column / 100).sin(), (column / 100).cos()]
    torch.testing.assert_close(code[0, :, 1, 3], torch.stack(expected), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"multiple of 4, not 6"):
        sine_position(3, 5, 6)


def fixture(name):
    if not (FIXTURES / f"{name}.pt").is_file():
        pytest.skip(f"no {name}.pt in {FIXTURES}")
    numbers = torch.load(FIXTURES / f"{name}.pt", weights_only=True)
    options = json.loads((FIXTURES / f"{name}.json").read_text())
    columns = zip(options["IN_FEATURES"], options["channels"], options["strides"], strict=True)
    decoder = MSDeformAttnPixelDecoder(
        {name: ShapeSpec(channels=channels, stride=stride) for name, channels, stride in columns},
        encoder_features=options["DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES"],
        conv_dim=options["CONVS_DIM"],
        mask_dim=options["MASK_DIM"],
        norm=options["NORM"],
        common_stride=options["COMMON_STRIDE"],
        num_layers=options["TRANSFORMER_ENC_LAYERS"],
        num_heads=options["NHEADS"],
        num_points=options["enc_n_points"],
        dim_feedforward=options["enc_dim_feedforward"],
    )
    state = {k.removeprefix(PREFIX): v for k, v in numbers["state_dict"].items() if k.startswith(PREFIX)}
    decoder.load_state_dict(state)
    return decoder, numbers


@pytest.mark.data
@pytest.mark.parametrize("name", ["fixture_m2f", "variant_m2f"])
def test_numbers_of_the_official_code(name):
    decoder, numbers = fixture(name)
    layers = []
    for layer in decoder.transformer.encoder["layers"]:
        layer.register_forward_hook(lambda module, inputs, output: layers.append((inputs, output)))
    output = decoder(numbers["features"])
    expected, debug = numbers["pixel_decoder"], numbers["pixel_decoder_debug"]
    close = {"rtol": 0, "atol": 3e-5}
    torch.testing.assert_close(output.mask_features, expected["mask_features"], **close)
    torch.testing.assert_close(output.levels[0], expected["transformer_encoder_features"], **close)
    for level, official in zip(output.levels, expected["multi_scale_features"], strict=True):
        torch.testing.assert_close(level, official, **close)
    tokens = torch.cat([source.flatten(2).transpose(1, 2) for source in debug["srcs"]], dim=1)
    torch.testing.assert_close(layers[0][0][0], tokens, **close)
    torch.testing.assert_close(layers[0][0][1], debug["pos_flatten"], **close)
    for (_, ours), official in zip(layers, debug["layer_outputs"], strict=True):
        torch.testing.assert_close(ours[:1], official, **close)


@pytest.mark.data
def test_samples_of_the_official_code():
    decoder, numbers = fixture("fixture_m2f")
    debug = numbers["pixel_decoder_debug"]
    attention, official = decoder.transformer.encoder["layers"][0].self_attn, debug["msda_layer0"]
    seen = []
    attention.output_proj.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    attention.value_proj.register_forward_hook(lambda module, inputs, output: seen.append(output))
    decoder(numbers["features"])
    value, sampled = seen
    torch.testing.assert_close(value[:1], official["value"].flatten(2), rtol=0, atol=3e-5)
    torch.testing.assert_close(sampled[:1], official["output"], rtol=0, atol=3e-5)


@pytest.mark.slow
def test_exported_program_gives_the_same_numbers():
    decoder, features = make().eval(), toy_features(1, 64, 96)
    program = torch.export.export(decoder, (features,))
    torch.testing.assert_close(
        program.module()(features).mask_features, decoder(features).mask_features, rtol=1e-4, atol=1e-5
    )
