"""Masks resized a stripe of rows at a time, so that they never all exist at full size at once.

Shape legend: Q masks of h x w in, H x W out.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

# Values per stripe of all masks: on a CPU 8 MiB of float32, to fit its cache; on a GPU 512 MiB, for fewer calls.
STRIPE_VALUES = 2**21
GPU_STRIPE_VALUES = 2**27


class ResizedMasks:
    """Enlarges masks to the padded image, crops them to the image and optionally resizes them to an output size.

    Equal, up to rounding, to `torch.nn.functional.interpolate` (bilinear, ``align_corners=False``) at each step.
    """

    def __init__(
        self,
        masks: Tensor,
        padded: tuple[int, int],
        size: tuple[int, int],
        output: tuple[int, int] | None = None,
    ):
        """
        Args:
            masks: (Q, h, w) logits of the padded image.
            padded: (height, width) of the padded image. size: of the image without padding.
            output: (height, width) of the result; None for ``size``.
        """
        self.masks = masks.float()
        self.padded = padded
        self.image = size
        self.size = size if output is None else output

    def select(self, queries: Tensor) -> "ResizedMasks":
        """The masks of the given queries (n,)."""
        return ResizedMasks(self.masks[queries], self.padded, self.image, self.size)

    def stripes(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of output rows, top to bottom, and their logits (Q, rows, W); nothing if there are no masks."""
        if not len(self.masks):
            return
        height, width = self.size
        values = STRIPE_VALUES if self.masks.device.type == "cpu" else GPU_STRIPE_VALUES
        # if the output is smaller than the image, a row of it needs several of the image, all at a time
        per_row = max(width, self.image[1] * -(-self.image[0] // height))
        step = max(1, values // (len(self.masks) * per_row))
        for start in range(0, height, step):
            rows = slice(start, min(start + step, height))
            yield rows, self._rows(rows)

    def _rows(self, rows: slice) -> Tensor:
        if self.size == self.image:
            return self._image_rows(rows)
        needed = _source_range(rows, self.size[0], self.image[0])
        return _resize(self._image_rows(needed), rows, needed, self.size, self.image[0])

    def _image_rows(self, rows: slice) -> Tensor:
        """Rows of the enlarged image, (Q, rows, image width)."""
        needed = _source_range(rows, self.padded[0], self.masks.shape[1])
        resized = _resize(self.masks[:, needed], rows, needed, self.padded, self.masks.shape[1])
        return resized[..., : self.image[1]]


def _source_range(rows: slice, length: int, source: int) -> slice:
    """The source rows needed for ``rows`` of a map resized from ``source`` to ``length`` rows, with a margin of one."""
    scale = source / length
    start, stop = int((rows.start + 0.5) * scale - 0.5) - 1, int((rows.stop - 0.5) * scale - 0.5) + 3
    return slice(max(0, start), min(source, stop))


def _resize(masks: Tensor, rows: slice, given: slice, size: tuple[int, int], source: int) -> Tensor:
    """Some rows of a bilinear resize.

    Args:
        masks: (Q, given, w), the rows ``given`` out of ``source``. rows: of the result. size: of the whole result.

    Returns:
        (Q, rows, width).
    """
    if masks.shape[-1] != size[1]:  # columns first, while there are few rows
        masks = F.interpolate(masks[None], size=(masks.shape[1], size[1]), mode="bilinear", align_corners=False)[0]
    if source == size[0]:
        return masks[:, rows.start - given.start : rows.stop - given.start]
    return torch.matmul(_row_weights(rows, given, size[0], source, masks.device), masks)


def _row_weights(rows: slice, given: slice, length: int, source: int, device: torch.device) -> Tensor:
    """(rows, given) float32: the weight of each given source row in each row of the result.

    On a CPU a product with this small matrix is five times faster than gathering two rows and blending them.
    """
    centre = torch.arange(rows.start, rows.stop, device=device, dtype=torch.float32) + 0.5
    centre = (centre * (source / length) - 0.5).clamp(min=0)[:, None]
    first = centre.long().clamp(max=source - 1)
    share = centre - first
    index = torch.cat([first, (first + 1).clamp(max=source - 1)], dim=1) - given.start
    weights = torch.zeros(len(centre), given.stop - given.start, device=device)
    return weights.scatter_add_(1, index, torch.cat([1 - share, share], dim=1))
