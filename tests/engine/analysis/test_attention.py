import pytest
import torch
from torch import nn

from sgr_d2.engine.analysis.attention import record_attention


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(8), enable_nested_tensor=False).eval()


def by_hand(layer: nn.TransformerEncoderLayer, x: torch.Tensor) -> torch.Tensor:
    """Softmax of the scaled products of queries and keys, mean over the heads: (B, K, K)."""
    attention = layer.self_attn
    x = layer.norm1(x)
    query, key, _ = nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    heads, width = attention.num_heads, x.shape[-1] // attention.num_heads
    query, key = (t.unflatten(-1, (heads, width)).transpose(1, 2) for t in (query, key))
    return (query @ key.transpose(-1, -2) / width**0.5).softmax(-1).mean(1)


def test_weights_are_those_of_the_formula_layer_by_layer(encoder):
    x = torch.randn(1, 5, 8)
    with torch.no_grad(), record_attention(encoder) as record:
        encoder(x)
        weights = record.take()
        first = by_hand(encoder.layers[0], x)
        second = by_hand(encoder.layers[1], encoder.layers[0](x))
    assert weights.shape == (2, 5, 5)
    assert weights[0] == pytest.approx(first[0].numpy(), abs=1e-5)
    assert weights[1] == pytest.approx(second[0].numpy(), abs=1e-5)
    assert weights.sum(-1) == pytest.approx(1, abs=1e-5)


def test_the_model_is_left_as_it_was(encoder):
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        before = encoder(x)
        with record_attention(encoder) as record:
            during = encoder(x)
            encoder(x[:1])
            assert record.take().shape == (2, 5, 5)  # mean over the batch, and over calls
            assert record.take() is None
        after = encoder(x)
    torch.testing.assert_close(during, before)
    assert torch.equal(after, before)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in encoder.modules())


def test_hooks_go_when_something_fails(encoder):
    with pytest.raises(RuntimeError, match="stop"), record_attention(encoder):
        raise RuntimeError("stop")
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in encoder.modules())


def test_without_attention_there_is_nothing():
    with record_attention(nn.Identity()) as record:
        assert record.take() is None
