"""The data sets, by name: ``camvid_*``, ``shapes_*``, your folders, and the semantic ones of Detectron2."""

from sgr_d2.data.datasets.camvid import register_camvid
from sgr_d2.data.datasets.catalog import (
    SemanticMetadata,
    dataset_root,
    get_dataset_records,
    metadata_of,
    register_semantic,
    semantic_names,
)
from sgr_d2.data.datasets.folders import load_image_label_folder, register_folders
from sgr_d2.data.datasets.shapes import register_shapes

__all__ = [
    "SemanticMetadata",
    "dataset_root",
    "get_dataset_records",
    "load_image_label_folder",
    "metadata_of",
    "register_all",
    "register_camvid",
    "register_folders",
    "register_semantic",
    "register_shapes",
    "semantic_names",
]


def register_all() -> None:
    """Register the data sets that come with the package; nothing is read until one is used. May be called again."""
    root = dataset_root()
    register_camvid(root / "camvid")
    register_shapes(root)
