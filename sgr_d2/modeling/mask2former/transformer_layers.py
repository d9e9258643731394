"""The branches of a decoder layer and the small MLP, with the parameter names of Mask2Former.

Mask2Former's branches are residual: post-norm LN(x + f(x)), pre-norm x + f(LN(x)). Shapes: x (B, Q, D), T keys.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attention


class SelfAttentionLayer(nn.Module):
    """Queries attend to queries; the query position is added to queries and keys, not to values."""

    def __init__(self, *, dim: int, num_heads: int, dropout: float, pre_norm: bool):
        super().__init__()
        self.self_attn = Attention(dim=dim, num_heads=num_heads, dropout=dropout)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """x (B, Q, D), position (Q, D) -> (B, Q, D)."""
        y = self.norm(x) if self.pre_norm else x
        attended = y + position
        x = x + self.dropout(self.self_attn(attended, attended, y))
        return x if self.pre_norm else self.norm(x)


class CrossAttentionLayer(nn.Module):
    """Queries attend to the pixels of a level, each only inside its previous mask."""

    def __init__(self, *, dim: int, num_heads: int, dropout: float, pre_norm: bool):
        super().__init__()
        self.multihead_attn = Attention(dim=dim, num_heads=num_heads, dropout=dropout)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def forward(self, x: Tensor, position: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
        """x (B, Q, D), position (Q, D), key and value (B, T, D), allowed (B, Q, T) bool -> (B, Q, D)."""
        y = self.norm(x) if self.pre_norm else x
        x = x + self.dropout(self.multihead_attn(y + position, key, value, allowed))
        return x if self.pre_norm else self.norm(x)


class TokenAttentionLayer(nn.Module):
    """Queries attend to SGR's tokens (ours). The last layer is initialised to zero, so it changes nothing at first."""

    def __init__(self, *, token_dim: int, dim: int, num_heads: int, dropout: float, pre_norm: bool):
        super().__init__()
        self.project = nn.Linear(token_dim, dim)
        self.token_norm = nn.LayerNorm(dim)
        self.multihead_attn = Attention(dim=dim, num_heads=num_heads, dropout=dropout)
        nn.init.zeros_(self.multihead_attn.out_proj.weight)
        self.norm = nn.LayerNorm(dim) if pre_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, tokens: Tensor) -> Tensor:
        """x (B, Q, D), position (Q, D), tokens (B, K, token channels) -> (B, Q, D)."""
        tokens = self.token_norm(self.project(tokens))
        return x + self.dropout(self.multihead_attn(self.norm(x) + position, tokens, tokens))


class FeedForwardLayer(nn.Module):
    """Two linear layers with a ReLU in between."""

    def __init__(self, *, dim: int, hidden: int, dropout: float, pre_norm: bool):
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, Q, D) -> (B, Q, D)."""
        y = self.norm(x) if self.pre_norm else x
        x = x + self.dropout(self.linear2(self.dropout(F.relu(self.linear1(y)))))
        return x if self.pre_norm else self.norm(x)


class MLP(nn.Module):
    """Linear layers with ReLUs in between."""

    def __init__(self, *, in_dim: int, hidden: int, out_dim: int, num_layers: int):
        super().__init__()
        dims = [in_dim, *[hidden] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_dim) -> (..., out_dim)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)
