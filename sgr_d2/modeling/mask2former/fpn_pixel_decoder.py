"""A lightweight pixel decoder: a purely convolutional feature pyramid.

Shape legend: B batch, C channels (CONVS_DIM), M mask channels.
Source: the feature pyramid of Lin et al. 2017; norms, activations and bilinear resizing as in Mask2Former's last step.
"""

from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from fvcore.nn.weight_init import c2_xavier_fill
from torch import Tensor, nn

from sgr_d2.checks import check_features

from .pixel_decoder import GROUPS, PIXEL_DECODER_REGISTRY, add_resized, conv_norm
from .structures import MAX_LEVELS, PixelFeatures


@PIXEL_DECODER_REGISTRY.register()
class FPNPixelDecoder(nn.Module):
    """From the coarsest feature down: a lateral 1x1 convolution plus the resized level above, a 3x3 convolution."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        conv_dim: int = 256,
        mask_dim: int = 256,
        norm: str = "GN",
        common_stride: int = 4,
    ):
        """
        Args:
            input_shape: {name: ShapeSpec} with channels and stride.
            conv_dim: C. mask_dim: M.
            norm: one of Detectron2's names; "GN" needs a multiple of 32 channels.
            common_stride: of the mask features; finer features are not read.

        Raises:
            ValueError: for unsuitable features or numbers; the message names the config key.
        """
        super().__init__()
        if norm == "GN" and conv_dim % GROUPS:
            raise ValueError(f"MODEL.SEM_SEG_HEAD.CONVS_DIM = {conv_dim} must be a multiple of {GROUPS} for NORM GN.")
        read = {name: spec for name, spec in input_shape.items() if spec.stride >= common_stride}
        self.in_features = sorted(read, key=lambda name: -read[name].stride)
        strides = [read[name].stride for name in self.in_features]
        if not strides or strides[-1] != common_stride:
            raise ValueError(
                f"FPNPixelDecoder needs a feature of stride MODEL.SEM_SEG_HEAD.COMMON_STRIDE = {common_stride}; of "
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES = {list(input_shape)} it can use {self.in_features} "
                f"of strides {strides}."
            )
        self.num_levels = min(len(strides), MAX_LEVELS)
        self.lateral = nn.ModuleDict({name: conv_norm(read[name].channels, conv_dim, 1, norm) for name in read})
        self.output = nn.ModuleDict(
            {name: conv_norm(conv_dim, conv_dim, 3, norm, nn.ReLU(inplace=True)) for name in read}
        )
        self.mask_features = Conv2d(conv_dim, mask_dim, kernel_size=1)
        c2_xavier_fill(self.mask_features)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        check_features("MODEL.SEM_SEG_HEAD.IN_FEATURES", head.IN_FEATURES, input_shape, cfg.MODEL.BACKBONE.NAME)
        return {
            "input_shape": {name: input_shape[name] for name in head.IN_FEATURES},
            "conv_dim": head.CONVS_DIM,
            "mask_dim": head.MASK_DIM,
            "norm": head.NORM,
            "common_stride": head.COMMON_STRIDE,
        }

    def forward(self, features: dict[str, Tensor]) -> PixelFeatures:
        """{name: (B, c, h, w)} -> PixelFeatures; sizes need not be exact halves of each other."""
        levels: list[Tensor] = []
        for name in self.in_features:
            level = self.lateral[name](features[name])
            levels.append(self.output[name](add_resized(level, levels[-1]) if levels else level))
        return PixelFeatures(self.mask_features(levels[-1]), levels[: self.num_levels])
