"""Sampling of deformable attention, in one of two equivalent ways. Shape legend: sample_grid.py."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .bag_sampling import sample_by_bags
from .sample_grid import SampleGrid


def sample(value: Tensor, x: Tensor, y: Tensor, logits: Tensor, grid: SampleGrid) -> Tensor:
    """Multi-scale deformable attention without its projections, in float32 even under autocast.

    Args:
        value: (B, T, C) the tokens; head i owns the channels [i*d, (i+1)*d).
        x, y: (B, T, S) offsets from the token's centre, in pixels of the sampled level.
        logits: (B, T, S) of the attention; softmax runs over the L*P samples of a head.
        grid: of the levels.

    Returns:
        (B, T, C): for each head the weighted sum of its samples, which are bilinear and zero outside the map.

    Source: Deformable DETR (Zhu et al. 2021), equation 3.
    """
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    function = sample_by_bags if value.device.type == "cpu" and not traced else sample_by_grid
    with torch.autocast(value.device.type, enabled=False):
        tensors = [t if t.dtype == torch.float64 else t.float() for t in (value, x, y, logits)]
        return function(*tensors, grid)


def sample_by_grid(value: Tensor, x: Tensor, y: Tensor, logits: Tensor, grid: SampleGrid) -> Tensor:
    """`sample` with `grid_sample`, level by level: for devices where that is fast, and for export."""
    heads, levels, points = grid.num_heads, len(grid.shapes), grid.num_points
    batch, tokens, channels = value.shape
    maps = value.split([height * width for height, width in grid.shapes], dim=1)
    weights = logits.unflatten(2, (heads, levels * points)).softmax(-1).unflatten(3, (levels, points))
    x, y = ((offset + centre).unflatten(2, (heads, levels, points)) for offset, centre in ((x, grid.x), (y, grid.y)))
    out = 0
    for level, (height, width) in enumerate(grid.shapes):
        image = maps[level].unflatten(2, (heads, -1)).permute(0, 2, 3, 1).flatten(0, 1)  # (B*H, d, h*w)
        # dividing maps, not 2: torch.export cannot save a graph that computes with the quotient of two sizes
        place = torch.stack([(2 * x[..., level, :] + 1) / width, (2 * y[..., level, :] + 1) / height], dim=-1) - 1
        weight = weights[..., level, :].transpose(1, 2).flatten(0, 1)  # (B*H, T, P)
        place = place.transpose(1, 2).flatten(0, 1)  # (B*H, T, P, 2)
        sampled = F.grid_sample(image.unflatten(2, (height, width)), place, align_corners=False)  # (B*H, d, T, P)
        out = out + (sampled * weight[:, None]).sum(-1)
    return out.view(batch, channels, tokens).transpose(1, 2)
