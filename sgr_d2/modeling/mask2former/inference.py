"""From queries to semantic scores, instances and panoptic segments, as in Mask2Former. Shape legend: structures.py.

`masks` is always a `ResizedMasks`: logits of the Q queries, read in stripes of rows.
"""

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from .stripes import ResizedMasks


@torch.no_grad()
def semantic_scores(class_logits: Tensor, masks: ResizedMasks) -> Tensor:
    """The sum over the queries of P(class) * P(mask).

    Args:
        class_logits: (Q, K+1).

    Returns:
        (K, H, W) float32.
    """
    by_class = class_logits.float().softmax(-1)[:, :-1].T.contiguous()  # (K, Q)
    scores = by_class.new_empty(len(by_class), *masks.size)
    for rows, logits in masks.stripes():
        probs = logits.sigmoid().flatten(1)  # (Q, rows * W); stripes may be views of the masks
        torch.mm(by_class, probs, out=scores[:, rows].flatten(1))
    return scores


def instances(
    class_logits: Tensor, masks: ResizedMasks, *, max_instances: int, classes: set[int] | None = None
) -> Instances:
    """The most probable (query, class) pairs as instances.

    Args:
        class_logits: (Q, K+1).
        max_instances: maximum number of instances.
        classes: keep only these classes (the things, if panoptic output is on), None for all.

    Returns:
        Instances with pred_classes, scores (class probability times mean mask probability inside the mask),
        pred_masks (n, H, W) bool and pred_boxes, in descending order of score.
    """
    by_class = class_logits.float().softmax(-1)[:, :-1]  # (Q, K)
    num_classes = by_class.shape[1]
    probs, index = by_class.flatten().topk(min(max_instances, by_class.numel()))
    labels, queries = index % num_classes, index // num_classes
    if classes is not None:
        kept = torch.isin(labels, torch.tensor(sorted(classes), device=labels.device, dtype=labels.dtype))
        probs, labels, queries = probs[kept], labels[kept], queries[kept]
    chosen, of_chosen = queries.unique(return_inverse=True)
    inside, mean_probs = _binary_masks(masks, chosen)
    scores, order = (probs * mean_probs[of_chosen]).sort(descending=True, stable=True)
    of_chosen = of_chosen[order]
    result = Instances(masks.size)
    result.pred_classes = labels[order]
    result.scores = scores
    result.pred_masks = inside[of_chosen]
    result.pred_boxes = Boxes(mask_boxes(inside)[of_chosen])
    return result


def mask_boxes(masks: Tensor) -> Tensor:
    """The boxes of masks, as `BitMasks.get_bounding_boxes` gives them, but without its six GPU syncs per mask.

    Args:
        masks: (n, H, W) bool.

    Returns:
        (n, 4) float32 x0, y0, x1, y1, the last two exclusive; zeros for an empty mask.
    """
    (x0, x1), (y0, y1) = _span(masks.any(1)), _span(masks.any(2))
    return torch.stack([x0, y0, x1, y1], dim=1).float()


def _span(inside: Tensor) -> tuple[Tensor, Tensor]:
    """The first index (n,) where ``inside`` (n, L) is True, and the last one plus 1; zeros if there is none."""
    length = inside.shape[1]
    places = torch.arange(length, device=inside.device)
    last = torch.where(inside, places + 1, 0).amax(1)
    return torch.where(inside, places, length).amin(1).minimum(last), last


def panoptic_segments(
    class_logits: Tensor,
    masks: ResizedMasks,
    *,
    thing_classes: set[int],
    object_threshold: float,
    overlap_threshold: float,
) -> tuple[Tensor, list[dict]]:
    """Assign every pixel to one segment, or to none (0).

    Args:
        class_logits: (Q, K+1).
        thing_classes: classes whose queries are separate segments; for other classes they are merged into one.
        object_threshold: queries whose most probable class does not exceed this probability are dropped.
        overlap_threshold: queries that keep a smaller fraction of their mask than this are dropped.

    Returns:
        (H, W) int32 ids from 1, and [{"id", "isthing", "category_id"}] in Detectron2's panoptic format.
    """
    scores, labels = class_logits.float().softmax(-1).max(-1)
    kept = ((labels != class_logits.shape[1] - 1) & (scores > object_threshold)).nonzero()[:, 0]
    owner, areas = _compete(masks, scores, kept)
    ids, segments = _number_segments(areas, labels[kept].tolist(), thing_classes, overlap_threshold)
    table = torch.tensor([*ids, 0], dtype=torch.int32, device=owner.device)
    return table[owner.long()], segments


def _binary_masks(masks: ResizedMasks, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (n, H, W) bool of some queries, and the mean probability inside each."""
    subset = masks.select(queries)
    inside = torch.empty(len(queries), *masks.size, dtype=torch.bool, device=queries.device)
    total = torch.zeros(len(queries), device=queries.device)
    for rows, logits in subset.stripes():
        inside[:, rows] = logits > 0
        total += (logits.sigmoid() * inside[:, rows]).sum((1, 2))
    return inside, total / (inside.sum((1, 2)) + 1e-6)


def _compete(masks: ResizedMasks, scores: Tensor, kept: Tensor) -> tuple[Tensor, np.ndarray]:
    """Which query owns each pixel, and the areas that decide which queries are kept.

    Returns:
        owner: (H, W) int16, index into ``kept``, or n if the winning query's own mask does not cover the pixel.
        areas: (3, n) on the host: pixels won, pixels of the mask, pixels of both.
    """
    num = len(kept)
    owner = torch.full(masks.size, num, dtype=torch.int16, device=kept.device)
    areas = torch.zeros(3, num, dtype=torch.int64, device=kept.device)
    weights = scores[kept, None, None]
    for rows, logits in masks.select(kept).stripes():
        probs = logits.sigmoid()
        winner = (weights * probs).argmax(0, keepdim=True)  # (1, rows, W)
        covered = probs >= 0.5
        own = covered.gather(0, winner)
        areas[1] += covered.sum((1, 2))
        ones = torch.stack([torch.ones_like(own), own]).flatten(1).long()
        areas[::2].scatter_add_(1, winner.flatten().expand(2, -1), ones)
        owner[rows] = torch.where(own, winner, num)[0].to(torch.int16)
    return owner, areas.cpu().numpy()


def _number_segments(
    areas: np.ndarray, labels: list[int], thing_classes: set[int], overlap_threshold: float
) -> tuple[list[int], list[dict]]:
    """The segment id of each kept query (0 if dropped), and the segments."""
    ids, segments, stuff = [], [], {}
    for (won, original, both), label in zip(areas.T.tolist(), labels, strict=True):
        is_thing = label in thing_classes
        if not (won and original and both) or won / original < overlap_threshold:
            ids.append(0)
        elif not is_thing and label in stuff:
            ids.append(stuff[label])
        else:
            segments.append({"id": len(segments) + 1, "isthing": is_thing, "category_id": label})
            ids.append(len(segments))
            if not is_thing:
                stuff[label] = len(segments)
    return ids, segments
