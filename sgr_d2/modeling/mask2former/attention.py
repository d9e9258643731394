"""Multi-head attention with the parameter names of torch's MultiheadAttention, on torch's fused kernels.

Shape legend: B batch, Q queries, T keys, D channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """softmax(q k^T / sqrt(D / heads)) v with projections; the same results as `torch.nn.MultiheadAttention`.

    All heads share one attention mask, which is never copied per head.
    """

    def __init__(self, *, dim: int, num_heads: int, dropout: float = 0.0):
        """
        Args:
            dim: D. num_heads: must divide D. dropout: of the attention weights, in training.
        """
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"MODEL.MASK_FORMER.NHEADS = {num_heads} does not divide the {dim} channels (HIDDEN_DIM).")
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """
        Args:
            query: (B, Q, D). key, value: (B, T, D).
            allowed: (B, Q, T) bool, True where a query may attend, at least once in each row. None: everywhere.

        Returns:
            (B, Q, D).
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        parts = zip((query, key, value), weights, biases, strict=True)
        q, k, v = (self._heads(F.linear(x, weight, bias)) for x, weight, bias in parts)
        mask = None if allowed is None else allowed[:, None]
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, D/heads)
