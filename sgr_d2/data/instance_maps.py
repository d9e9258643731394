"""Instance masks as two maps of the image, of classes and of instances, never as a stack of masks.

Shape legend: H x W the image, L its instances.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as coco_mask

# Label of pixels that belong to no instance: not labelled, rather than background.
NO_INSTANCE = -1

# COCO's polygons [[x, y, x, y, ...], ...], a COCO run-length encoding, or a mask (H, W).
Segmentation = Sequence[Sequence[float]] | dict[str, Any] | np.ndarray


class InstanceMaps(NamedTuple):
    """
    Attributes:
        labels: (H, W) int32, the class of each pixel, or NO_INSTANCE.
        ids: (H, W) int32, the number 1..L of the instance, or 0.
    """

    labels: np.ndarray
    ids: np.ndarray


def paint_instances(
    segmentations: Sequence[Segmentation], classes: Sequence[int], size: tuple[int, int]
) -> InstanceMaps:
    """Paint the instances over each other, largest first, so that none hides a smaller one.

    Args:
        segmentations: L masks of the image's size.
        classes: L classes.
        size: (H, W).

    Raises:
        ValueError: if a mask has another size.
    """
    encoded = [to_rle(segmentation, size) for segmentation in segmentations]
    areas = [int(coco_mask.area(code)) for code in encoded]
    ids = np.zeros(size, np.int32)
    for index in sorted(range(len(encoded)), key=lambda i: -areas[i]):
        ids[coco_mask.decode(encoded[index]).view(bool)] = index + 1
    table = np.array([NO_INSTANCE, *classes], np.int32)
    return InstanceMaps(table.take(ids), ids)


def to_rle(segmentation: Segmentation, size: tuple[int, int]) -> dict[str, Any]:
    """Convert a mask to COCO's compressed run-length encoding.

    Raises:
        ValueError: if the size of the mask is not ``size`` (H, W).
    """
    if isinstance(segmentation, np.ndarray):
        code = coco_mask.encode(np.asfortranarray(segmentation, dtype=np.uint8))
    elif isinstance(segmentation, dict):
        code = segmentation
        if isinstance(code["counts"], list):
            code = coco_mask.frPyObjects(code, *code["size"])
    else:
        polygons = [np.asarray(polygon, np.float64).tolist() for polygon in polygons_of(segmentation)]
        code = coco_mask.merge(coco_mask.frPyObjects(polygons, *size)) if polygons else _nothing(size)
    if tuple(code["size"]) != tuple(size):
        height, width = code["size"]
        raise ValueError(f"A mask has {width}x{height} pixels (width x height), its image {size[1]}x{size[0]}.")
    return code


def polygons_of(segmentation: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """The polygons with at least three points; others, or those with half a point, are dropped."""
    return [polygon for polygon in segmentation if len(polygon) >= 6 and len(polygon) % 2 == 0]


def has_mask(annotation: dict[str, Any]) -> bool:
    """Whether an annotation in Detectron2's format has a non-empty mask: not None, [] or [[]]."""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list | tuple):
        return bool(polygons_of(segmentation))
    return bool(segmentation) and bool(coco_mask.area(to_rle(segmentation, tuple(segmentation["size"]))) > 0)


def _nothing(size: tuple[int, int]) -> dict[str, Any]:
    return coco_mask.encode(np.zeros(size, np.uint8, order="F"))
