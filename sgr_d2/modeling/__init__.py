"""Models; importing registers the meta-architecture, the backbones and Detectron2's DeepLab and PointRend heads."""

import detectron2.projects.deeplab
import detectron2.projects.point_rend  # noqa: F401

from .backbone import SwinBackbone, TimmBackbone
from .segmentor import SGRSegmentor
from .sgr import SGR, SGRCriterion

__all__ = ["SGR", "SGRCriterion", "SGRSegmentor", "SwinBackbone", "TimmBackbone"]
