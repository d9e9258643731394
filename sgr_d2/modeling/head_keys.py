"""What the head reads, from its keys in the config."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.projects.point_rend.semantic_seg import PointRendSemSegHead

from sgr_d2.checks import check_common_stride, check_features, check_point_classes, check_subdivision


def features_of_head(cfg: CfgNode) -> list[str]:
    """The features that the head selected by ``cfg`` reads."""
    points = cfg.MODEL.POINT_HEAD.IN_FEATURES if _has_points(cfg) else ()
    return [*cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES, *points]


def check_head(cfg: CfgNode, shape: dict[str, ShapeSpec]) -> None:
    """Raise ValueError if the keys of the head do not fit the features of the backbone, {name: ShapeSpec}."""
    if _has_points(cfg):
        check_point_classes(cfg)
    for part in ("SEM_SEG_HEAD", "POINT_HEAD") if _has_points(cfg) else ("SEM_SEG_HEAD",):
        check_features(f"MODEL.{part}.IN_FEATURES", cfg.MODEL[part].IN_FEATURES, shape, cfg.MODEL.BACKBONE.NAME)
    per_pixel = cfg.MODEL.POINT_HEAD.COARSE_SEM_SEG_HEAD_NAME if _has_points(cfg) else cfg.MODEL.SEM_SEG_HEAD.NAME
    if per_pixel == "SemSegFPNHead":
        check_common_stride(cfg, shape)
    if _has_points(cfg):
        check_subdivision(cfg)


def _has_points(cfg: CfgNode) -> bool:
    kind = SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME)  # a class, or a function that builds one
    return isinstance(kind, type) and issubclass(kind, PointRendSemSegHead)
