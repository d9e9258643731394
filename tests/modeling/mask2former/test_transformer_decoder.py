import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import randomize_zeros

from sgr_d2.modeling.mask2former.attention import Attention
from sgr_d2.modeling.mask2former.structures import PixelFeatures
from sgr_d2.modeling.mask2former.transformer_decoder import MultiScaleMaskedTransformerDecoder, attention_mask
from sgr_d2.modeling.mask2former.transformer_layers import TokenAttentionLayer


def decoder(**changes) -> MultiScaleMaskedTransformerDecoder:
    sizes = {"in_channels": 8, "hidden_dim": 16, "num_queries": 5, "num_heads": 4, "dim_feedforward": 12}
    return MultiScaleMaskedTransformerDecoder(**{**sizes, "num_classes": 3, "num_layers": 4, "mask_dim": 6, **changes})


def features(channels: int = 8, batch: int = 2) -> PixelFeatures:
    """Odd sizes, no level a multiple of another."""
    levels = [torch.randn(batch, channels, h, w) for h, w in ((2, 3), (5, 7), (9, 11))]
    return PixelFeatures(torch.randn(batch, 6, 17, 22), levels)


@pytest.mark.parametrize("masked", [True, False])
def test_attention_is_that_of_torch(masked):
    ours, theirs = Attention(dim=12, num_heads=3), nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    query, key, value = torch.randn(2, 4, 12), torch.randn(2, 7, 12), torch.randn(2, 7, 12)
    allowed = torch.rand(2, 4, 7) > 0.5
    allowed[..., 0] = True
    blocked = (~allowed).repeat_interleave(3, 0) if masked else None
    expected, _ = theirs(query, key, value, attn_mask=blocked)
    torch.testing.assert_close(ours(query, key, value, allowed if masked else None), expected, rtol=0, atol=1e-6)


def test_dropout_of_the_attention_is_for_training_alone():
    dropping, plain = Attention(dim=16, num_heads=4, dropout=0.5), Attention(dim=16, num_heads=4)
    plain.load_state_dict(dropping.state_dict())
    x = torch.randn(2, 9, 16)
    assert not torch.allclose(dropping(x, x, x), dropping(x, x, x))
    torch.testing.assert_close(dropping.eval()(x, x, x), plain(x, x, x))


def test_attention_mask_opens_empty_rows():
    pixels = torch.tensor([[[1.0, -1.0, 0.0]]])
    embeddings = torch.tensor([[[1.0], [-1.0], [0.0], [torch.nan]]])
    expected = [[True, False, True], [False, True, True], [True] * 3, [True] * 3]
    assert attention_mask(embeddings, pixels)[0].tolist() == expected
    assert attention_mask(torch.tensor([[[-1.0]]]), pixels.abs() + 1)[0].tolist() == [[True] * 3]


def test_attention_masks_are_decided_in_float32_under_autocast():
    """1 - 1.001 is negative, and 0 in half precision."""
    embeddings, pixels = torch.tensor([[[1.0, -1.0]]]), torch.tensor([[[1.0, 1.0], [1.001, 0.5]]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attention_mask(embeddings, pixels).tolist() == [[[False, True]]]


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("pre_norm", [True, False])
@pytest.mark.parametrize("enforce", [True, False])
def test_shapes_and_every_parameter_has_a_gradient(layers, pre_norm, enforce):
    model = decoder(num_layers=layers, pre_norm=pre_norm, enforce_input_project=enforce, in_channels=16)
    prediction = model(features(16))
    assert prediction.class_logits.shape == (layers + 1, 2, 5, 4)
    assert prediction.mask_embeddings.shape == (layers + 1, 2, 5, 6)
    assert prediction.masks().shape == (2, 5, 17, 22)
    assert len(list(model.input_proj.parameters())) == (6 if enforce else 0)
    (prediction.class_logits.square().sum() + prediction.masks().square().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_masks_are_the_product_and_last_is_final():
    prediction = decoder()(features())
    expected = torch.einsum("bqm,bmhw->bqhw", prediction.mask_embeddings[1], prediction.mask_features)
    torch.testing.assert_close(prediction.masks(1), expected, rtol=0, atol=1e-5)
    last = prediction.last()
    assert torch.equal(last.class_logits[0], prediction.class_logits[-1])
    torch.testing.assert_close(last.of_image(1).masks()[0], prediction.masks()[1])


def test_queries_see_only_their_mask():
    """What lies outside a query's first mask does not change what one layer makes of the query."""
    torch.manual_seed(0)  # with some weights the mask is everywhere or nowhere
    model = decoder(num_layers=1, num_queries=1).eval()
    given = features(batch=1)
    first = model(given).masks(0)
    outside = F.interpolate(first, size=given.levels[0].shape[-2:], mode="bilinear", align_corners=False) < 0
    assert outside.any() and not outside.all()
    changed = given.levels[0] + 5.0 * outside
    other = model(given._replace(levels=[changed, *given.levels[1:]]))
    torch.testing.assert_close(other.class_logits, model(given).class_logits)


def test_a_batch_equals_its_images():
    model, given = decoder().eval(), features()
    both = model(given)
    for image in range(2):
        part = slice(image, image + 1)
        single = model(PixelFeatures(given.mask_features[part], [level[part] for level in given.levels]))
        torch.testing.assert_close(both.of_image(image).class_logits, single.class_logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(both.of_image(image).masks(), single.masks(), rtol=0, atol=1e-5)


def test_channels_last_gives_the_same():
    model, given = decoder().eval(), features()
    other = PixelFeatures(*[given.mask_features.contiguous(memory_format=torch.channels_last)], given.levels)
    other = other._replace(levels=[level.contiguous(memory_format=torch.channels_last) for level in given.levels])
    torch.testing.assert_close(model(other).class_logits, model(given).class_logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    torch.manual_seed(0)
    model, given = decoder(), features()
    with torch.autocast("cpu", dtype=dtype):
        prediction = model(given)
        masks = prediction.masks()
    assert masks.dtype == torch.float32
    assert prediction.class_logits.isfinite().all() and masks.isfinite().all()
    # before the first layer no attention mask has been decided yet
    expected = model(given).class_logits[0]
    torch.testing.assert_close(prediction.class_logits[0].float(), expected, rtol=0.05, atol=0.05)


def test_fully_masked_and_not_a_number():
    model, given = decoder(), features()
    empty = model(given._replace(mask_features=torch.zeros_like(given.mask_features)))
    assert empty.class_logits.isfinite().all()
    spoiled = model(given._replace(mask_features=torch.full_like(given.mask_features, torch.nan)))
    assert spoiled.class_logits.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 3}, r"NHEADS = 3 does not divide the 16"),
        ({"hidden_dim": 18, "num_heads": 2}, r"HIDDEN_DIM = 18"),
        ({"num_queries": 0}, r"NUM_OBJECT_QUERIES = 0"),
        ({"num_layers": 0}, r"DEC_LAYERS = 1"),
    ],
)
def test_sizes_that_cannot_work(changes, message):
    with pytest.raises(ValueError, match=message):
        decoder(**changes)


def normed(x, norm):
    centred = x - x.mean(-1, keepdim=True)
    return centred * (centred.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * norm.weight + norm.bias


@pytest.mark.parametrize("pre_norm", [True, False])
def test_queries_attend_to_tokens_as_written_out(pre_norm):
    torch.manual_seed(0)
    layer = TokenAttentionLayer(token_dim=6, dim=16, num_heads=4, dropout=0.0, pre_norm=pre_norm)
    x, position, tokens = torch.randn(2, 5, 16), torch.randn(5, 16), torch.randn(2, 7, 6)
    assert torch.equal(layer(x, position, tokens), x)  # as it starts
    randomize_zeros(layer)
    torch_attention = nn.MultiheadAttention(16, 4, batch_first=True)
    torch_attention.load_state_dict(layer.multihead_attn.state_dict())
    keys = normed(tokens @ layer.project.weight.T + layer.project.bias, layer.token_norm)
    query = (normed(x, layer.norm) if pre_norm else x) + position
    expected = x + torch_attention(query, keys, keys)[0]
    torch.testing.assert_close(layer(x, position, tokens), expected, rtol=0, atol=1e-6)
    # the order of the tokens does not matter
    torch.testing.assert_close(layer(x, position, tokens.flip(1)), expected, rtol=0, atol=1e-6)


def test_each_layer_attends_to_the_tokens_once_with_the_positions_of_the_queries():
    model, tokens, seen = decoder(num_layers=3, token_dim=6), torch.randn(2, 7, 6), []
    for layer in model.transformer_token_attention_layers:
        layer.register_forward_hook(lambda layer, given, _: seen.append((layer, *given)))
    model(features(), tokens)
    assert [layer for layer, *_ in seen] == list(model.transformer_token_attention_layers)
    assert torch.equal(seen[0][1], model.query_feat.weight.expand(2, -1, -1))
    assert all(torch.equal(position, model.query_embed.weight) for _, _, position, _ in seen)
    assert all(read is tokens for *_, read in seen)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_decoder_that_reads_tokens(layers):
    torch.manual_seed(0)
    plain = decoder(num_layers=layers)
    after = torch.rand(3)
    torch.manual_seed(0)
    model = decoder(num_layers=layers, token_dim=6)
    assert torch.equal(torch.rand(3), after)  # what is drawn later does not depend on it
    given, tokens = features(), torch.randn(2, 7, 6)
    for a, b in zip(model(given, tokens), plain(given), strict=True):
        assert torch.equal(a, b)
    randomize_zeros(model)
    first, other = model(given, tokens), model(given, tokens + 1)
    assert all(not torch.allclose(a, b) for a, b in zip(first.class_logits, other.class_logits, strict=True))
    (first.class_logits.square().sum() + first.masks().square().sum()).backward()
    assert all(p.grad is not None and p.grad.any() for n, p in model.named_parameters() if "token_attention" in n)
    with pytest.raises(ValueError, match=r"MODEL.SGR.QUERY_ATTENTION.*no 'sgr_tokens'"):
        model(given)
