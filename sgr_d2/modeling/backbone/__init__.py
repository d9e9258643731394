"""Backbones in addition to Detectron2's; importing registers them."""

from .fpn import build_swin_fpn_backbone, build_timm_fpn_backbone
from .sgr_backbone import SGRBackbone, find_sgr_backbone, insert_sgr, name_in_state_dict
from .sgr_fpn import (
    build_sgr_resnet_fpn_backbone,
    build_sgr_retinanet_resnet_fpn_backbone,
    build_sgr_swin_fpn_backbone,
    build_sgr_timm_fpn_backbone,
)
from .swin import SwinBackbone, build_swin_backbone
from .timm_backbone import TimmBackbone, build_timm_backbone

__all__ = [
    "SGRBackbone",
    "SwinBackbone",
    "TimmBackbone",
    "build_sgr_resnet_fpn_backbone",
    "build_sgr_retinanet_resnet_fpn_backbone",
    "build_sgr_swin_fpn_backbone",
    "build_sgr_timm_fpn_backbone",
    "build_swin_backbone",
    "build_swin_fpn_backbone",
    "build_timm_backbone",
    "build_timm_fpn_backbone",
    "find_sgr_backbone",
    "insert_sgr",
    "name_in_state_dict",
]
