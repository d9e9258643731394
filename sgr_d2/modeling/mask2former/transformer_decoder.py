"""Masked-attention transformer decoder (Mask2Former, section 3.2). Shape legend: structures.py.

Masks at the resolution of the mask features are never made here. As bilinear resizing is linear, attention masks are
computed from mask features that are resized once per level.
"""

import torch
from detectron2.config import CfgNode, configurable
from fvcore.nn.weight_init import c2_xavier_fill
from torch import Tensor, nn
from torch.nn import functional as F

from sgr_d2.modeling.randomness import own_random_numbers
from sgr_d2.structures import TOKENS

from .sine import sine_position
from .structures import MAX_LEVELS, PixelFeatures, QueryPrediction
from .transformer_layers import MLP, CrossAttentionLayer, FeedForwardLayer, SelfAttentionLayer, TokenAttentionLayer


class MultiScaleMaskedTransformerDecoder(nn.Module):
    """Learned queries attend to the levels of the pixel decoder in turn, and each predicts a class and a mask."""

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        num_levels: int = MAX_LEVELS,
        hidden_dim: int = 256,
        num_queries: int = 100,
        num_heads: int = 8,
        dim_feedforward: int = 2048,
        num_layers: int = 9,
        mask_dim: int = 256,
        pre_norm: bool = False,
        enforce_input_project: bool = False,
        dropout: float = 0.0,
        token_dim: int = 0,
    ):
        """
        Args:
            in_channels: C, of the levels. num_classes: K. num_levels: of the pixel decoder.
            hidden_dim: D. num_queries: Q. mask_dim: M.
            num_heads: must divide D. dim_feedforward: hidden units of the feed-forward layers.
            num_layers: decoder layers; layer i attends to level i mod ``num_levels``.
            pre_norm: LayerNorm before each branch rather than after it.
            enforce_input_project: a 1x1 convolution on each level even if C = D.
            dropout: of attention weights and branches.
            token_dim: channels of SGR's tokens, to which the queries attend before every layer; 0 for no tokens.

        Raises:
            ValueError: for invalid sizes.
        """
        super().__init__()
        for key, value in (("NUM_OBJECT_QUERIES", num_queries), ("HIDDEN_DIM", hidden_dim)):
            if value < 1:
                raise ValueError(f"MODEL.MASK_FORMER.{key} = {value}: must be at least 1.")
        if hidden_dim % 4:
            raise ValueError(f"MODEL.MASK_FORMER.HIDDEN_DIM = {hidden_dim}: the sine code needs a multiple of 4.")
        if num_layers < 1:
            raise ValueError(f"MODEL.MASK_FORMER.DEC_LAYERS = {num_layers + 1}: must be at least 2 (one layer).")
        branch = {"dim": hidden_dim, "dropout": dropout, "pre_norm": pre_norm}
        attention = {**branch, "num_heads": num_heads}
        layers = range(num_layers)
        self.transformer_self_attention_layers = nn.ModuleList(SelfAttentionLayer(**attention) for _ in layers)
        self.transformer_cross_attention_layers = nn.ModuleList(CrossAttentionLayer(**attention) for _ in layers)
        self.transformer_ffn_layers = nn.ModuleList(FeedForwardLayer(**branch, hidden=dim_feedforward) for _ in layers)
        self.decoder_norm = nn.LayerNorm(hidden_dim)
        self.query_feat = nn.Embedding(num_queries, hidden_dim)
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.level_embed = nn.Embedding(num_levels, hidden_dim)
        project = in_channels != hidden_dim or enforce_input_project
        self.input_proj = nn.ModuleList(
            _projection(in_channels, hidden_dim) if project else nn.Sequential() for _ in range(num_levels)
        )
        self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.mask_embed = MLP(in_dim=hidden_dim, hidden=hidden_dim, out_dim=mask_dim, num_layers=3)
        with own_random_numbers():
            self.transformer_token_attention_layers = nn.ModuleList(
                TokenAttentionLayer(**attention, token_dim=token_dim) for _ in (layers if token_dim else ())
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        head, mask = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
        return {
            "in_channels": head.CONVS_DIM,
            "num_classes": head.NUM_CLASSES,
            "hidden_dim": mask.HIDDEN_DIM,
            "num_queries": mask.NUM_OBJECT_QUERIES,
            "num_heads": mask.NHEADS,
            "dim_feedforward": mask.DIM_FEEDFORWARD,
            "num_layers": mask.DEC_LAYERS - 1,
            "mask_dim": head.MASK_DIM,
            "pre_norm": mask.PRE_NORM,
            "enforce_input_project": mask.ENFORCE_INPUT_PROJ,
            "dropout": mask.DROPOUT,
            "token_dim": cfg.MODEL.SGR.TOKEN_DIM if cfg.MODEL.SGR.ENABLED and cfg.MODEL.SGR.QUERY_ATTENTION else 0,
        }

    @property
    def reads_tokens(self) -> bool:
        """Whether `forward` needs SGR's tokens."""
        return len(self.transformer_token_attention_layers) > 0

    def forward(self, features: PixelFeatures, sgr_tokens: Tensor | None = None) -> QueryPrediction:
        """Predict before the first layer and after every layer; the last prediction is final.

        Args:
            features: of the pixel decoder.
            sgr_tokens: (B, K, token channels), if `reads_tokens`.

        Raises:
            ValueError: if `reads_tokens`, but no tokens are given.
        """
        if self.reads_tokens and sgr_tokens is None:
            raise ValueError(
                f"The queries attend to the tokens of SGR (MODEL.SGR.QUERY_ATTENTION), but there is no {TOKENS!r} "
                "among the features. Give the head what SGRSegmentor.refine returns, or set that key to False."
            )
        memory = [self._keys_and_values(level, level_features) for level, level_features in enumerate(features.levels)]
        sizes = [tuple(level.shape[-2:]) for level in features.levels]
        steering = _resized(features.mask_features, sizes[: len(self.transformer_ffn_layers)])
        position = self.query_embed.weight
        x = self.query_feat.weight.expand(len(features.mask_features), -1, -1)  # (B, Q, D)
        for _, unused in memory[len(steering) :]:
            x = x + 0.0 * unused.sum()  # gives every parameter a gradient even with one or two layers
        x = self._attend_to_tokens(0, x, sgr_tokens)
        outputs = [self.decoder_norm(x)]
        embeddings = [self.mask_embed(outputs[0])]
        for i, ffn in enumerate(self.transformer_ffn_layers):
            level = i % len(memory)
            allowed = attention_mask(embeddings[-1], steering[level])
            x = self._attend_to_tokens(i, x, sgr_tokens) if i else x
            x = self.transformer_cross_attention_layers[i](x, position, *memory[level], allowed)
            x = self.transformer_self_attention_layers[i](x, position)
            x = ffn(x)
            outputs.append(self.decoder_norm(x))
            embeddings.append(self.mask_embed(outputs[-1]))
        logits = self.class_embed(torch.stack(outputs))
        return QueryPrediction(logits, torch.stack(embeddings), features.mask_features)

    def _attend_to_tokens(self, layer: int, x: Tensor, sgr_tokens: Tensor | None) -> Tensor:
        if not self.reads_tokens:
            return x
        return self.transformer_token_attention_layers[layer](x, self.query_embed.weight, sgr_tokens)

    def _keys_and_values(self, level: int, features: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (with position) and values (without), each (B, h*w, D), before the attention's projections."""
        projected = self.input_proj[level](features)
        height, width = projected.shape[-2:]
        values = projected.flatten(2).transpose(1, 2) + self.level_embed.weight[level]  # (B, h*w, D)
        code = sine_position(height, width, projected.shape[1], device=projected.device)
        return values + code.flatten(2).transpose(1, 2), values


@torch.no_grad()
def attention_mask(embeddings: Tensor, pixels: Tensor) -> Tensor:
    """Where each query may attend: in its own predicted mask, or everywhere if that is empty.

    Args:
        embeddings: (B, Q, M) mask embeddings. pixels: (B, M, T) float32 mask features at the size of the level.

    Returns:
        (B, Q, T) bool, no row of which is all False, whatever the values (NaN counts as outside).
    """
    with torch.autocast(pixels.device.type, enabled=False):
        inside = torch.bmm(embeddings.float(), pixels) >= 0
    return inside | ~inside.any(dim=-1, keepdim=True)


@torch.no_grad()
def _resized(mask_features: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
    """(B, M, h, w) -> float32 (B, M, h_l*w_l) for each size."""
    features = mask_features.float()
    return [F.interpolate(features, size=size, mode="bilinear", align_corners=False).flatten(2) for size in sizes]


def _projection(in_channels: int, channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, channels, kernel_size=1)
    c2_xavier_fill(conv)
    return conv
