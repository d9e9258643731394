"""Which records and annotations of Detectron2's format a detector can be trained on."""

import logging
from collections.abc import Sequence
from typing import Any

from sgr_d2.data.instance_maps import has_mask

logger = logging.getLogger(__name__)


def objects_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The annotations of a record without crowds; records of empty images may lack "annotations"."""
    return [a for a in record.get("annotations", ()) if not a.get("iscrowd", 0)]


def any_mask(records: Sequence[dict[str, Any]]) -> bool:
    """Whether any object has a mask."""
    return any(has_mask(annotation) for record in records for annotation in objects_of(record))


def trainable_records(
    records: Sequence[dict[str, Any]], name: str, *, masks: bool, mask_format: str, keep_empty: bool
) -> list[dict[str, Any]]:
    """Warn of objects that the training leaves out, and leave out images without objects.

    Args:
        records: of all data sets of the training.
        name: of the data sets, for messages.
        masks: whether the detector learns masks (MODEL.MASK_ON); it cannot learn from objects without one.
        mask_format: "polygon", for which every mask must be polygons, or "bitmask".
        keep_empty: whether images in which no object is left take part, as background.

    Raises:
        ValueError: if no object has what the detector needs, or the mask of one is run-length encoded and
            ``mask_format`` is "polygon".
    """
    usable, bare, bare_in, background = [], 0, "", 0
    for record in records:
        objects = objects_of(record)
        if masks:
            masked = [annotation for annotation in objects if has_mask(annotation)]
            if mask_format == "polygon":
                refuse_run_lengths(record, masked)
            if without := len(objects) - len(masked):
                bare, bare_in = bare + without, bare_in or record["file_name"]
                background += without if masked or keep_empty else 0
            objects = masked
        if objects or keep_empty:
            usable.append(record)
    if masks and bare and not any_mask(records):
        raise ValueError(f"MODEL.MASK_ON is True, but no annotation of {name} has a mask. Set it to False.")
    if not usable:
        raise ValueError(f"{name}: no image has an annotation (DATALOADER.FILTER_EMPTY_ANNOTATIONS is True).")
    if bare:
        logger.warning(
            "%s: %d objects have no mask (first in %s) and are left out; the detector learns to take %d of them, in "
            "images that take part, for background. Give them masks, remove those images, or set MODEL.MASK_ON False.",
            *(name, bare, bare_in, background),
        )
    if len(usable) < len(records):
        logger.info(
            "%s: %d of %d images, without an object to learn, are left out (DATALOADER.FILTER_EMPTY_ANNOTATIONS).",
            *(name, len(records) - len(usable), len(records)),
        )
    return usable


def refuse_run_lengths(record: dict[str, Any], annotations: Sequence[dict[str, Any]]) -> None:
    """Raise ValueError if the mask of one of the annotations, which all have one, is run-length encoded."""
    if any(isinstance(annotation["segmentation"], dict) for annotation in annotations):
        raise ValueError(
            f"Image {record['file_name']} has a run-length encoded mask; INPUT.MASK_FORMAT must be bitmask for "
            "such annotations."
        )
