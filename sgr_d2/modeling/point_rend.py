"""Detectron2's PointRend head for sparse labels and points of several levels (PointRend, arXiv 1912.08193)."""

import torch
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.projects.point_rend.point_features import (
    get_uncertain_point_coords_on_grid,
    get_uncertain_point_coords_with_randomness,
    point_sample,
)
from detectron2.projects.point_rend.semantic_seg import PointRendSemSegHead, calculate_uncertainty
from torch import Tensor
from torch.nn import functional as F


@SEM_SEG_HEADS_REGISTRY.register()
class SparsePointRendSemSegHead(PointRendSemSegHead):
    """`PointRendSemSegHead` whose loss is finite wherever its points fall, for any MODEL.POINT_HEAD.IN_FEATURES.

    The loss of Detectron2's own head is NaN if none of the sampled points is labelled, and the head concatenates the
    points of several levels as if they were images. Otherwise results are the same, and so is the state dict.
    """

    def forward(self, features: dict[str, Tensor], targets: Tensor | None = None) -> tuple[Tensor | None, dict]:
        """
        Args:
            features: {name: (B, C_l, H_l, W_l)}.
            targets: (B, H, W) int64, in training.

        Returns:
            In training None and the losses, else scores (B, C, h, w), doubled in size by each subdivision, and {}.
        """
        coarse = self.coarse_sem_seg_head.layers(features)
        if not self.training:
            return self._subdivide(features, coarse), {}
        losses = self.coarse_sem_seg_head.losses(coarse, targets)
        losses["loss_sem_seg_point"] = self._point_loss(features, coarse, targets)
        return None, losses

    def _point_loss(self, features: dict[str, Tensor], coarse: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            points = get_uncertain_point_coords_with_randomness(
                coarse,
                calculate_uncertainty,
                self.train_num_points,
                self.oversample_ratio,
                self.importance_sample_ratio,
            )
        labels = point_sample(targets[:, None].float(), points, mode="nearest", align_corners=False)[:, 0].long()
        logits = self._point_logits(features, coarse, points)
        loss = F.cross_entropy(logits, labels, reduction="sum", ignore_index=self.ignore_value)
        return loss / (labels != self.ignore_value).sum().clamp(min=1)

    def _subdivide(self, features: dict[str, Tensor], coarse: Tensor) -> Tensor:
        scores = coarse
        for _ in range(self.subdivision_steps):
            scores = F.interpolate(scores, scale_factor=2, mode="bilinear", align_corners=False)
            index, points = get_uncertain_point_coords_on_grid(
                calculate_uncertainty(scores), self.subdivision_num_points
            )
            logits = self._point_logits(features, coarse, points)
            index = index[:, None].expand(-1, scores.shape[1], -1)
            scores = scores.flatten(2).scatter(2, index, logits.to(scores.dtype)).view_as(scores)
        return scores

    def _point_logits(self, features: dict[str, Tensor], coarse: Tensor, points: Tensor) -> Tensor:
        """Points (B, P, 2) -> logits (B, C, P)."""
        fine = [point_sample(features[name], points, align_corners=False) for name in self.in_features]
        return self.point_head(torch.cat(fine, dim=1), point_sample(coarse, points, align_corners=False))
