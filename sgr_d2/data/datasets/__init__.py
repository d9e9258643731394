"""The data sets, by name: COCO-Stuff, ADE20K, Cityscapes, CamVid, ``shapes``, your folders, and those of Detectron2."""

from sgr_d2.data.datasets.ade20k import register_ade20k
from sgr_d2.data.datasets.camvid import register_camvid
from sgr_d2.data.datasets.camvid_instances import register_camvid_instances
from sgr_d2.data.datasets.catalog import (
    SemanticMetadata,
    dataset_root,
    get_dataset_records,
    metadata_of,
    register_semantic,
    require_folders,
    semantic_names,
)
from sgr_d2.data.datasets.cityscapes import register_cityscapes
from sgr_d2.data.datasets.coco_stuff import register_coco_stuff
from sgr_d2.data.datasets.folders import register_folders
from sgr_d2.data.datasets.pairs import load_image_label_folder
from sgr_d2.data.datasets.shapes import register_shapes
from sgr_d2.data.datasets.shapes_context import register_shapes_context
from sgr_d2.data.datasets.things import register_things, thing_metadata_of
from sgr_d2.data.datasets.tiny_coco import register_tiny_coco

__all__ = [
    "SemanticMetadata",
    "dataset_root",
    "get_dataset_records",
    "load_image_label_folder",
    "metadata_of",
    "register_ade20k",
    "register_all",
    "register_camvid",
    "register_camvid_instances",
    "register_cityscapes",
    "register_coco_stuff",
    "register_folders",
    "register_semantic",
    "register_shapes",
    "register_shapes_context",
    "register_things",
    "register_tiny_coco",
    "require_folders",
    "semantic_names",
    "thing_metadata_of",
]


def register_all() -> None:
    """Register the package's data sets; their files are only read when they are used. May be called repeatedly."""
    root = dataset_root()
    register_coco_stuff(root / "coco")
    register_ade20k(root / "ADEChallengeData2016")
    register_cityscapes(root / "cityscapes")
    register_camvid(root / "camvid")
    register_camvid_instances(root)
    register_tiny_coco(root / "tiny_coco")
    register_shapes(root)
    register_shapes_context(root)
