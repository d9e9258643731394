"""From a head's output to results at the size of the image file, in bounded memory.

Shape legend: C classes, h x w the head's scores, H x W the result.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from detectron2.projects.deeplab import DeepLabV3Head, DeepLabV3PlusHead
from torch import Tensor, nn
from torch.nn import functional as F

from .deeplab import AnySizeDeepLabV3Head, AnySizeDeepLabV3PlusHead

# Values that a resize may hold in addition to its result: 64 MiB of float32.
CHUNK_VALUES = 2**24

# Detectron2's heads enlarge all classes of the padded batch at once; these functions do everything before that.
SCORES_BEFORE_ENLARGING: dict[type[nn.Module], Callable[[nn.Module, dict[str, Tensor]], Tensor]] = {
    SemSegFPNHead: lambda head, features: head.layers(features),
    DeepLabV3PlusHead: lambda head, features: head.layers(features),
    DeepLabV3Head: lambda head, features: head.predictor(head.aspp(features[head.in_features[0]])),
}
SCORES_BEFORE_ENLARGING[AnySizeDeepLabV3PlusHead] = SCORES_BEFORE_ENLARGING[DeepLabV3PlusHead]
SCORES_BEFORE_ENLARGING[AnySizeDeepLabV3Head] = SCORES_BEFORE_ENLARGING[DeepLabV3Head]


def class_scores(head: nn.Module, features: dict[str, Tensor]) -> tuple[Tensor, int]:
    """The scores (B, C, h, w) of a per-pixel head, and the factor by which they have yet to be enlarged."""
    small = SCORES_BEFORE_ENLARGING.get(type(head))
    if small is not None:
        return small(head, features), head.common_stride
    # in float32: under autocast on a GPU, PointRend's head writes points of one dtype into scores of another
    device = next(iter(features.values())).device
    with torch.autocast(device.type, enabled=False):
        scores, _ = both(head, head({name: feature.float() for name, feature in features.items()}))
    return scores, 1


def both(head: nn.Module, returned: Any) -> tuple[Any, dict]:
    """What a head has returned; ValueError unless it is a prediction and a dict of losses."""
    if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], dict):
        return returned
    kinds = ", ".join(type(part).__name__ for part in returned) if isinstance(returned, tuple) else ""
    raise ValueError(
        f"{type(head).__name__} returned {f'({kinds})' if kinds else type(returned).__name__}: a head returns "
        "(None, losses) in training and (scores, {}) in inference, with losses as a dict."
    )


def resize_scores(scores: Tensor, size: tuple[int, int], height: int, width: int, *, factor: int = 1) -> Tensor:
    """Enlarge, crop to the image and resize, as Detectron2 does, but a few classes at a time.

    Args:
        scores: (C, h, w) of a padded image, of any dtype: enlarged in half precision, many classes would draw level.
        size: (height, width) of the image without its padding.
        height, width: of the result.
        factor: by which to enlarge the scores first.

    Returns:
        (C, height, width) float32. In addition, at most ``CHUNK_VALUES`` values, or one class, are held in memory.
    """
    result = scores.new_empty(len(scores), height, width, dtype=torch.float32)
    enlarged = scores.shape[-2] * scores.shape[-1] * factor**2
    step = max(1, CHUNK_VALUES // max(enlarged + height * width, 1))
    for start in range(0, len(scores), step):
        chunk = scores[None, start : start + step].float()
        if factor > 1:
            chunk = F.interpolate(chunk, scale_factor=factor, mode="bilinear", align_corners=False)
        chunk = chunk[..., : size[0], : size[1]]
        if chunk.shape[-2:] != (height, width):
            chunk = F.interpolate(chunk, size=(height, width), mode="bilinear", align_corners=False)
        result[start : start + step] = chunk[0]
    return result


def predict(head: nn.Module, features: dict[str, Tensor], padded: tuple[int, int]) -> Callable[..., dict]:
    """Run a head in inference.

    A head may define its own ``postprocess(prediction, index, size, height, width)`` that returns the dict of results
    of one image, as `MaskFormerHead` does. Other heads give {"sem_seg": (C, height, width)}.

    Args:
        padded: (height, width) of the batch, which the scores of other heads must have.

    Raises:
        ValueError: if the head returns something else.

    Returns:
        ``(index, size, height, width) -> dict`` with the results of image ``index``, whose size without padding is
        ``size``.
    """
    if hasattr(head, "postprocess"):
        prediction, _ = both(head, head(features))
        return partial(head.postprocess, prediction)
    scores, factor = class_scores(head, features)
    size_of_scores = tuple(cells * factor for cells in scores.shape[-2:])
    if size_of_scores != padded:
        raise ValueError(
            f"{type(head).__name__} gives scores of {size_of_scores[0]}x{size_of_scores[1]} for a batch of "
            f"{padded[0]}x{padded[1]} pixels (with padding): enlarge them to that size in inference, too. "
            "(PointRend does so by 2 ** MODEL.POINT_HEAD.SUBDIVISION_STEPS, which must be its COMMON_STRIDE.)"
        )

    def postprocess(index: int, size: tuple[int, int], height: int, width: int) -> dict:
        return {"sem_seg": resize_scores(scores[index], size, height, width, factor=factor)}

    return postprocess
