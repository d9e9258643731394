"""Losses of the Mask2Former head (Mask2Former, section 3.2.3; PointRend's uncertain points). Shapes: structures.py."""

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from torch.nn import functional as F

from sgr_d2.modeling.padding import copy_to
from sgr_d2.modeling.ranks import mean_over_ranks

from .matcher import HungarianMatcher, Matching, final_first
from .points import PointSource, random_points, sample_points
from .structures import QueryPrediction
from .targets import PointLabels, Targets


class SetCriterion(nn.Module):
    """Matches queries to targets and returns the three named, weighted losses of each layer."""

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        no_object_weight: float = 0.1,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
        deep_supervision: bool = True,
        source: PointSource = random_points,
    ):
        """
        Args:
            num_classes: K.
            class_weight, mask_weight, dice_weight: weights of the losses and of the matching costs.
            no_object_weight: weight of the class "no object" in the cross entropy.
            num_points: P, points per mask.
            oversample_ratio: candidates per point, of which the least certain are chosen; at least 1.
            importance_sample_ratio: fraction of the points chosen that way, in [0, 1]; the others are random.
            deep_supervision: whether every layer gets losses, or only the last.
            source: of the random points.

        Raises:
            ValueError: if a value is out of range.
        """
        super().__init__()
        _check(class_weight, mask_weight, dice_weight, no_object_weight)
        _check_points(num_points, oversample_ratio, importance_sample_ratio)
        self.matcher = HungarianMatcher(
            class_weight=class_weight, mask_weight=mask_weight, dice_weight=dice_weight, num_points=num_points
        )
        self.weights = {"loss_ce": class_weight, "loss_mask": mask_weight, "loss_dice": dice_weight}
        self.num_points = num_points
        self.num_candidates = int(num_points * oversample_ratio)
        self.num_uncertain = int(num_points * importance_sample_ratio)
        self.deep_supervision = deep_supervision
        self.source = source
        class_weights = torch.ones(num_classes + 1)
        class_weights[-1] = no_object_weight
        self.register_buffer("empty_weight", class_weights, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        mask = cfg.MODEL.MASK_FORMER
        return {
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "class_weight": mask.CLASS_WEIGHT,
            "mask_weight": mask.MASK_WEIGHT,
            "dice_weight": mask.DICE_WEIGHT,
            "no_object_weight": mask.NO_OBJECT_WEIGHT,
            "num_points": mask.TRAIN_NUM_POINTS,
            "oversample_ratio": mask.OVERSAMPLE_RATIO,
            "importance_sample_ratio": mask.IMPORTANCE_SAMPLE_RATIO,
            "deep_supervision": mask.DEEP_SUPERVISION,
        }

    def forward(self, prediction: QueryPrediction, targets: Targets) -> dict[str, Tensor]:
        """
        Returns:
            {"loss_ce", "loss_mask", "loss_dice"} of the last layer and, with deep supervision, the same with suffix
            "_0", "_1", ... of the others; weighted float32 scalars. Without a target the mask losses are zero but
            still give every parameter a gradient.
        """
        if not self.deep_supervision:
            prediction = prediction.last()
        with torch.autocast(prediction.class_logits.device.type, enabled=False):
            matching = self.matcher(prediction, targets, self.source)
            by_class = class_losses(prediction.class_logits, targets, matching, self.empty_weight)
            by_class = by_class / mean_over_ranks(targets.known.any(), by_class.device)  # of those that know an image
            by_mask, by_dice = self.mask_losses(prediction, targets, matching)
        losses = {}
        for name, values in zip(self.weights, (by_class, by_mask, by_dice), strict=True):
            for layer, value in enumerate(values.unbind()):
                suffix = "" if layer == len(values) - 1 else f"_{layer}"
                losses[name + suffix] = self.weights[name] * value
        return losses

    def mask_losses(self, prediction: QueryPrediction, targets: Targets, matching: Matching) -> tuple[Tensor, Tensor]:
        """Binary cross entropy and dice loss, each (layers,): sum over the pairs divided by the number of targets."""
        device = prediction.class_logits.device
        # a collective call: processes whose images have no target must take part too
        # at least 1, as published: it scales the losses down if there is less than one target per process
        normaliser = mean_over_ranks(sum(matching.num_targets), device).clamp(min=1)
        layers = len(prediction.class_logits)
        counts = [queries.shape[1] for queries in matching.queries]
        if not sum(counts):
            zero = 0.0 * (prediction.mask_embeddings.float().sum() + prediction.mask_features.float().sum())
            return zero.expand(layers), zero.expand(layers)
        images = copy_to(torch.tensor([i for i, count in enumerate(counts) for _ in range(count)]), device)
        maps = matched_masks(prediction, matching)
        losses = {}
        for layer in final_first(layers):
            slots = torch.cat([slots[layer] for slots in matching.slots])
            points = self.choose_points(maps[layer].detach(), targets, images, layer)
            logits = sample_points(maps[layer][:, None], points)[:, 0]  # (N, P)
            losses[layer] = point_losses(logits, targets.of_pairs(images, slots, points))
        by_mask, by_dice = (torch.stack(values) for values in zip(*(losses[i] for i in range(layers)), strict=True))
        return by_mask / normaliser, by_dice / normaliser

    @torch.no_grad()
    def choose_points(self, maps: Tensor, targets: Targets, images: Tensor, layer: int) -> Tensor:
        """Choose the least certain of many candidate points, and add random ones.

        Args:
            maps: (N, h, w) mask logits. images: (N,) image index of each.

        Returns:
            (N, P, 2).
        """
        num_pairs = len(maps)
        if not self.num_uncertain:
            return self.source("rest", layer, (num_pairs, self.num_points), maps.device)
        candidates = self.source("candidates", layer, (num_pairs, self.num_candidates), maps.device)
        certainty = sample_points(maps[:, None], candidates)[:, 0].abs_()
        takes_part = targets.takes_part(images, candidates)
        if takes_part is not None:
            certainty.masked_fill_(~takes_part, torch.inf)
        index = certainty.topk(self.num_uncertain, dim=1, largest=False, sorted=False).indices
        points = candidates.gather(1, index[..., None].expand(-1, -1, 2))
        if self.num_uncertain == self.num_points:
            return points
        rest = (num_pairs, self.num_points - self.num_uncertain)
        return torch.cat([points, self.source("rest", layer, rest, maps.device)], dim=1)


def class_losses(logits: Tensor, targets: Targets, matching: Matching, weight: Tensor) -> Tensor:
    """Cross entropy of each layer over all queries; those without a target should predict "no object".

    Args:
        logits: (layers, B, Q, K+1). targets: of the same images, of which those that are not ``known`` do not count.
        weight: (K+1,).

    Returns:
        (layers,): sum of weight * nll over the sum of the weights; 0 if no image counts.
    """
    classes = torch.full(logits.shape[:3], logits.shape[3] - 1, device=logits.device)  # (layers, B, Q)
    for image, (queries, slots) in enumerate(zip(matching.queries, matching.slots, strict=True)):
        classes[:, image].scatter_(1, queries, targets.labels[image][slots])
    each = F.cross_entropy(logits.float().flatten(0, 2), classes.flatten(), weight, reduction="none").view_as(classes)
    counts = targets.known[:, None].float()
    return (each * counts).flatten(1).sum(1) / (weight[classes] * counts).flatten(1).sum(1).clamp(min=1e-6)


def matched_masks(prediction: QueryPrediction, matching: Matching) -> list[Tensor]:
    """Mask logits of the matched queries only: for each layer (N, h, w) float32, ordered by image.

    All layers of an image are computed in one product, so the gradient of the mask features is a single product too.
    """
    layers = len(prediction.class_logits)
    height, width = prediction.mask_features.shape[-2:]
    parts: list[list[Tensor]] = [[] for _ in range(layers)]
    embeddings, features = prediction.mask_embeddings.float().unbind(1), prediction.mask_features.float().unbind(0)
    for embedding, pixels, queries in zip(embeddings, features, matching.queries, strict=True):
        index = queries[..., None].expand(-1, -1, embedding.shape[-1])
        matched = embedding.gather(1, index)  # (layers, n_i, M)
        masks = matched.flatten(0, 1) @ pixels.flatten(1)  # (layers * n_i, h*w)
        for layer, mask in enumerate(masks.view(layers, -1, height, width).unbind()):
            parts[layer].append(mask)
    return [torch.cat(part) for part in parts]


def point_losses(logits: Tensor, target: PointLabels) -> tuple[Tensor, Tensor]:
    """Mean binary cross entropy and dice loss over the points that are not ignored, each summed over the pairs.

    Args:
        logits: (N, P) float32. target: values and validity (N, P); cross entropy is softplus(x) v - x t.
    """
    values, validity = target
    probs, outside = logits.sigmoid(), F.softplus(logits)
    if validity is None:
        count, sizes = logits.shape[1], probs.sum(1)
    else:
        outside, count, sizes = outside * validity, validity.sum(1).clamp(min=1), (probs * validity).sum(1)
    by_mask = (outside - logits * values).sum(1) / count
    by_dice = 1 - (2 * (probs * values).sum(1) + 1) / (sizes + values.sum(1) + 1)
    return by_mask.sum(), by_dice.sum()


def _check(*weights: float) -> None:
    names = ("CLASS_WEIGHT", "MASK_WEIGHT", "DICE_WEIGHT", "NO_OBJECT_WEIGHT")
    for key, value in zip(names, weights, strict=True):
        if value < 0:
            raise ValueError(f"MODEL.MASK_FORMER.{key} = {value}: a weight must not be negative.")


def _check_points(num_points: int, oversample_ratio: float, importance_sample_ratio: float) -> None:
    if num_points < 1:
        raise ValueError(f"MODEL.MASK_FORMER.TRAIN_NUM_POINTS = {num_points}: must be at least 1.")
    if oversample_ratio < 1:
        raise ValueError(f"MODEL.MASK_FORMER.OVERSAMPLE_RATIO = {oversample_ratio}: must be at least 1.")
    if not 0 <= importance_sample_ratio <= 1:
        raise ValueError(f"MODEL.MASK_FORMER.IMPORTANCE_SAMPLE_RATIO = {importance_sample_ratio}: must lie in [0, 1].")
