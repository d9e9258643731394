import pytest
import torch
from detectron2.modeling import build_model
from toy_heads import HEADS, build, with_head
from toys import randomize_zeros, toy_cfg, toy_input

from sgr_d2.modeling.head_keys import features_of_head


@pytest.mark.parametrize("backbone", ["build_timm_fpn_backbone", "build_resnet_fpn_backbone"])
@pytest.mark.parametrize("size", [(64, 96), (45, 77)])
def test_the_baseline_is_detectron2s_own_segmentor(size, backbone):
    """The same normalisation, padding and resizing: the same scores and losses of the same weights."""
    cfg = toy_cfg(sgr=False)
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.TIMM.NAME = backbone, "resnet10t"
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 18, 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES, cfg.MODEL.FPN.OUT_CHANNELS = ["res2", "res3", "res4", "res5"], 16
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [120.0, 110.0, 100.0], [58.0, 57.0, 56.0]
    ours = build(cfg)
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    theirs = build(cfg, seed=1)
    assert not any(theirs.load_state_dict(ours.state_dict(), strict=False))
    batch = [toy_input(*size), toy_input(*size, seed=1)]
    expected, actual = theirs.train()(batch), ours.train()(batch)
    assert actual.keys() == expected.keys()
    torch.testing.assert_close(actual["loss_sem_seg"], expected["loss_sem_seg"])
    ours.eval(), theirs.eval()
    inputs = [{"image": x["image"], "height": 50, "width": 90} for x in batch]
    with torch.no_grad():
        for a, b in zip(ours(inputs), theirs(inputs), strict=True):
            torch.testing.assert_close(a["sem_seg"], b["sem_seg"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_sgr_starts_where_its_baseline_starts(head):
    """The same weights and the same scores of one seed; SGR's own are others in every model."""
    with_sgr, baseline = (build(with_head(toy_cfg(sgr=sgr), head), seed=3).eval() for sgr in (True, False))
    weights = with_sgr.state_dict()
    for name, weight in baseline.state_dict().items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=0)
    inputs = [{"image": toy_input(64, 96)["image"]}]
    with torch.no_grad():
        torch.testing.assert_close(with_sgr(inputs)[0]["sem_seg"], baseline(inputs)[0]["sem_seg"])
    name, weight = next((n, p) for n, p in with_sgr.sgr.named_parameters() if p.dim() > 1)
    second = build_model(with_head(toy_cfg(), head)).sgr.get_parameter(name)
    assert not torch.equal(weight, second)


@pytest.mark.parametrize("sgr", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_every_head_trains_and_predicts(head, sgr):
    cfg = with_head(toy_cfg(sgr=sgr), head)
    model = build(cfg)
    if sgr:
        randomize_zeros(model.sgr)
    batch = [toy_input(64, 96), toy_input(45, 77, seed=1)]
    losses = model.train()(batch)
    assert ({"loss_component", "loss_diversity"} <= set(losses)) == sgr
    sum(losses.values()).backward()
    # a level that nobody reads rightly gets none
    read = {*cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES, *(model.sgr.in_features if sgr else ())}
    unread = tuple(f"backbone.levels.{name}" for name in model.backbone.output_shape() if name not in read)
    without = [n for n, p in model.named_parameters() if p.grad is None and not n.startswith(unread)]
    assert without == []
    with torch.no_grad():
        results = model.eval()([{**x, "height": 90, "width": 131} for x in batch])
    assert [r["sem_seg"].shape for r in results] == [(5, 90, 131)] * 2
    assert all(torch.isfinite(r["sem_seg"]).all() for r in results)


def test_every_parameter_gets_a_gradient():
    model = build(toy_cfg())
    randomize_zeros(model.sgr)
    sum(model.train()([toy_input(64, 64)]).values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("head", HEADS)
def test_inserting_sgr_changes_no_bit_of_the_prediction(head):
    plain = build(with_head(toy_cfg(sgr=False), head)).eval()
    refined = build(with_head(toy_cfg(), head), seed=1).eval()
    missing, unexpected = refined.load_state_dict(plain.state_dict(), strict=False)
    assert all(key.startswith("sgr.") or "token_attention" in key for key in missing) and not unexpected
    image = [{"image": toy_input(50, 70)["image"]}]
    with torch.no_grad():
        assert torch.equal(plain(image)[0]["sem_seg"], refined(image)[0]["sem_seg"])


def test_an_image_beside_a_larger_one_gives_the_same():
    model = build(toy_cfg()).eval()
    randomize_zeros(model)
    small, large = {"image": toy_input(45, 37)["image"]}, {"image": toy_input(128, 96, seed=1)["image"]}
    with torch.no_grad():
        (alone,), (beside, _) = model([small]), model([small, large])
    torch.testing.assert_close(beside["sem_seg"], alone["sem_seg"])
    torch.testing.assert_close(beside["sgr"].tokens, alone["sgr"].tokens)
    torch.testing.assert_close(beside["sgr"].regions, alone["sgr"].regions)


def test_results_come_in_the_order_of_the_images_whatever_their_sizes():
    model = build(toy_cfg()).eval()
    randomize_zeros(model)
    images = [{"image": toy_input(*size, seed=i)["image"]} for i, size in enumerate([(45, 37), (64, 32), (45, 37)])]
    with torch.no_grad():
        together, alone = model(images), [model([image])[0] for image in images]
    for image, a, b in zip(images, together, alone, strict=True):
        assert a["sem_seg"].shape == (5, *image["image"].shape[1:])
        torch.testing.assert_close(a["sem_seg"], b["sem_seg"])
        torch.testing.assert_close(a["sgr"].tokens, b["sgr"].tokens)


def test_the_baseline_has_no_tokens():
    model = build(toy_cfg(sgr=False)).eval()
    with torch.no_grad():
        assert set(model([{"image": toy_input(32, 32)["image"]}])[0]) == {"sem_seg"}


def test_a_backbone_that_is_wrong_about_its_strides_is_named():
    model = build(toy_cfg())
    model.strides["res4"] = 8
    with pytest.raises(ValueError, match=r"says that res4 has stride 8, but made 4x6 cells of 64x96 pixels"):
        model.eval()([toy_input(64, 96)])
    model.backbone._out_feature_strides["res3"] = None
    with pytest.raises(ValueError, match=r"ToyBackbone: output_shape\(\) gives res3 no stride"):
        type(model)(
            backbone=model.backbone,
            sgr=None,
            criterion=None,
            sem_seg_head=model.sem_seg_head,
            pixel_mean=[0.0] * 3,
            pixel_std=[1.0] * 3,
        )


def test_a_head_reading_unknown_features_is_refused():
    cfg = toy_cfg()
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["res2", "p3"]
    with pytest.raises(ValueError, match=r"SEM_SEG_HEAD.IN_FEATURES.*'p3'.*'res5'"):
        build(cfg)


def test_sgr_on_levels_that_the_head_does_not_read_is_refused():
    cfg = toy_cfg()
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["res2"]
    with pytest.raises(ValueError, match=r"SGR reads \['res3', 'res4'\].*\['res2'\]"):
        build(cfg)


def test_a_point_head_counts_among_the_readers():
    """A level that only PointRend's points read is refined; the same key means nothing to another head."""
    cfg = toy_cfg()
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["res3", "res4"]
    cfg.MODEL.POINT_HEAD.IN_FEATURES = ["res2"]
    assert features_of_head(cfg) == ["res3", "res4"]
    cfg.MODEL.SEM_SEG_HEAD.NAME = "PointRendSemSegHead"
    assert set(features_of_head(cfg)) == {"res2", "res3", "res4"}


def test_the_class_loss_of_tokens_has_the_classes_of_the_head():
    cfg = toy_cfg(classes=4)
    cfg.MODEL.SGR.CLASS_WEIGHT = 1.0
    model = build(cfg)
    assert model.criterion.token_classes.predictor.out_features == 4
    assert model.train()([toy_input(64, 64, classes=4)])["loss_token_class"] > 0


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
def test_the_gpu_gives_what_the_cpu_gives(dtype, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # convolutions that round to ten bits
    model = build(toy_cfg()).eval()
    randomize_zeros(model)
    image = [{"image": toy_input(64, 64)["image"]}]
    with torch.no_grad():
        cpu = model(image)[0]["sem_seg"]
        with torch.autocast("cuda", dtype=dtype, enabled=dtype is not None):
            gpu = model.cuda()(image)[0]["sem_seg"].cpu()
    tolerance = 1e-3 if dtype is None else 0.2
    torch.testing.assert_close(gpu.float(), cpu, rtol=tolerance, atol=tolerance)
