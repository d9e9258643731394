"""Backbones beside Detectron2's own; importing registers them."""

from .fpn import build_swin_fpn_backbone, build_timm_fpn_backbone
from .swin import SwinBackbone, build_swin_backbone
from .timm_backbone import TimmBackbone, build_timm_backbone

__all__ = [
    "SwinBackbone",
    "TimmBackbone",
    "build_swin_backbone",
    "build_swin_fpn_backbone",
    "build_timm_backbone",
    "build_timm_fpn_backbone",
]
