"""The matching of queries to targets (Mask2Former, section 3.2.3, after DETR). Shape legend: structures.py."""

import logging
from typing import NamedTuple

import numpy as np
import torch
from detectron2.utils.events import get_event_storage, has_event_storage
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from sgr_d2.messages import first_few
from sgr_d2.modeling.image_names import image_name
from sgr_d2.modeling.padding import copy_to

from .points import PointSource, sample_pixels
from .structures import QueryPrediction
from .targets import PointLabels, Targets

logger = logging.getLogger(__name__)

# Replaces a cost that is NaN or infinite, so that such a pair is matched only if nothing else is left.
NONFINITE_COST = 1e6


class Matching(NamedTuple):
    """Matched pairs; an image has the same number of them in every layer: min(Q, its targets).

    Attributes:
        queries: B tensors (layers, n_i) int64, ascending in each row.
        slots: B tensors (layers, n_i) int64.
        num_targets: number of targets of each image, including those beyond Q.
    """

    queries: list[Tensor]
    slots: list[Tensor]
    num_targets: list[int]


class HungarianMatcher:
    """Matches queries to targets at minimum total cost, for all layers and images with one copy to the host.

    Invariant: in each layer no query or target of an image is in two pairs, and there are min(Q, targets) pairs.
    """

    def __init__(self, *, class_weight: float, mask_weight: float, dice_weight: float, num_points: int):
        """
        Args:
            class_weight, mask_weight, dice_weight: weights of the three costs.
            num_points: P, points per image and layer at which masks are compared.
        """
        self.class_weight = class_weight
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.num_points = num_points

    @torch.no_grad()
    def __call__(self, prediction: QueryPrediction, targets: Targets, source: PointSource) -> Matching:
        """
        Args:
            prediction: of any number of layers. targets: of the same images. source: of the random points.

        Raises:
            ValueError: if a label is neither a class nor the ignore value.
        """
        costs, present, wrong = _to_host(self.costs(prediction, targets, source), targets.present, targets.wrong)
        if wrong.any():
            names = first_few([image_name(int(index)) for index in np.flatnonzero(wrong)], 3)
            raise ValueError(
                f"{names}: a target has a label outside 0..{prediction.class_logits.shape[-1] - 2} that is not the "
                "ignore value either. Check the label files and MODEL.SEM_SEG_HEAD.IGNORE_VALUE."
            )
        _report_nonfinite(costs, present)
        costs = np.nan_to_num(costs, nan=NONFINITE_COST, posinf=NONFINITE_COST, neginf=NONFINITE_COST)
        filled = [np.flatnonzero(row) for row in present]
        pairs = [[_assign(layer[image], slots) for layer in costs] for image, slots in enumerate(filled)]
        return _to_device(pairs, [len(slots) for slots in filled], prediction.class_logits.device)

    def costs(self, prediction: QueryPrediction, targets: Targets, source: PointSource) -> Tensor:
        """(layers, B, Q, S) float32; the values of empty slots are meaningless."""
        logits, embeddings, features = prediction
        layers, batch, device = len(logits), logits.shape[1], logits.device
        result = []
        with torch.autocast(device.type, enabled=False):
            # convert to channels-last once, not at every sampling
            features = features.float().contiguous(memory_format=torch.channels_last)
            for layer in final_first(layers):
                points = source("matcher", layer, (batch, self.num_points), device)
                pixels = sample_pixels(features, points)  # (B, P, M)
                masks = torch.bmm(embeddings[layer].float(), pixels.transpose(1, 2))  # (B, Q, P)
                labels = targets.labels[:, None].expand(-1, masks.shape[1], -1).clamp(0, logits.shape[-1] - 1)
                by_class = -logits[layer].float().softmax(-1).gather(2, labels)
                by_mask, by_dice = mask_costs(masks, targets.of_images(points))
                cost = self.mask_weight * by_mask + self.class_weight * by_class + self.dice_weight * by_dice
                result.append(cost)
        return torch.stack(result[1:] + result[:1])


def mask_costs(logits: Tensor, target: PointLabels) -> tuple[Tensor, Tensor]:
    """Binary cross entropy and dice costs of every query with every target.

    Args:
        logits: (B, Q, P) float32. target: values (B, P, S), validity (B, P) or None.

    Returns:
        Two (B, Q, S): mean over the points of softplus(x) - x t; 1 - (2 sum s t + 1) / (sum s + sum t + 1).
    """
    values, validity = target
    probs = logits.sigmoid()
    crossed = torch.bmm(logits, values)
    both = torch.bmm(probs, values)
    outside = F.softplus(logits)
    if validity is None:
        outside, sizes, count = outside.sum(-1, keepdim=True), probs.sum(-1, keepdim=True), logits.shape[-1]
    else:
        column = validity[..., None]  # (B, P, 1)
        outside, sizes = torch.bmm(outside, column), torch.bmm(probs, column)
        count = column.sum(1, keepdim=True).clamp(min=1)
    by_mask = (outside - crossed) / count
    by_dice = 1 - (2 * both + 1) / (sizes + values.sum(1, keepdim=True) + 1)
    return by_mask, by_dice


def final_first(layers: int) -> list[int]:
    """The order in which Mask2Former's criterion visits the layers."""
    return [layers - 1, *range(layers - 1)]


def _to_host(costs: Tensor, present: Tensor, wrong: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Copy everything from the device at once."""
    parts = (costs, present, wrong)
    flat = torch.cat([part.flatten().float() for part in parts]).cpu().numpy()
    ends = np.cumsum([part.numel() for part in parts])
    return (
        flat[: ends[0]].reshape(costs.shape),
        flat[ends[0] : ends[1]].reshape(present.shape).astype(bool),
        flat[ends[1] :] > 0.5,
    )


def _assign(cost: np.ndarray, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Q, S) costs and the filled slots -> matched queries in ascending order, and their slots."""
    queries, columns = linear_sum_assignment(cost[:, slots])
    return queries, slots[columns]


def _to_device(pairs: list[list[tuple]], num_targets: list[int], device: torch.device) -> Matching:
    """Turn pairs[image][layer] = (queries, slots) into tensors, with one copy to the device."""
    stacked = [np.stack([np.stack(pair) for pair in layers], axis=1) for layers in pairs]  # (2, layers, n_i)
    flat = torch.from_numpy(np.concatenate([part.reshape(-1) for part in stacked]).astype(np.int64))
    parts = copy_to(flat, device).split([part.size for part in stacked])
    both = [part.view(array.shape) for part, array in zip(parts, stacked, strict=True)]
    return Matching([part[0] for part in both], [part[1] for part in both], num_targets)


def _report_nonfinite(costs: np.ndarray, present: np.ndarray) -> None:
    bad = ~np.isfinite(costs) & present[None, :, None]  # (layers, B, Q, S)
    count = int(bad.sum())
    if has_event_storage():
        get_event_storage().put_scalar("mask_former/nonfinite_costs", count, smoothing_hint=False)
    if count:
        names = ", ".join(image_name(int(index)) for index in np.flatnonzero(bad.any(axis=(0, 2, 3))))
        logger.warning(
            "%d of the matching costs are not finite, in %s: the network's output overflows or has diverged. Such "
            "pairs are matched last.",
            count,
            names,
        )
