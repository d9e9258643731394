"""MODEL.SGR.NORM BN: at the end of the encoder and in the fusion blocks."""

import pytest
import torch
from fvcore.nn.precise_bn import update_bn_stats
from torch.nn import functional as F
from toy_norms import LEVELS, make, randomize_statistics, sizes
from toy_processes import run_two
from toys import randomize_zeros, toy_features

from sgr_d2.modeling.sgr.batch_norm import BatchNorm
from sgr_d2.modeling.sgr.encoder import build_encoder
from sgr_d2.modeling.sgr.fusion import BatchNormFusion, Fusion, reproject


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


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(3, 8, 5, 7), (1, 8, 1, 3)])
def test_a_folded_norm_is_torch_s_norm_before_the_convolution(training, shape):
    torch.manual_seed(0)
    norm, conv = torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 5, 1)
    torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
    randomize_statistics(norm)
    folded = BatchNorm(8)
    folded.load_state_dict(norm.state_dict())
    norm.train(training), folded.train(training)
    maps = (3 + torch.randn(shape)).requires_grad_()
    sources, weights = [maps, *conv.parameters()], torch.randn(shape[0], 5, *shape[2:])
    expected, actual = conv(norm(maps)), folded(maps, weight=conv.weight, bias=conv.bias)
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(actual, expected, **close)
    torch.testing.assert_close(folded.state_dict(), norm.state_dict(), **close)
    expected = torch.autograd.grad((expected * weights).sum(), [*sources, *norm.parameters()])
    actual = torch.autograd.grad((actual * weights).sum(), [*sources, *folded.parameters()])
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_precise_statistics_find_the_norms():
    """fvcore's, which TEST.PRECISE_BN runs, take the momentum and read what a forward pass leaves behind."""
    sgr = make()
    norm, hidden, passes = sgr.fusion["res2"].norm, [], []
    sgr.register_forward_pre_hook(lambda _, args: passes.append(1) or (*args, sizes()))
    norm.register_forward_pre_hook(lambda _, args: hidden.append(args[0]))
    update_bn_stats(sgr, [toy_features(2, 64, 64, *LEVELS) for _ in range(3)], num_iters=3)
    assert len(passes) == 3 and norm.momentum == 0.1
    torch.testing.assert_close(norm.running_mean, torch.cat(hidden).mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, torch.cat(hidden).var((0, 2, 3)), rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("build", [Fusion, BatchNormFusion])
def test_what_is_the_same_everywhere_is_for_the_bias_alone(build):
    """After the ReLU everything is positive; only with BN has the last convolution nothing constant to learn from."""
    torch.manual_seed(0)
    fusion = build(channels=5, token_dim=8)
    features, tokens, regions = torch.randn(2, 5, 8, 8), torch.randn(2, 3, 8), torch.rand(2, 3, 8, 8)
    fusion(features, tokens, regions).sum().backward()  # a gradient that is the same everywhere
    assert (fusion.out.weight.grad.abs().max() < 1e-3) == (build is BatchNormFusion)
    assert fusion.out.bias.grad.tolist() == [2 * 8 * 8] * 5


def test_padding_has_no_say_in_statistics():
    sgr, features = make(), toy_features(2, 64, 64, *LEVELS)
    norms, found = [module for module in sgr.modules() if isinstance(module, BatchNorm)], []
    for garbage in (0.0, 1e3):
        for f in features.values():
            f[..., f.shape[-2] // 2 :, :] = garbage
        for norm in norms:
            norm.reset_running_stats()
        tokens = sgr(features, torch.tensor([[32, 32], [30, 25]])).tokens
        found.append([tokens, *(buffer.clone() for norm in norms for buffer in norm.buffers())])
    assert len(norms) == 1 + len(LEVELS)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_statistics_of_the_cells_that_count_against_a_norm_of_these_alone():
    torch.manual_seed(0)
    norm, expected = BatchNorm(5), torch.nn.BatchNorm1d(5)
    valid = torch.rand(3, 1, 6, 4) > 0.4
    cells = (2 + torch.randn(int(valid.sum()), 5)).requires_grad_()
    maps = torch.zeros(3, 6, 4, 5).masked_scatter(valid.movedim(1, -1), cells).movedim(-1, 1)
    result, weights = norm(maps, valid=valid), torch.randn(len(cells), 5)
    chosen = result.movedim(1, -1)[valid[:, 0]]
    torch.testing.assert_close(chosen, expected(cells), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.state_dict(), expected.state_dict(), rtol=1e-4, atol=1e-5)
    actual = torch.autograd.grad((chosen * weights).sum(), cells)
    torch.testing.assert_close(
        actual, torch.autograd.grad((expected(cells) * weights).sum(), cells), rtol=1e-4, atol=1e-5
    )


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


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_a_small_variance_beside_a_large_mean(share):
    torch.manual_seed(0)
    valid = torch.rand(4, 1, 16, 16) <= share
    maps = (100 + 0.01 * torch.randn(4, 3, 16, 16)) * valid
    norm = BatchNorm(3)
    cells = norm(maps, valid=valid).movedim(1, -1)[valid[:, 0]]
    expected = torch.nn.BatchNorm1d(3).double()(maps.movedim(1, -1)[valid[:, 0]].double())
    torch.testing.assert_close(cells.double(), expected, rtol=0, atol=0.01)


TWO_PROCESSES = """
import sys, torch
from detectron2.engine import launch
from sgr_d2.engine import run_process
from sgr_d2.modeling.sgr.batch_norm import BatchNorm
from sgr_d2.modeling.sgr.encoder import TokenBatchNorm

def takes_one_token(norm):
    try:
        token = torch.full((1, 1, 4), float(torch.distributed.get_rank()))
        return TokenBatchNorm(norm, 4)(token).any().item()
    except ValueError:
        return None

def main(folder):
    rank = torch.distributed.get_rank()
    norm, maps, weights = torch.load(folder + "/given.pth", weights_only=False)
    parts = ([0, 1, 2], [3])[rank]  # batches of three images and of one
    own = maps[parts].requires_grad_()
    result = norm(own)
    (result * weights[parts]).sum().backward()
    single = [takes_one_token("BN"), takes_one_token("SyncBN")]
    torch.save([result.detach(), own.grad, norm.weight.grad, norm.state_dict(), single], f"{folder}/{rank}.pth")

if __name__ == "__main__":
    launch(run_process, 2, dist_url="auto", args=(main, sys.argv[1]))
"""


def test_statistics_over_two_processes_are_those_of_one(tmp_path):
    """Results and gradients, with batches of different sizes; a token of each process has one to differ from."""
    torch.manual_seed(0)
    norm, maps, weights = BatchNorm(5, sync=True), 7 + torch.randn(4, 5, 6, 3), torch.randn(4, 5, 6, 3)
    torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
    torch.save([norm, maps, weights], tmp_path / "given.pth")
    first, second = run_two(TWO_PROCESSES, tmp_path)
    maps.requires_grad_()
    result = norm(maps)
    (result * weights).sum().backward()
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(torch.cat([first[0], second[0]]), result, **close)
    torch.testing.assert_close(torch.cat([first[1], second[1]]), maps.grad, **close)
    torch.testing.assert_close(first[2] + second[2], norm.weight.grad, **close)
    for state in (first[3], second[3]):
        torch.testing.assert_close(state, norm.state_dict(), **close)
    assert first[4] == second[4] == [None, True]
