"""The feature pyramids of Detectron2's detectors with SGR, registered for ``MODEL.BACKBONE.NAME``.

``MODEL.SGR.IN_FEATURES`` decides where SGR is placed; with ``MODEL.SGR.ENABLED`` False they are the plain pyramids.
"""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone import build_resnet_backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7

from .fpn import build_fpn
from .sgr_backbone import insert_sgr
from .swin import build_swin_backbone
from .timm_backbone import build_timm_backbone


@BACKBONE_REGISTRY.register()
def build_sgr_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Detectron2's ``build_resnet_fpn_backbone`` (p2 to p6) with SGR."""
    return _with_p6(cfg, build_resnet_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_sgr_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """An FPN (p2 to p6) on a timm model (``MODEL.TIMM``) with SGR."""
    return _with_p6(cfg, build_timm_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_sgr_swin_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """An FPN (p2 to p6) on Swin (``MODEL.SWIN``) with SGR."""
    return _with_p6(cfg, build_swin_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_sgr_retinanet_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Detectron2's ``build_retinanet_resnet_fpn_backbone`` (p3 to p7) with SGR."""
    bottom_up = build_resnet_backbone(cfg, input_shape)
    top = LastLevelP6P7(bottom_up.output_shape()["res5"].channels, cfg.MODEL.FPN.OUT_CHANNELS)
    return insert_sgr(cfg, bottom_up, lambda below: build_fpn(cfg, below, top))


def _with_p6(cfg: CfgNode, bottom_up: Backbone) -> Backbone:
    return insert_sgr(cfg, bottom_up, lambda below: build_fpn(cfg, below, LastLevelMaxPool()))
