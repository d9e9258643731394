"""Cityscapes: ``*_gtFine_labelTrainIds.png`` from ``*_gtFine_labelIds.png``, without cityscapesScripts."""

from pathlib import Path

from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES

from sgr_d2.data.datasets.cityscapes import IMAGE_SUFFIX, LABEL_SUFFIX, PUBLISHED
from sgr_d2.data.prepare.plan import IGNORE_LABEL, LabelRule, Plan, files_by_key, pair_up, present_splits
from sgr_d2.data.reading import read_values

SPLITS = ("train", "val")  # the labels of test are not public
SOURCE_SUFFIX = "_gtFine_labelIds.png"
NUM_IDS = 34


def plan_cityscapes(root: Path, *, partial: bool = False) -> Plan:
    """Plan the labels next to the published ones in ``cityscapes/gtFine``, under ``root``.

    Raises:
        FileNotFoundError: if a folder is missing (with ``partial``: if all splits are).
    """
    folder = root / "cityscapes"
    images, labels = folder / "leftImg8bit", folder / "gtFine"
    present = present_splits(SPLITS, lambda name: (images / name, labels / name), partial)
    splits = [
        pair_up(
            name,
            PUBLISHED[name],
            files_by_key(images / name, f"*/*{IMAGE_SUFFIX}", IMAGE_SUFFIX),
            files_by_key(labels / name, f"*/*{SOURCE_SUFFIX}", SOURCE_SUFFIX),
            lambda key, name=name: labels / name / f"{key}{LABEL_SUFFIX}",
            partial=partial,
        )
        for name in present
    ]
    train_ids = {entry["id"]: entry["trainId"] for entry in CITYSCAPES_CATEGORIES}
    rule = LabelRule(
        read=read_values,
        meaning=f"0 to {NUM_IDS - 1} (label ids)",
        indices=dict.fromkeys(range(NUM_IDS), IGNORE_LABEL) | train_ids,
        num_classes=len(train_ids),
        hints={IGNORE_LABEL: "It contains 255, so it looks like train ids: restore the published labelIds file."},
    )
    return Plan("Cityscapes (fine annotations, 19 classes)", folder, splits, rule)
