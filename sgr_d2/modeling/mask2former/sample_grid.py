"""The reference points of deformable attention, from which the offsets of samples are counted.

Shape legend, also for the files that use it: B batch, T tokens (the cells of all levels, level after level, row-major),
H heads, L levels, P points, S = H*L*P samples of a token, in this order, C channels, d = C/H channels of a head.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class SampleGrid(NamedTuple):
    """The levels and, for every token and sample, the token's own centre.

    Attributes:
        shapes: (height, width) of each level.
        num_heads: H. num_points: P.
        x, y: (T, S) float32, in pixels of the sampled level; 0 is the centre of the first cell.
    """

    shapes: list[tuple[int, int]]
    num_heads: int
    num_points: int
    x: Tensor
    y: Tensor


def sample_grid(
    shapes: list[tuple[int, int]], *, num_heads: int, num_points: int, device: torch.device | None = None
) -> SampleGrid:
    """The SampleGrid of maps with the given (height, width)."""

    def centres(axis: int) -> Tensor:
        parts = []
        for shape in shapes:
            own = torch.arange(shape[axis], dtype=torch.float32, device=device) + 0.5
            own = own[:, None].expand(shape) if axis == 0 else own.expand(shape)
            scales = [other[axis] / shape[axis] for other in shapes]
            parts.append(torch.stack([own.flatten() * scale - 0.5 for scale in scales], dim=-1))
        centre = torch.cat(parts)  # (T, L)
        return centre[:, None, :, None].expand(-1, num_heads, -1, num_points).flatten(1)

    return SampleGrid(shapes, num_heads, num_points, centres(1), centres(0))
