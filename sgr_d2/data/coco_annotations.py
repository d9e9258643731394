"""Finds annotations that pycocotools cannot evaluate, before a training that would end in its traceback."""

import json
from collections.abc import Mapping
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from sgr_d2.messages import first_few

# COCOeval reads them without a default.
_KEYS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")


def check_coco_annotations(dataset_name: str, *, masks: bool) -> None:
    """Check the annotation file of a data set, if it has one.

    Args:
        dataset_name: registered; without ``json_file`` in its metadata there is nothing to check.
        masks: whether masks are evaluated, or boxes alone.

    Raises:
        ValueError: if annotations lack a key or have no valid segmentation; names the file and their ids.
    """
    path = MetadataCatalog.get(dataset_name).get("json_file")
    if path is None:
        return
    with PathManager.open(path, "rb") as file:
        annotations = json.load(file).get("annotations", [])
    wrong: dict[str, list[Any]] = {}
    for annotation in annotations:
        if fault := _fault(annotation, masks):
            wrong.setdefault(fault, []).append(annotation.get("id", "?"))
    if wrong:
        faults = "; ".join(f"{fault}: annotation {first_few(ids, 5)}" for fault, ids in sorted(wrong.items()))
        raise ValueError(
            f"{dataset_name}: COCO's evaluation cannot read {path}. {faults}. Give every annotation an area (in "
            "pixels) and iscrowd (0 or 1), and remove those without a valid mask."
        )


def _fault(annotation: Mapping[str, Any], masks: bool) -> str:
    for key in _KEYS:
        if key not in annotation:
            return f"no {key}"
    if not masks:
        return ""
    segmentation = annotation.get("segmentation")
    if not segmentation:
        return "no segmentation"
    if isinstance(segmentation, list) and any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
        return "a polygon of fewer than three points, or of an odd number of coordinates"
    return ""
