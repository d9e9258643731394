"""The targets of the queries, the classes of a label map, which are only read at points.

Shape legend: structures.py. A *slot* is the index of a target in its image; an image with fewer targets than slots
leaves the rest empty.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .points import bilinear_corners

MAX_CLASSES = 2**15 - 2


class PointLabels(NamedTuple):
    """Targets at points.

    Attributes:
        values: bilinear value of the target mask at each point, float32.
        validity: float32 fraction of each point that is not ignored, None if nothing is. Of this fraction, ``values``
            is target and the rest background.
    """

    values: Tensor
    validity: Tensor | None


class Targets(ABC):
    """Targets of a batch.

    Attributes:
        labels: (B, S) int64, the class of each slot; arbitrary in empty slots.
        present: (B, S) bool, False for empty slots.
        wrong: (B,) bool, whether any label of an image is not a class.
        known: (B,) bool, False for images of which nothing is labelled: they have no class losses.
    """

    labels: Tensor
    present: Tensor
    wrong: Tensor
    known: Tensor

    @abstractmethod
    def of_images(self, points: Tensor) -> PointLabels:
        """All targets at the points (B, P, 2) of their image: values (B, P, S), validity (B, P) or None."""

    @abstractmethod
    def of_pairs(self, images: Tensor, slots: Tensor, points: Tensor) -> PointLabels:
        """The target in slot (N,) of image (N,) at points (N, P, 2): values (N, P), validity (N, P) or None."""

    @abstractmethod
    def takes_part(self, images: Tensor, points: Tensor) -> Tensor | None:
        """(N, P) bool, False where the pixel at a point (N, P, 2) of images (N,) is ignored; None if none is."""


class LabelMapTargets(Targets):
    """Each class present in a label map is one target (Mask2Former's semantic training).

    No masks are made: the value of a class at a point is computed from the four labels around it.
    """

    def __init__(
        self,
        label_map: Tensor,
        *,
        num_classes: int,
        ignore_value: int = 255,
        ignore_as_background: bool = False,
        compact: bool | None = None,
    ):
        """
        Args:
            label_map: (B, H, W) integer classes 0..K-1 or ``ignore_value`` (also in the padding).
            num_classes: K.
            ignore_as_background: if True, ignored pixels count as background of every target, as in Mask2Former's
                code; if False, they are left out.
            compact: slots only for the classes present (needs a device sync), or for all K. Default: compact on the
                CPU, where no sync is needed.

        Raises:
            ValueError: for a label map of another shape, or more classes than int16 can hold.
        """
        if label_map.dim() != 3:
            raise ValueError(f"The label map has shape {tuple(label_map.shape)}; (B, H, W) is needed.")
        if num_classes > MAX_CLASSES:
            raise ValueError(f"NUM_CLASSES = {num_classes}: at most {MAX_CLASSES}.")
        ignored = label_map == ignore_value
        outside = ~ignored & ((label_map < 0) | (label_map >= num_classes))
        self.wrong = outside.flatten(1).any(1)
        classes = torch.where(ignored | outside, num_classes, label_map).long()
        batch, self.height, self.width = classes.shape
        seen = classes.new_zeros(batch, num_classes + 1, dtype=torch.bool).scatter_(1, classes.flatten(1), True)
        shown = seen[:, :num_classes]
        self.known = shown.any(1) | ignore_as_background
        compact = label_map.device.type == "cpu" if compact is None else compact
        slot_of, self.labels, self.present = _compact_slots(shown) if compact else _all_slots(shown)
        num_slots = self.labels.shape[1]
        # two more values in the map: ignored, and background (also used outside the image)
        slot_of = F.pad(slot_of, (0, 1), value=num_slots + ignore_as_background)
        slots = slot_of.gather(1, classes.flatten(1)).view_as(classes)
        self._slots = _with_border(slots.to(torch.int16), num_slots)  # (B, H+2, W+2)
        nothing_ignored = ignore_as_background or (compact and not bool(seen[:, num_classes].any()))
        self._all_take_part = nothing_ignored

    def of_images(self, points: Tensor) -> PointLabels:
        images = torch.arange(len(points), device=points.device)
        corners, x, y = self._corners(images, points)
        both = x * y
        weights = torch.stack([1 - x - y + both, x - both, y - both, both], dim=-1)
        num_slots = self.labels.shape[1]
        table = points.new_zeros(*points.shape[:2], num_slots + 2)
        table.scatter_add_(2, torch.stack(corners, dim=-1).long(), weights)
        validity = None if self._all_take_part else 1 - table[..., num_slots]
        return PointLabels(table[..., :num_slots], validity)

    def of_pairs(self, images: Tensor, slots: Tensor, points: Tensor) -> PointLabels:
        corners, x, y = self._corners(images, points)
        values = _interpolate([corner == slots[:, None] for corner in corners], x, y)
        if self._all_take_part:
            return PointLabels(values, None)
        ignored = self.labels.shape[1]
        return PointLabels(values, _interpolate([corner != ignored for corner in corners], x, y))

    def takes_part(self, images: Tensor, points: Tensor) -> Tensor | None:
        if self._all_take_part:
            return None
        # the map has a border, so a point may be rounded onto it
        column, row = (points[..., 0] * self.width).int(), (points[..., 1] * self.height).int()
        index = (row + 1) * (self.width + 2) + column + 1 + self._offset(images)
        return self._read(index) != self.labels.shape[1]

    def _corners(self, images: Tensor, points: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Slots of the four pixels around points (N, P, 2): four int16 (N, P), and weights of right and lower ones."""
        index, x, y = bilinear_corners(points, self.height, self.width)
        index += self._offset(images)
        row = self.width + 2
        return [self._read(index + step) for step in (0, 1, row, row + 1)], x, y

    def _read(self, index: Tensor) -> Tensor:
        return self._slots.view(-1).index_select(0, index.flatten()).view_as(index)

    def _offset(self, images: Tensor) -> Tensor:
        return (images[:, None] * self._slots[0].numel()).int()


def _compact_slots(shown: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, K) bool -> slot of each class (B, K), class of each slot (B, S), whether a slot is filled (B, S)."""
    counts = shown.sum(1)
    labels = shown.long().argsort(dim=1, descending=True, stable=True)[:, : int(counts.max())]
    present = torch.arange(labels.shape[1], device=shown.device) < counts[:, None]
    return shown.long().cumsum(1) - 1, labels, present


def _all_slots(shown: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    classes = torch.arange(shown.shape[1], device=shown.device).expand_as(shown)
    return classes, classes, shown


def _with_border(slots: Tensor, ignored: int) -> Tensor:
    """(B, H, W) -> (B, H+2, W+2); the border is background (``ignored + 1``), or ignored next to an ignored pixel."""
    slots = F.pad(slots, (1, 1, 1, 1), value=ignored + 1)
    for side, beside in ((slots[:, 0], slots[:, 1]), (slots[:, -1], slots[:, -2])):
        side.masked_fill_(beside == ignored, ignored)
    for side, beside in ((slots[..., 0], slots[..., 1]), (slots[..., -1], slots[..., -2])):
        side.masked_fill_(beside == ignored, ignored)
    return slots


def _interpolate(corners: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Bilinear interpolation of four bool maps: upper left, upper right, lower left, lower right."""
    upper_left, upper_right, lower_left, lower_right = (corner.float() for corner in corners)
    return upper_left.lerp_(upper_right, x).lerp_(lower_left.lerp_(lower_right, x), y)
