"""Models; importing registers the meta-architectures, the backbones and Detectron2's DeepLab and PointRend heads."""

import detectron2.projects.deeplab
import detectron2.projects.point_rend  # noqa: F401

from .backbone import SGRBackbone, SwinBackbone, TimmBackbone
from .deeplab import AnySizeDeepLabV3Head, AnySizeDeepLabV3PlusHead
from .detection import SGRGeneralizedRCNN, SGRPanopticFPN, SGRRetinaNet
from .mask2former.head import MaskFormerHead
from .peers import PeerSegmentor
from .point_rend import SparsePointRendSemSegHead
from .segmentor import SGRSegmentor
from .sgr import SGR, SGRCriterion

__all__ = [
    "SGR",
    "AnySizeDeepLabV3Head",
    "AnySizeDeepLabV3PlusHead",
    "MaskFormerHead",
    "PeerSegmentor",
    "SGRBackbone",
    "SGRCriterion",
    "SGRGeneralizedRCNN",
    "SGRPanopticFPN",
    "SGRRetinaNet",
    "SGRSegmentor",
    "SparsePointRendSemSegHead",
    "SwinBackbone",
    "TimmBackbone",
]
