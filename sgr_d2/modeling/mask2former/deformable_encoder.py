"""The transformer encoder of Mask2Former's pixel decoder: deformable attention over the tokens of all levels.

Shape legend: B batch, C channels, L levels, T tokens (cells of all levels, level after level, row-major).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .deformable_attention import MSDeformAttn
from .sample_grid import SampleGrid, sample_grid
from .sine import sine_position


class DeformableEncoder(nn.Module):
    """Post-norm layers of deformable attention and feed-forward, from maps to maps of the same shapes."""

    def __init__(
        self,
        *,
        dim: int,
        num_levels: int,
        num_layers: int,
        num_heads: int,
        num_points: int = 4,
        dim_feedforward: int = 1024,
        dropout: float = 0.0,
    ):
        """
        Args:
            dim: C. num_levels: L. num_layers, num_heads: of the attention. num_points: samples per head and level.
            dim_feedforward: hidden units of the feed-forward part. dropout: of both branches, in training.
        """
        super().__init__()
        self.num_heads, self.num_points = num_heads, num_points
        layers = nn.ModuleList(
            DeformableEncoderLayer(
                dim=dim,
                num_levels=num_levels,
                num_heads=num_heads,
                num_points=num_points,
                dim_feedforward=dim_feedforward,
                dropout=dropout,
            )
            for _ in range(num_layers)
        )
        self.encoder = nn.ModuleDict({"layers": layers})
        self.level_embed = nn.Parameter(torch.empty(num_levels, dim).normal_())

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """L maps (B, C, h, w), lowest resolution first -> L maps of the same shapes."""
        shapes = [tuple(m.shape[-2:]) for m in maps]
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)  # (B, T, C)
        position = self._position(shapes)
        grid = sample_grid(shapes, num_heads=self.num_heads, num_points=self.num_points, device=tokens.device)
        for layer in self.encoder["layers"]:
            tokens = layer(tokens, position, grid)
        parts = tokens.split([height * width for height, width in shapes], dim=1)
        return [part.transpose(1, 2).unflatten(2, shape) for part, shape in zip(parts, shapes, strict=True)]

    def _position(self, shapes: list[tuple[int, int]]) -> Tensor:
        """(1, T, C): the sine code of each level plus its embedding."""
        device, channels = self.level_embed.device, self.level_embed.shape[1]
        codes = [sine_position(*shape, channels, device=device).flatten(2).transpose(1, 2) for shape in shapes]
        return torch.cat([code + embed for code, embed in zip(codes, self.level_embed, strict=True)], dim=1)


class DeformableEncoderLayer(nn.Module):
    """Deformable attention and feed-forward, each added to its input and normalised."""

    def __init__(
        self, *, dim: int, num_levels: int, num_heads: int, num_points: int, dim_feedforward: int, dropout: float
    ):
        super().__init__()
        self.self_attn = MSDeformAttn(dim=dim, num_levels=num_levels, num_heads=num_heads, num_points=num_points)
        self.norm1 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = dropout
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, tokens: Tensor, position: Tensor, grid: SampleGrid) -> Tensor:
        """(B, T, C), (1, T, C) -> (B, T, C)."""
        tokens = self.norm1(_add(self._drop(self.self_attn(tokens + position, tokens, grid)), tokens))
        hidden = self._drop(F.relu(self.linear1(tokens), inplace=True))
        return self.norm2(_add(self._drop(self.linear2(hidden)), tokens))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


def _add(branch: Tensor, tokens: Tensor) -> Tensor:
    """The residual sum, written into the branch (whose last operation does not need its output for the gradient)."""
    return branch.add_(tokens)
