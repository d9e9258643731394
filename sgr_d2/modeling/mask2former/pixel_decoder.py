"""Mask2Former's pixel decoder: a deformable encoder over the coarse features, an FPN for the fine ones.

Shape legend: B batch, C channels (CONVS_DIM), M mask channels, L levels of the encoder, T tokens (cells of all levels).
Source: Mask2Former, section 3.2.1 and its code; parameter names are those of the published checkpoints.
"""

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from fvcore.common.registry import Registry
from fvcore.nn.weight_init import c2_xavier_fill
from torch import Tensor, nn
from torch.nn import functional as F

from sgr_d2.checks import check_features

from .deformable_encoder import DeformableEncoder
from .structures import MAX_LEVELS, PixelFeatures

PIXEL_DECODER_REGISTRY = Registry("PIXEL_DECODER")
PIXEL_DECODER_REGISTRY.__doc__ = (
    "Pixel decoders: called with (cfg, {name: ShapeSpec}); forward(features) -> PixelFeatures of ``num_levels`` levels "
    "(an attribute)."
)

GROUPS = 32  # of the norm after the input projections


@PIXEL_DECODER_REGISTRY.register()
class MSDeformAttnPixelDecoder(nn.Module):
    """Multi-scale deformable attention pixel decoder."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        encoder_features: list[str],
        conv_dim: int = 256,
        mask_dim: int = 256,
        norm: str = "GN",
        common_stride: int = 4,
        num_layers: int = 6,
        num_heads: int = 8,
        num_points: int = 4,
        dim_feedforward: int = 1024,
        dropout: float = 0.0,
    ):
        """
        Args:
            input_shape: {name: ShapeSpec} with channels and stride.
            encoder_features: the features of ``input_shape`` that the encoder attends to.
            conv_dim: C, a multiple of 32 (group norm) and of ``num_heads``. mask_dim: M.
            norm: of the FPN's convolutions, one of Detectron2's names.
            common_stride: of the mask features; an FPN adds the features from here up to the encoder's finest one.
            num_layers, num_heads, num_points, dim_feedforward, dropout: of the encoder.

        Raises:
            ValueError: for unsuitable features or numbers; the message names the config key.
        """
        super().__init__()
        _check_sizes(conv_dim, num_heads, num_layers)
        self.encoder_features, self.fpn_features = _share_out(input_shape, encoder_features, common_stride)
        self.in_features = [*self.encoder_features, *self.fpn_features]
        self.num_levels = min(len(self.encoder_features) + len(self.fpn_features), MAX_LEVELS)
        self.input_proj = nn.ModuleList(
            _input_projection(input_shape[name].channels, conv_dim) for name in self.encoder_features
        )
        self.transformer = DeformableEncoder(
            dim=conv_dim,
            num_levels=len(self.encoder_features),
            num_layers=num_layers,
            num_heads=num_heads,
            num_points=num_points,
            dim_feedforward=dim_feedforward,
            dropout=dropout,
        )
        for number, name in zip(range(len(self.fpn_features), 0, -1), self.fpn_features, strict=True):
            self.add_module(f"adapter_{number}", conv_norm(input_shape[name].channels, conv_dim, 1, norm))
            self.add_module(f"layer_{number}", conv_norm(conv_dim, conv_dim, 3, norm, nn.ReLU(inplace=True)))
        self.mask_features = Conv2d(conv_dim, mask_dim, kernel_size=1)
        c2_xavier_fill(self.mask_features)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        head, mask = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
        check_features("MODEL.SEM_SEG_HEAD.IN_FEATURES", head.IN_FEATURES, input_shape, cfg.MODEL.BACKBONE.NAME)
        return {
            "input_shape": {name: input_shape[name] for name in head.IN_FEATURES},
            "encoder_features": list(head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES),
            "conv_dim": head.CONVS_DIM,
            "mask_dim": head.MASK_DIM,
            "norm": head.NORM,
            "common_stride": head.COMMON_STRIDE,
            "num_layers": head.TRANSFORMER_ENC_LAYERS,
            "num_heads": mask.NHEADS,
            "dropout": mask.DROPOUT,
        }

    def forward(self, features: dict[str, Tensor]) -> PixelFeatures:
        """{name: (B, c, h, w)} -> PixelFeatures; sizes need not be exact halves of each other.

        In float32 even under autocast, as in Mask2Former's code: the encoder computes sampling locations, which half
        precision would round to sixteenths of a pixel.
        """
        own = self.mask_features.weight  # float32
        with torch.autocast(own.device.type, enabled=False):
            return self._decode({name: features[name].to(own.dtype) for name in self.in_features})

    def _decode(self, features: dict[str, Tensor]) -> PixelFeatures:
        maps = [project(features[name]) for project, name in zip(self.input_proj, self.encoder_features, strict=True)]
        levels = self.transformer(maps)
        for number, name in zip(range(len(self.fpn_features), 0, -1), self.fpn_features, strict=True):
            fine = getattr(self, f"adapter_{number}")(features[name])
            levels.append(getattr(self, f"layer_{number}")(add_resized(fine, levels[-1])))
        return PixelFeatures(self.mask_features(levels[-1]), levels[: self.num_levels])


def conv_norm(
    in_channels: int, channels: int, kernel_size: int, norm: str, activation: nn.Module | None = None
) -> Conv2d:
    """A size-preserving convolution with a norm; it has a bias only if ``norm`` is empty."""
    conv = Conv2d(
        in_channels,
        channels,
        kernel_size=kernel_size,
        padding=kernel_size // 2,
        bias=not norm,
        norm=get_norm(norm, channels),
        activation=activation,
    )
    c2_xavier_fill(conv)
    return conv


def add_resized(fine: Tensor, coarse: Tensor) -> Tensor:
    """``coarse`` resized bilinearly to the size of ``fine`` (B, C, h, w), plus ``fine``."""
    return F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False) + fine


def _input_projection(in_channels: int, channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel_size=1)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.GroupNorm(GROUPS, channels))


def _share_out(
    input_shape: dict[str, ShapeSpec], encoder_features: list[str], common_stride: int
) -> tuple[list[str], list[str]]:
    """The features of the encoder and the finer ones of the FPN, each coarsest first."""
    check_features(
        "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES",
        encoder_features,
        input_shape,
        "MODEL.SEM_SEG_HEAD.IN_FEATURES",
    )
    coarse_first = sorted(encoder_features, key=lambda name: -input_shape[name].stride)
    return coarse_first, _fpn_features(input_shape, input_shape[coarse_first[-1]].stride, common_stride)


def _fpn_features(input_shape: dict[str, ShapeSpec], encoder_stride: int, common_stride: int) -> list[str]:
    """The features finer than the encoder's, down to ``common_stride``, coarsest first; the stride halves each time."""
    key = f"MODEL.SEM_SEG_HEAD.COMMON_STRIDE = {common_stride}"
    strides = [encoder_stride]
    while strides[-1] > common_stride:
        strides.append(strides[-1] // 2)
    if strides[-1] != common_stride:
        raise ValueError(
            f"{key} must be the encoder's finest stride, {encoder_stride}, or a half, a quarter, ... of it."
        )
    names = {spec.stride: name for name, spec in input_shape.items()}
    missing = [stride for stride in strides if stride not in names]
    if missing:
        raise ValueError(
            f"{key} and the encoder's finest stride, {encoder_stride}, need features of stride {missing} between them; "
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES have strides {sorted(names)}."
        )
    return [names[stride] for stride in strides[1:]]


def _check_sizes(conv_dim: int, num_heads: int, num_layers: int) -> None:
    if num_heads < 1 or conv_dim < 1 or conv_dim % num_heads or conv_dim % GROUPS:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.CONVS_DIM = {conv_dim} must be a positive multiple of {GROUPS} (group norm, position "
            f"code) and of MODEL.MASK_FORMER.NHEADS = {num_heads}."
        )
    if num_layers < 1:
        raise ValueError(f"MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS = {num_layers}: at least one is needed.")
