import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_sem_seg_head
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sgr_d2.config import get_sgr_cfg
from sgr_d2.modeling.deeplab import WindowPool
from sgr_d2.modeling.postprocessing import class_scores, predict

SHAPE = {"a": ShapeSpec(channels=6, stride=4), "b": ShapeSpec(channels=8, stride=16)}
NAMES = ["DeepLabV3Head", "DeepLabV3PlusHead"]


def build(name: str, *options) -> torch.nn.Module:
    """A head whose training crops, 32x64 pixels, are 2x4 cells of its coarse level."""
    cfg = get_sgr_cfg()
    head = cfg.MODEL.SEM_SEG_HEAD
    head.NAME, head.NUM_CLASSES, head.CONVS_DIM, head.NORM = name, 3, 5, ""
    head.ASPP_CHANNELS, head.ASPP_DILATIONS, head.PROJECT_FEATURES, head.PROJECT_CHANNELS = 5, [1, 2, 3], ["a"], [4]
    plus = name.endswith("PlusHead")
    head.IN_FEATURES, head.COMMON_STRIDE = (["a", "b"], 4) if plus else (["b"], 16)
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", [32, 64]
    cfg.merge_from_list(list(options))
    return build_sem_seg_head(cfg, {key: SHAPE[key] for key in head.IN_FEATURES}).eval()


def features(rows: int, columns: int) -> dict[str, torch.Tensor]:
    return {"a": torch.randn(2, 6, 4 * rows, 4 * columns), "b": torch.randn(2, 8, rows, columns)}


@pytest.mark.parametrize("name", NAMES)
def test_as_detectron2_where_that_runs_and_any_size_where_not(name):
    theirs, ours = build(name), build(f"AnySize{name}")
    ours.load_state_dict(theirs.state_dict())
    x = features(2, 4)  # the window covers the map
    assert torch.equal(ours(x)[0], theirs(x)[0])
    for size in ((4, 8), (6, 4), (2, 8)):
        x = features(*size)
        torch.testing.assert_close(ours(x)[0], theirs(x)[0])
    for rows, columns in ((3, 5), (1, 9), (1, 1)):
        x = features(rows, columns)
        with pytest.raises(ValueError, match=r"pool_kernel_size"):
            theirs(x)
        assert ours(x)[0].shape == (2, 3, 16 * rows, 16 * columns)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_made_in_float32(name):
    """Scores that autocast left in half precision are enlarged in float32, and so is their gradient added up."""
    head = build(f"AnySize{name}").train()
    scores = torch.randn(2, 3, 5, 7).bfloat16().requires_grad_()
    exact = scores.detach().float().requires_grad_()
    targets = torch.randint(0, 3, (2, 5 * head.common_stride, 7 * head.common_stride))
    with torch.autocast("cpu", torch.bfloat16):
        (loss,) = head.losses(scores, targets).values()
    enlarged = F.interpolate(exact, scale_factor=head.common_stride, mode="bilinear", align_corners=False)
    expected = F.cross_entropy(enlarged, targets)
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    assert torch.equal(scores.grad, exact.grad.bfloat16())


@pytest.mark.parametrize("name", NAMES)
def test_its_classes_are_enlarged_in_chunks(name):
    head = build(f"AnySize{name}")
    x = features(3, 5)
    _, factor = class_scores(head, x)
    assert factor == head.common_stride
    padded = tuple(head(x)[0].shape[-2:])
    result = predict(head, x, padded)(0, (45, 70), 45, 70)["sem_seg"]
    assert torch.allclose(result, head(x)[0][0, :, :45, :70])


def test_the_window_slides_and_shrinks():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    assert torch.equal(WindowPool((3, 2))(x), torch.tensor([[[[4.5, 5.5, 6.5]]]]))
    assert torch.equal(WindowPool((8, 9))(x), F.adaptive_avg_pool2d(x, 1))


@pytest.mark.parametrize("size", [(3, 5), (7, 5), (3, 11), (1, 1), (7, 11)])
def test_a_window_is_the_mean_of_its_cells(size):
    x = torch.randn(2, 3, 7, 11, requires_grad=True)
    expected = x.unfold(2, size[0], 1).unfold(3, size[1], 1).mean((-2, -1))
    pooled = WindowPool(size)(x)
    torch.testing.assert_close(pooled, expected)
    weights = torch.randn_like(pooled)
    (ours,) = torch.autograd.grad((pooled * weights).sum(), x)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), x)
    torch.testing.assert_close(ours, theirs)


class PoolCost(TorchDispatchMode):
    """Counts the additions of all pooling."""

    additions = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        if operator is torch.ops.aten.avg_pool2d.default:
            self.additions += result.numel() * math.prod(args[1])
        return result


@pytest.mark.parametrize(
    ("window", "additions"),
    [
        ((8, 16), 16 * 17 * 16 + 9 * 17 * 8),  # not 9 * 17 * 128
        ((16, 16), 32 * 16 + 17 * 16),  # not 17 * 256
        ((8, 32), 16 * 32 + 9 * 8),  # not 9 * 256
    ],
)
def test_a_window_costs_its_sides_and_not_its_area(window, additions):
    with PoolCost() as cost:
        WindowPool(window)(torch.randn(1, 1, 16, 32))
    assert cost.additions == additions


def test_without_crops_the_pooling_is_global():
    cfg = get_sgr_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NAME, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = "AnySizeDeepLabV3Head", 3
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES, cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE = ["b"], 16
    head = build_sem_seg_head(cfg, {"b": SHAPE["b"]})
    assert not any(isinstance(module, WindowPool) for module in head.modules())


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("V3", "IN_FEATURES", ["a", "b"], r"IN_FEATURES = \['a', 'b'\]: AnySizeDeepLabV3Head reads one feature"),
        ("V3", "COMMON_STRIDE", 4, r"COMMON_STRIDE = 4: AnySizeDeepLabV3Head predicts at stride 16"),
        ("V3Plus", "COMMON_STRIDE", 8, r"COMMON_STRIDE = 8: AnySizeDeepLabV3PlusHead predicts at stride 4"),
        ("V3Plus", "PROJECT_CHANNELS", [4, 4], r"PROJECT_CHANNELS = \[4, 4\]: give 1 number"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(name, key, value, message):
    with pytest.raises(ValueError, match=message):
        build(f"AnySizeDeepLab{name}Head", f"MODEL.SEM_SEG_HEAD.{key}", value)


@pytest.mark.parametrize(("key", "value"), [("SIZE", [32, 60]), ("TYPE", "relative")])
def test_crops_that_are_not_whole_cells_are_refused(key, value):
    for name in NAMES:
        with pytest.raises(ValueError, match=rf"INPUT.CROP.*AnySize{name} needs crops of multiples of 16"):
            build(f"AnySize{name}", f"INPUT.CROP.{key}", value)
