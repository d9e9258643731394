import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_sem_seg_head
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from detectron2.modeling.postprocessing import sem_seg_postprocess
from torch.nn import functional as F

from sgr_d2.config import get_sgr_cfg
from sgr_d2.modeling import postprocessing
from sgr_d2.modeling.postprocessing import class_scores, predict, resize_scores


def whole(scores, size, height, width, factor):
    """Detectron2's way: everything at once."""
    large = F.interpolate(scores[None], scale_factor=factor, mode="bilinear", align_corners=False)[0]
    return sem_seg_postprocess(large, size, height, width)


@pytest.mark.parametrize("chunk", [1, 2000, 2**24])
@pytest.mark.parametrize(("size", "output"), [((21, 30), (21, 30)), ((21, 30), (40, 17)), ((24, 32), (5, 7))])
def test_chunks_give_the_numbers_of_detectron2(monkeypatch, chunk, size, output):
    monkeypatch.setattr(postprocessing, "CHUNK_VALUES", chunk)
    scores = torch.randn(7, 6, 8)
    assert torch.equal(resize_scores(scores, size, *output, factor=4), whole(scores, size, *output, 4))


def test_no_factor_and_no_classes():
    scores = torch.randn(3, 6, 8)
    assert torch.equal(resize_scores(scores, (5, 8), 5, 8), scores[:, :5])
    assert resize_scores(scores[:0], (5, 8), 9, 9).shape == (0, 9, 9)


@pytest.mark.parametrize("output", [(24, 32), (50, 41)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_of_autocast_are_enlarged_in_float32(dtype, output):
    scores = (8 * torch.randn(5, 6, 8)).to(dtype)
    result = resize_scores(scores, (24, 32), *output, factor=4)
    assert result.dtype == torch.float32
    assert torch.equal(result, whole(scores.float(), (24, 32), *output, 4))


SHAPE = {"a": ShapeSpec(channels=6, stride=4), "b": ShapeSpec(channels=8, stride=8)}


def build(name: str) -> torch.nn.Module:
    cfg = get_sgr_cfg()
    head = cfg.MODEL.SEM_SEG_HEAD
    head.NAME, head.NUM_CLASSES, head.CONVS_DIM, head.NORM = name, 3, 5, ""
    head.IN_FEATURES = ["b"] if name == "DeepLabV3Head" else ["a", "b"]
    head.COMMON_STRIDE = 8 if name == "DeepLabV3Head" else 4
    head.PROJECT_FEATURES, head.PROJECT_CHANNELS, head.ASPP_CHANNELS, head.ASPP_DILATIONS = ["a"], [4], 5, [1, 2, 3]
    cfg.INPUT.CROP.ENABLED = False
    return build_sem_seg_head(cfg, {key: SHAPE[key] for key in head.IN_FEATURES}).eval()


@pytest.mark.parametrize("name", ["SemSegFPNHead", "DeepLabV3Head", "DeepLabV3PlusHead"])
def test_heads_of_detectron2_give_the_numbers_of_their_own_forward(name):
    head = build(name)
    features = {"a": torch.randn(2, 6, 8, 12), "b": torch.randn(2, 8, 4, 6)}
    with torch.no_grad():
        expected, _ = head(features)
        scores, factor = class_scores(head, features)
        result = predict(head, features, (32, 48))(1, (30, 45), 33, 51)["sem_seg"]
    assert factor > 1
    assert scores.shape[-2] * factor == 32
    assert torch.equal(result, sem_seg_postprocess(expected[1], (30, 45), 33, 51))


def test_an_unknown_head_is_asked_for_its_own_scores():
    class Doubled(SemSegFPNHead):
        def forward(self, features, targets=None):
            scores, losses = super().forward(features, targets)
            return 2 * scores, losses

    head = Doubled({"a": ShapeSpec(channels=6, stride=4)}, num_classes=3, conv_dims=4, common_stride=4).eval()
    with torch.no_grad():
        scores, factor = class_scores(head, {"a": torch.randn(1, 6, 8, 8)})
    assert factor == 1
    assert scores.shape == (1, 3, 32, 32)


def test_a_head_may_bring_its_own_postprocessing():
    class Head(torch.nn.Module):
        def forward(self, features, targets=None):
            return features["a"] + 1, {}

        def postprocess(self, prediction, index, size, height, width):
            return {"sum": prediction[index].sum(), "size": (size, height, width)}

    result = predict(Head(), {"a": torch.zeros(2, 3)}, (8, 8))(1, (4, 5), 6, 7)
    assert result == {"sum": torch.tensor(3.0), "size": ((4, 5), 6, 7)}


def test_an_unknown_head_computes_in_float32():
    """As PointRend's must, which mixes scores enlarged in float32 with its own in half precision."""

    class Head(SemSegFPNHead):
        def forward(self, features, targets=None):
            assert not torch.is_autocast_enabled("cpu")
            return super().forward(features, targets)

    head = Head({"a": ShapeSpec(channels=6, stride=4)}, num_classes=3, conv_dims=4, common_stride=4).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores, _ = class_scores(head, {"a": torch.randn(1, 6, 8, 8, dtype=torch.bfloat16)})
    assert scores.dtype == torch.float32
