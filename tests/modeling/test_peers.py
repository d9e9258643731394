import pytest
import torch
from detectron2.modeling import build_model
from toys import randomize_zeros, toy_cfg, toy_features, toy_input, toy_shape

from sgr_d2.modeling.peers import KINDS, Peer
from sgr_d2.modeling.sgr.fusion import BatchNormFusion, Fusion

LEVELS = ("res2", "res3", "res5")


def make(kind: str) -> Peer:
    torch.manual_seed(0)
    return Peer(toy_shape(*LEVELS), kind=kind, dim=16, nodes=6, num_classes=5, refined=["res2", "res5"])


def model(kind: str):
    cfg = toy_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.PEER.NAME, cfg.MODEL.PEER.DIM = "PeerSegmentor", kind, 16
    torch.manual_seed(0)
    return build_model(cfg)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_peer_changes_nothing_and_keeps_the_shapes(kind):
    features = toy_features(2, 64, 96)
    refined, scores = make(kind)(features, torch.tensor([[64, 96], [33, 65]]))
    assert all(torch.equal(refined[name], features[name]) for name in features)
    assert (scores is None) == (kind != "ObjectContext") and (scores is None or scores.shape == (2, 5, 16, 24))


@pytest.mark.parametrize("kind", KINDS)
def test_a_peer_but_the_control_reaches_the_whole_image_and_none_reaches_padding(kind):
    peer = make(kind)
    randomize_zeros(peer)
    features = toy_features(1, 64, 64, *LEVELS)
    sizes = torch.tensor([[40, 40]])  # the image ends inside the second cell of res5
    before = peer(features, sizes)[0]
    cells = {name: -(-40 * f.shape[-1] // 64) for name, f in features.items()}
    assert cells == {"res2": 10, "res3": 5, "res5": 2}
    for name, f in features.items():
        f[..., cells[name] :, :] = -1e3
        f[..., :, cells[name] :] = 1e3
    after = peer(features, sizes)[0]
    for name, end in cells.items():
        torch.testing.assert_close(after[name][..., :end, :end], before[name][..., :end, :end])
    peer.eval()  # the statistics of batch and image, by which the fusion scales, reach everywhere
    for fuse in peer.fuse.values():
        fuse.relative = False
    before = peer(features, sizes)[0]["res2"]
    features["res2"][..., 0, 0] += 5
    assert (peer(features, sizes)[0]["res2"][..., 9, 9] != before[..., 9, 9]).any() == (kind != "Pointwise")


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind):
    net = model(kind).train()
    randomize_zeros(net.peer)
    losses = net([toy_input(64, 64), toy_input(50, 37)])
    assert ("loss_peer" in losses) == (kind == "ObjectContext")
    sum(losses.values()).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_labelled_and_inference(kind):
    net = model(kind)
    x = toy_input(45, 37)
    x["sem_seg"][:] = 255
    assert sum(net.train()([x]).values()).item() == 0
    with torch.no_grad():
        (result,) = net.eval()([{"image": x["image"], "height": 90, "width": 74}])
    assert result.keys() == {"sem_seg"} and result["sem_seg"].shape == (5, 90, 74)


def test_attention_of_one_pixel_by_hand():
    mix = KINDS["NonLocal"](4, 0, 0)
    pixels = torch.randn(1, 4, 1, 2)
    context, _ = mix(pixels, torch.tensor([[[[True, False]]]]))
    torch.testing.assert_close(context[..., 0], mix.value(pixels)[..., 0])  # the only pixel that it may see


def test_two_layers_on_one_pixel_by_hand():
    mix = KINDS["Pointwise"](1, 0, 0)
    with torch.no_grad():
        mix.expand.weight.copy_(torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1))
        mix.expand.bias.copy_(torch.tensor([0.0, 1.0]))
        mix.project.weight.copy_(torch.tensor([2.0, 10.0]).reshape(1, 2, 1, 1))
        mix.project.bias.fill_(0.5)
    pixels = torch.tensor([3.0, -2.0]).reshape(1, 1, 1, 2)
    context, _ = mix(pixels, torch.ones(1, 1, 1, 2, dtype=torch.bool))
    torch.testing.assert_close(context.flatten(), torch.tensor([6.5, 30.5]))  # 2*3 + 0.5; 10*(2+1) + 0.5


@pytest.mark.parametrize("norm", ["LN", "BN", "SyncBN"])
def test_position_norm_and_scale_are_those_of_sgr(norm):
    """F + |F| * conv(...), where the context depends on the place although all pixels are the same."""
    torch.manual_seed(0)
    shape = toy_shape("res2")
    peer = Peer(shape, kind="GraphReasoning", dim=16, nodes=6, num_classes=0, refined=["res2"], norm=norm).eval()
    assert isinstance(peer.fuse["res2"], Fusion if norm == "LN" else BatchNormFusion)
    randomize_zeros(peer)
    features = {"res2": torch.randn(1, shape["res2"].channels, 1, 1).expand(-1, -1, 8, 8).contiguous()}
    sizes = torch.tensor([[32, 32]])
    change = peer(features, sizes)[0]["res2"] - features["res2"]
    assert (change[..., 0, 0] - change[..., 7, 7]).abs().max() > 1e-3
    peer.position = False
    uniform = peer(features, sizes)[0]["res2"] - features["res2"]
    torch.testing.assert_close(uniform, uniform[..., :1, :1].expand_as(uniform))
    peer.fuse["res2"].relative = False
    unscaled = peer(features, sizes)[0]["res2"] - features["res2"]
    torch.testing.assert_close(uniform, unscaled * features["res2"].square().mean().sqrt())


def test_channels_that_the_position_code_cannot_use():
    with pytest.raises(ValueError, match=r"MODEL.PEER.DIM = 18 must be a positive multiple of 4"):
        Peer(toy_shape("res2"), kind="NonLocal", dim=18, nodes=0, num_classes=0, refined=["res2"])


def test_unknown_peer():
    with pytest.raises(ValueError, match=r"MODEL.PEER.NAME = 'X'.*NonLocal"):
        make("X")


def test_unknown_features_list_the_choices():
    cfg = toy_cfg()
    cfg.MODEL.SGR.IN_FEATURES = ["res3", "p3"]
    with pytest.raises(ValueError, match=r"MODEL.SGR.IN_FEATURES.*'p3'.*res2"):
        Peer(cfg, toy_shape())


def test_a_peer_reads_levels_that_the_head_does_not():
    cfg = toy_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.PEER.DIM = "PeerSegmentor", 16
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES, cfg.MODEL.SGR.IN_FEATURES = ["res2"], ["res3", "res4"]
    with pytest.raises(ValueError, match=r"reads \['res3', 'res4'\] \(MODEL.SGR.IN_FEATURES\), but the head .*'res2'"):
        build_model(cfg)
    cfg.MODEL.SGR.IN_FEATURES = ["res2", "res4"]
    model = build_model(cfg)
    assert list(model.strides) == ["res2", "res4"] and model.size_divisibility == 16


def test_sums_over_the_image_stay_finite_in_float16():
    mix = KINDS["GraphReasoning"](16, 4, 0)
    pixels = 5 + torch.randn(1, 16, 64, 64)
    with torch.no_grad():
        mix.assign.weight.mul_(8)
        exact, _ = mix(pixels, torch.ones(1, 1, 64, 64, dtype=torch.bool))
        with torch.autocast("cpu", torch.float16):
            half, _ = mix(pixels, torch.ones(1, 1, 64, 64, dtype=torch.bool))
    assert torch.isfinite(half).all()
    assert (half - exact).norm() < 0.01 * exact.norm()
