"""Given masks as targets, as in the official code: whole masks, where the package reads label maps at points."""

import torch
from torch import Tensor
from torch.nn import functional as F

from sgr_d2.modeling.mask2former.points import sample_points
from sgr_d2.modeling.mask2former.targets import PointLabels, Targets


class MaskTargets(Targets):
    """Masks with one class each, which may overlap; pixels outside a mask are background, as is the padding."""

    def __init__(self, labels: list[Tensor], masks: list[Tensor], *, size: tuple[int, int], num_classes: int):
        """
        Args:
            labels: B tensors (n_i,) int64, classes 0..K-1.
            masks: B tensors (n_i, H_i, W_i) bool; smaller ones are padded at the bottom and right.
            size: (H, W) of the padded batch of images.
            num_classes: K.
        """
        self._counts = [len(label) for label in labels]
        counts = torch.tensor(self._counts)[:, None]
        self.labels = torch.stack([F.pad(label, (0, max(self._counts) - len(label))) for label in labels])
        self.present = torch.arange(max(self._counts)) < counts
        self.wrong = (self.present & ((self.labels < 0) | (self.labels >= num_classes))).any(1)
        self.known = torch.ones(len(labels), dtype=torch.bool)
        self._starts = counts[:, 0].cumsum(0) - counts[:, 0]
        self._masks = torch.cat(
            [F.pad(mask, (0, size[1] - mask.shape[2], 0, size[0] - mask.shape[1])).float() for mask in masks]
        )  # (sum n_i, H, W)

    def of_images(self, points: Tensor) -> PointLabels:
        values = points.new_zeros(*points.shape[:2], self.labels.shape[1])
        for image, masks in enumerate(self._masks.split(self._counts)):
            values[image, :, : len(masks)] = sample_points(masks[None], points[image, None])[0].T
        return PointLabels(values, None)

    def of_pairs(self, images: Tensor, slots: Tensor, points: Tensor) -> PointLabels:
        masks = self._masks[self._starts[images] + slots]
        return PointLabels(sample_points(masks[:, None], points)[:, 0], None)

    def takes_part(self, images: Tensor, points: Tensor) -> None:
        return None
