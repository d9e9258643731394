"""The region predictor keeps its input alone for the gradient, and has the gradient of its plain layers."""

import pytest
import torch

from sgr_d2.modeling.sgr.regions import RegionPredictor


def predictor_and_inputs(layers: int, softmax: bool) -> tuple[RegionPredictor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    valid = torch.ones(2, 1, 5, 7, dtype=torch.bool)
    valid[1, :, 3:] = False
    return RegionPredictor(8, 3, layers, softmax), torch.randn(2, 8, 5, 7, requires_grad=True), valid


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_only_the_input_is_kept(layers, softmax):
    predictor, pixels, valid = predictor_and_inputs(layers, softmax)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        logits = predictor(pixels, valid, torch.tensor([[5, 7], [3, 7]]))
    own = {t.untyped_storage().data_ptr() for t in (pixels, valid, *predictor.parameters())}
    assert [t.shape for t in kept if t.numel() and t.untyped_storage().data_ptr() not in own] == []
    sources = [pixels, *predictor.parameters()]
    plain = predictor._logits(pixels, valid)
    assert torch.equal(logits, plain)
    weights = torch.randn_like(plain)
    for ours, theirs in zip(
        *(torch.autograd.grad((result * weights).sum(), sources) for result in (logits, plain)), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_the_padding_takes_no_part():
    predictor, pixels, valid = predictor_and_inputs(1, False)
    other = torch.where(valid, pixels, 9.0)
    extents = torch.tensor([[5, 7], [3, 7]])
    found, expected = predictor(other, valid, extents), predictor(pixels, valid, extents)
    torch.testing.assert_close(found * valid, expected * valid)
