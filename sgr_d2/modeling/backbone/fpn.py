"""Feature pyramids on the backbones of this package: p2 to p5, no extra level on top."""

import math
from itertools import pairwise

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from torch import nn

from sgr_d2.checks import check_features

from .swin import build_swin_backbone
from .timm_backbone import build_timm_backbone


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """An FPN (``MODEL.FPN``) on a timm model (``MODEL.TIMM``)."""
    return build_fpn(cfg, build_timm_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_swin_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """An FPN (``MODEL.FPN``) on Swin (``MODEL.SWIN``)."""
    return build_fpn(cfg, build_swin_backbone(cfg, input_shape))


class PyramidOnAnything(FPN):
    """Detectron2's FPN on networks that need more padding than the FPN's own strides."""

    @property
    def size_divisibility(self) -> int:
        return math.lcm(super().size_divisibility, self.bottom_up.size_divisibility or 1)


def build_fpn(cfg: CfgNode, bottom_up: Backbone, top_block: nn.Module | None = None) -> FPN:
    """Detectron2's FPN on ``bottom_up``, with an optional Detectron2 ``top_block`` for the levels above p5.

    Raises:
        ValueError: if ``MODEL.FPN.IN_FEATURES`` are not among the features of ``bottom_up``, or their strides do not
            double from one to the next.
    """
    names, shape = list(cfg.MODEL.FPN.IN_FEATURES), bottom_up.output_shape()
    check_features("MODEL.FPN.IN_FEATURES", names, shape, type(bottom_up).__name__)
    strides = [shape[name].stride for name in names]
    if any(coarser != 2 * finer for finer, coarser in pairwise(strides)):
        raise ValueError(
            f"MODEL.FPN.IN_FEATURES = {names} have the strides {strides}: an FPN needs levels from fine to coarse, "
            "each of twice the stride of the one before."
        )
    return PyramidOnAnything(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
