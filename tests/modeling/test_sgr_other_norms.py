"""MODEL.SGR.NORM BN with torch's own norms in place of SGR's, as other trainers put them there."""

import copy

import pytest
import torch
from toy_norms import LEVELS, make, randomize_statistics, sizes
from toys import randomize_zeros, toy_features

from sgr_d2.modeling.sgr.batch_norm import BatchNorm
from sgr_d2.modeling.sgr.encoder import TokenBatchNorm
from sgr_d2.modeling.sgr.fusion import BatchNormFusion


def test_converted_norms_work():
    """`nn.SyncBatchNorm.convert_sync_batchnorm`, as other trainers call it, puts torch's own modules in their place."""
    sgr, features = make(), toy_features(2, 64, 64, *LEVELS)
    randomize_zeros(sgr)
    randomize_statistics(sgr)
    expected = sgr.eval()(features, sizes())
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(sgr).eval()
    assert not any(isinstance(module, BatchNorm) for module in converted.modules())
    torch.testing.assert_close(converted(features, sizes()).features, expected.features, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokens", [True, False])
def test_torch_s_own_norms_give_the_gradients_of_ours(tokens):
    torch.manual_seed(0)
    own = TokenBatchNorm("BN", 8) if tokens else BatchNormFusion(channels=5, token_dim=8, norm="BN")
    randomize_zeros(own)
    other = copy.deepcopy(own)
    other.norm = torch.nn.BatchNorm2d(8)
    other.norm.load_state_dict(own.norm.state_dict())
    x, valid = torch.randn((2, 6, 8) if tokens else (2, 5, 4, 7)), torch.rand(2, 1, 4, 7) > 0.3
    more = () if tokens else (torch.randn(2, 3, 8), torch.rand(2, 3, 4, 7) * valid, valid)
    weights, gradients = torch.randn(x.shape), []
    weights = weights if tokens else weights * valid
    for module in (own, other):
        given = x.clone().requires_grad_()
        (module.train()(given, *more) * weights).sum().backward()
        gradients.append(given.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_norms_of_other_trainers_do_not_count_padding_either():
    """Such a norm, here torch's of one process, gives the cells of a padded batch what ours gives them."""
    own, other = make().train(), make().train()
    randomize_zeros(own)
    other.load_state_dict(own.state_dict())
    for fuse in other.fusion.values():
        norm = torch.nn.BatchNorm2d(fuse.norm.num_features)
        norm.load_state_dict(fuse.norm.state_dict())
        fuse.norm = norm
    features, image_sizes = toy_features(2, 64, 64, *LEVELS), torch.tensor([[64, 64], [32, 24]])
    expected, found = (sgr(features, image_sizes) for sgr in (own, other))
    for name in expected.features:
        assert not torch.equal(expected.features[name], features[name])
        rows, columns = (length * features[name].shape[-1] // 64 for length in (32, 24))
        for maps in (expected.features, found.features):
            maps[name][1, :, rows:] = maps[name][1, :, :, columns:] = 0
        torch.testing.assert_close(found.features[name], expected.features[name], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(other.fusion[name].norm.running_var, own.fusion[name].norm.running_var)
