import pytest
import torch
from detectron2.modeling import build_backbone, build_model, build_sem_seg_head
from toy_heads import with_head
from toys import toy_cfg

from sgr_d2.checks import check_subdivision
from sgr_d2.modeling.head_keys import features_of_head

OURS = "SparsePointRendSemSegHead"


def build(name: str, levels: tuple[str, ...]) -> torch.nn.Module:
    cfg = with_head(toy_cfg(), name)
    cfg.MODEL.POINT_HEAD.IN_FEATURES = list(levels)
    shape = build_backbone(cfg).output_shape()
    torch.manual_seed(0)
    return build_sem_seg_head(cfg, {name: shape[name] for name in dict.fromkeys(features_of_head(cfg))})


def features(head: torch.nn.Module, batch: int = 2) -> dict[str, torch.Tensor]:
    """Of images of 64x96 pixels."""
    torch.manual_seed(1)
    channels = [convs[0].in_channels for convs in head.coarse_sem_seg_head.scale_heads]
    return {f"res{i + 2}": torch.randn(batch, count, 16 >> i, 24 >> i) for i, count in enumerate(channels)}


def losses(head: torch.nn.Module, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    return head.train()(features(head), labels)[1]


def test_as_detectron2_where_that_is_right():
    theirs, ours = build("PointRendSemSegHead", ("res2",)), build(OURS, ("res2",))
    ours.load_state_dict(theirs.state_dict())
    labels = torch.randint(0, 5, (2, 64, 96))
    labels[:, 20:40] = 255
    expected, result = losses(theirs, labels), losses(ours, labels)
    assert set(result) == set(expected)
    assert all(torch.allclose(result[name], expected[name]) for name in expected)
    x = features(ours)
    assert torch.allclose(ours.eval()(x)[0], theirs.eval()(x)[0], atol=1e-5)


def test_one_labelled_pixel_is_enough():
    """It is in none of the 64 points of an image: the point loss is zero with no gradient, not NaN."""
    labels = torch.full((2, 64, 96), 255)
    labels[1, 63, 0] = 3
    assert losses(build("PointRendSemSegHead", ("res2",)), labels)["loss_sem_seg_point"].isnan()
    head = build(OURS, ("res2",))
    result = losses(head, labels)
    assert result["loss_sem_seg_point"] == 0
    assert result["loss_sem_seg"] > 0
    sum(result.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


def test_the_mean_is_over_labelled_points():
    head = build(OURS, ("res2",))
    with torch.no_grad():
        head.point_head.predictor.weight.zero_()
    labels = torch.full((2, 64, 96), 255)
    labels[0, :, :48] = 2
    assert losses(head, labels)["loss_sem_seg_point"].item() == pytest.approx(torch.tensor(5.0).log().item())


@pytest.mark.parametrize("levels", [("res2", "res3"), ("res4", "res2", "res3")])
def test_points_of_several_levels(levels):
    """An image alone and in a batch has the same scores, and no point is left without a finite one."""
    head = build(OURS, levels).eval()
    torch.nn.init.normal_(head.point_head.predictor.weight)
    x = features(head, batch=3)
    with torch.no_grad():
        scores, _ = head(x)
        alone, _ = head({name: feature[1:2] for name, feature in x.items()})
        with pytest.raises(RuntimeError):
            type(head).__bases__[0].forward(head, x)
    assert scores.shape == (3, 5, 64, 96)
    assert torch.allclose(scores[1:2], alone, atol=1e-4)
    assert set(losses(head, torch.zeros(2, 64, 96, dtype=torch.long))) == {"loss_sem_seg", "loss_sem_seg_point"}


@pytest.mark.parametrize("name", ["PointRendSemSegHead", OURS])
def test_a_single_class_is_refused(name):
    """There is no second class whose score could be close."""
    cfg = with_head(toy_cfg(classes=1), name)
    with pytest.raises(ValueError, match=rf"SEM_SEG_HEAD.NUM_CLASSES = 1: {name} chooses points.*a second class"):
        build_model(cfg)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    with pytest.raises(ValueError, match=rf"POINT_HEAD.NUM_CLASSES = 1: {name} chooses points"):
        build_model(cfg)


@pytest.mark.parametrize("name", ["PointRendSemSegHead", OURS])
@pytest.mark.parametrize(
    ("steps", "stride", "remedy"), [(5, 4, "Set it to 2"), (1, 4, "Set it to 2"), (4, 8, "Set it to 3")]
)
def test_subdivisions_that_miss_the_size_of_the_image_are_refused(name, steps, stride, remedy):
    """Training needs none, so that Detectron2's default, 5, would be told after it."""
    cfg = with_head(toy_cfg(), name)
    cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE, cfg.MODEL.POINT_HEAD.SUBDIVISION_STEPS = stride, steps
    if stride == 8:
        cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["res3", "res4", "res5"]
    message = rf"POINT_HEAD\.SUBDIVISION_STEPS = {steps}: .*{name} .*COMMON_STRIDE = {stride} .*{remedy}\."
    with pytest.raises(ValueError, match=message):
        build_model(cfg)
    cfg.MODEL.POINT_HEAD.SUBDIVISION_STEPS = int(remedy[-1])
    with torch.no_grad():
        (output,) = build_model(cfg).eval()([{"image": torch.zeros(3, 40, 56)}])
    assert output["sem_seg"].shape == (5, 40, 56)


def test_a_stride_that_no_subdivision_fits():
    cfg = with_head(toy_cfg(), OURS)
    cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE = 6
    with pytest.raises(ValueError, match=r"COMMON_STRIDE = 6 .*Set the stride to a power of 2\."):
        check_subdivision(cfg)


def test_points_of_an_unknown_level_are_refused():
    cfg = with_head(toy_cfg(), OURS)
    cfg.MODEL.POINT_HEAD.IN_FEATURES = ["p2"]
    with pytest.raises(ValueError, match=r"POINT_HEAD.IN_FEATURES = \['p2'\].*Choose from \['res2'"):
        build_model(cfg)
