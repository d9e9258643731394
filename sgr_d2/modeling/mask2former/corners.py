"""The samples of deformable attention as rows of a table, with bilinear weights.

Shape legend: sample_grid.py; n tokens of one piece. A *row* is one head of one token of one image: token * H + head.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .sample_grid import SampleGrid

# Number of samples whose corners are computed at once: few enough for intermediate results to stay in the cache.
PIECE = 2**16


class Rows(NamedTuple):
    """How the cells of the levels are laid out as rows.

    Attributes:
        shapes: (height, width) of each level in the table, both at least 2.
        num_heads: H; also the offset from a row to that of the cell to the right.
        below: (S,) int32, the offset from a row to that of the cell below.
        first: (S,) int32, the row of the first cell of the level.
        last_x, last_y: (S,) int32, the last column and row of cells that have a right and a lower neighbour.
    """

    shapes: list[tuple[int, int]]
    num_heads: int
    below: Tensor
    first: Tensor
    last_x: Tensor
    last_y: Tensor


class Corners(NamedTuple):
    """What the samples of a piece read; all (n, S).

    Attributes:
        top: int32 row of the upper left corner.
        bottom: int32 row of the lower left corner; right corners are H rows further on.
        x, y: distance from the upper left corner in pixels; outside [0, 1) if the sample is outside the map.
        left, right, upper, lower: bilinear weights along each axis.
        attention: softmax over the L*P samples of a head.
    """

    top: Tensor
    bottom: Tensor
    x: Tensor
    y: Tensor
    left: Tensor
    right: Tensor
    upper: Tensor
    lower: Tensor
    attention: Tensor

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights, times the attention, of the upper left, upper right, lower left and lower right corners."""
        upper, lower = self.upper * self.attention, self.lower * self.attention
        return upper * self.left, upper * self.right, lower * self.left, lower * self.right


def rows_of(grid: SampleGrid, device: torch.device) -> Rows:
    """The rows of a table made by `with_two_cells`."""
    shapes = [(max(height, 2), max(width, 2)) for height, width in grid.shapes]
    heads, sizes = grid.num_heads, [height * width for height, width in shapes]

    def per_sample(values: list[int]) -> Tensor:
        levels = torch.tensor(values, dtype=torch.int32, device=device)
        return levels[None, :, None].expand(heads, -1, grid.num_points).flatten()

    head = torch.arange(heads, dtype=torch.int32, device=device).repeat_interleave(len(shapes) * grid.num_points)
    return Rows(
        shapes=shapes,
        num_heads=heads,
        below=per_sample([width * heads for _, width in shapes]),
        first=per_sample([sum(sizes[:level]) * heads for level in range(len(shapes))]) + head,
        last_x=per_sample([width - 2 for _, width in shapes]),
        last_y=per_sample([height - 2 for height, _ in shapes]),
    )


def with_two_cells(value: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
    """Add a second row or column of zeros to levels that have only one, so that every sample has four corners."""
    if all(min(shape) > 1 for shape in shapes):
        return value
    levels = value.split([height * width for height, width in shapes], dim=1)
    padded = [
        F.pad(level.unflatten(1, shape), (0, 0, 0, int(shape[1] < 2), 0, int(shape[0] < 2))).flatten(1, 2)
        for level, shape in zip(levels, shapes, strict=True)
    ]
    return torch.cat(padded, dim=1)


def pieces(x: Tensor, y: Tensor, logits: Tensor, grid: SampleGrid, rows: Rows) -> Iterator[tuple[slice, Corners]]:
    """The tokens of one image, piece by piece."""
    step = max(PIECE // x.shape[1], 1)
    for start in range(0, len(x), step):
        piece = slice(start, start + step)
        column, distance_x, left, right = _axis(x[piece] + grid.x[piece], rows.last_x)
        row, distance_y, upper, lower = _axis(y[piece] + grid.y[piece], rows.last_y)
        top = row.mul_(rows.below).add_(column.mul_(rows.num_heads)).add_(rows.first)
        attention = _softmax(logits[piece], rows.num_heads)
        yield piece, Corners(top, top + rows.below, distance_x, distance_y, left, right, upper, lower, attention)


def _axis(position: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first of the two neighbouring cells inside the map, the distance from it, and the weights of both.

    A weight is max(0, 1 - |distance|), so it falls to zero outside the map. A NaN position becomes cell 0 with weight
    NaN, rather than a cell outside the table.
    """
    first = torch.minimum(position.int().clamp_(min=0), last)
    distance = position.sub_(first)
    near = distance.abs().clamp_(max=1).neg_().add_(1)
    far = distance.sub(1).abs_().clamp_(max=1).neg_().add_(1)
    return first, distance, near, far


def _softmax(logits: Tensor, num_heads: int) -> Tensor:
    """Softmax over the samples of a head; torch.softmax takes six times as long on so few values."""
    heads = logits.unflatten(1, (num_heads, -1))
    exponentials = (heads - heads.amax(-1, keepdim=True)).exp_()
    return exponentials.div_(exponentials.sum(-1, keepdim=True)).flatten(1)
