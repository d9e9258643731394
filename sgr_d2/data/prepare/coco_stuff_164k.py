"""COCO-Stuff on all of COCO 2017: pixel maps of 0-181 (the COCO id - 1) and 255 become 0-170 and 255."""

from pathlib import Path

from sgr_d2.data.datasets.coco_stuff import PUBLISHED_164K, coco_stuff_classes
from sgr_d2.data.prepare.plan import IGNORE_LABEL, LabelRule, Plan, mirrored_splits
from sgr_d2.data.reading import read_values


def plan_coco_stuff_164k(root: Path, *, partial: bool = False) -> Plan:
    """Plan ``coco/stuffthingmaps_detectron2`` from ``coco/stuffthingmaps``, under ``root``.

    Raises:
        FileNotFoundError: if a folder is missing (with ``partial``: if all splits are).
    """
    folder = root / "coco"
    sources, targets = folder / "stuffthingmaps", folder / "stuffthingmaps_detectron2"
    splits = mirrored_splits(PUBLISHED_164K, folder, sources, targets, partial=partial)
    classes = coco_stuff_classes()
    rule = LabelRule(
        read=read_values,
        meaning="0 to 181 (COCO id - 1; 171 of them are in use) and 255 (not labelled)",
        indices={IGNORE_LABEL: IGNORE_LABEL} | {entry.coco_id - 1: label for label, entry in enumerate(classes)},
        num_classes=len(classes),
        hints={182: "It contains 182, so it counts from 1: use stuffthingmaps_trainval2017.zip."},
    )
    return Plan("COCO-Stuff 164K (171 classes)", folder, splits, rule)
