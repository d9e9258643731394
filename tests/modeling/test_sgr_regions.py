"""Regions predicted once for tokens and losses, whose gradients differ, and what is kept for them."""

import pytest
import torch

from sgr_d2.modeling.sgr.recompute import forked
from sgr_d2.modeling.sgr.regions import FixedRegions, RegionPredictor


def predictor_and_inputs(layers: int, softmax: bool) -> tuple[RegionPredictor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    valid = torch.ones(2, 1, 5, 7, dtype=torch.bool)
    valid[1, :, 3:] = False
    return RegionPredictor(8, 3, layers, softmax), torch.randn(2, 8, 5, 7, requires_grad=True), valid


EXTENTS = torch.tensor([[5, 7], [3, 7]])


def run_forked(predictor, pixels, valid, share):
    """(both results), and what the backward pass keeps beyond inputs and parameters."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        results = forked(predictor, pixels, valid, EXTENTS, share=share)
    own = {t.untyped_storage().data_ptr() for t in (pixels, valid, EXTENTS, *predictor.parameters())}
    return results, [t.shape for t in kept if t.numel() and t.untyped_storage().data_ptr() not in own]


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_each_of_two_results_has_a_gradient_of_its_own(layers, softmax, share):
    predictor, pixels, valid = predictor_and_inputs(layers, softmax)
    (first, second), kept = run_forked(predictor, pixels, valid, share)
    assert kept == []
    plain = predictor(pixels, valid, EXTENTS)
    assert torch.equal(first, plain) and torch.equal(second, plain)
    weights = torch.randn_like(plain), torch.randn_like(plain)
    parameters = list(predictor.parameters())
    to_source, *to_parameters = torch.autograd.grad(
        (first * weights[0] + second * weights[1]).sum(), [pixels, *parameters]
    )
    of_each = [torch.autograd.grad((plain * w).sum(), [pixels, *parameters], retain_graph=True) for w in weights]
    torch.testing.assert_close(to_source, of_each[0][0] + share * of_each[1][0])
    for found, *expected in zip(to_parameters, of_each[0][1:], of_each[1][1:], strict=True):
        torch.testing.assert_close(found, sum(expected))


@pytest.mark.parametrize("used", [0, 1])
def test_one_of_two_results_may_be_left_unused(used):
    predictor, pixels, valid = predictor_and_inputs(1, False)
    results, _ = run_forked(predictor, pixels, valid, share=0.0)
    results[used].square().sum().backward()
    assert predictor.weight.grad.any() and pixels.grad.any() == (used == 0)


def test_a_frozen_predictor_passes_its_share_on():
    predictor, pixels, valid = predictor_and_inputs(1, False)
    predictor.requires_grad_(False)
    results, _ = run_forked(predictor, pixels, valid, share=0.5)
    (expected,) = torch.autograd.grad(predictor(pixels, valid, EXTENTS).sum(), pixels)
    torch.testing.assert_close(torch.autograd.grad(sum(r.sum() for r in results), pixels)[0], 1.5 * expected)


def test_regions_that_learn_nothing_have_no_gradient_to_pass_on():
    _, pixels, valid = predictor_and_inputs(1, False)
    first, second = forked(FixedRegions(3), pixels, valid, EXTENTS, share=0.0)
    (first + second + pixels.sum()).sum().backward()
    assert torch.equal(pixels.grad, torch.full_like(pixels, first.numel()))


def test_autocast_holds_in_the_backward_pass():
    predictor, pixels, valid = predictor_and_inputs(1, False)
    dtypes = []
    predictor.layers[0][1].register_forward_hook(lambda _, args, out: dtypes.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        first, second = forked(predictor, pixels, valid, EXTENTS, share=0.0)
    assert first.dtype == second.dtype == torch.float32
    (first + second).sum().backward()
    assert dtypes == [torch.bfloat16, torch.bfloat16]
    assert predictor.weight.grad.dtype == torch.float32


def test_the_padding_takes_no_part():
    predictor, pixels, valid = predictor_and_inputs(1, False)
    other = torch.where(valid, pixels, 9.0)
    found, expected = predictor(other, valid, EXTENTS), predictor(pixels, valid, EXTENTS)
    torch.testing.assert_close(found * valid, expected * valid)
