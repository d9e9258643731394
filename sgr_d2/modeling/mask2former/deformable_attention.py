"""Multi-scale deformable attention (Deformable DETR) for Mask2Former's pixel decoder, without compiled code.

Shape legend: sample_grid.py.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .sample_grid import SampleGrid
from .sampling import sample


class MSDeformAttn(nn.Module):
    """Per head, every token reads P points of each level, at locations and with weights computed from the token."""

    def __init__(self, *, dim: int, num_levels: int, num_heads: int, num_points: int = 4):
        """
        Args:
            dim: C, channels of a token; a multiple of ``num_heads``.
            num_levels: L. num_heads: H. num_points: P.
        """
        super().__init__()
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(dim, 2 * samples)
        self.attention_weights = nn.Linear(dim, samples)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self._initialize(num_heads, num_levels, num_points)

    @torch.no_grad()
    def _initialize(self, num_heads: int, num_levels: int, num_points: int) -> None:
        """Each of the H heads starts with its own direction, point p at a distance of p + 1 pixels; equal weights."""
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        angles = torch.arange(num_heads, dtype=torch.float32) * (2 * math.pi / num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)  # (H, 2)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        distances = torch.arange(1.0, num_points + 1)
        ring = directions[:, None, None] * distances[:, None]  # (H, 1, P, 2)
        self.sampling_offsets.bias.copy_(ring.expand(-1, num_levels, -1, -1).flatten())

    def forward(self, query: Tensor, source: Tensor, grid: SampleGrid) -> Tensor:
        """
        Args:
            query: (B, T, C), from which locations and weights are computed.
            source: (B, T, C), the tokens that are sampled.
            grid: of the levels.

        Returns:
            (B, T, C).
        """
        # Two products with every other row of the matrix give separate x and y; a single one would interleave them.
        weight_x, weight_y = self.sampling_offsets.weight.unflatten(0, (-1, 2)).unbind(1)
        bias_x, bias_y = self.sampling_offsets.bias.unflatten(0, (-1, 2)).t().contiguous()
        x, y = F.linear(query, weight_x, bias_x), F.linear(query, weight_y, bias_y)
        logits = self.attention_weights(query)
        return self.output_proj(sample(self.value_proj(source), x, y, logits, grid))
