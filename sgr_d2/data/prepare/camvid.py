"""CamVid of the SegNet tutorial: train/ and trainannot/ (0-11) become images/train/ and labels/train/ (0-10, 255)."""

import logging
from pathlib import Path

from sgr_d2.data.datasets.camvid import CLASSES, PUBLISHED
from sgr_d2.data.prepare.plan import (
    IGNORE_LABEL,
    LabelRule,
    Plan,
    Split,
    add_strays,
    files_by_key,
    pair_up,
    present_splits,
)
from sgr_d2.data.reading import read_values

UNLABELLED = len(CLASSES)  # as published

logger = logging.getLogger(__name__)


def plan_camvid(root: Path, *, partial: bool = False) -> Plan:
    """Plan ``camvid/{images,labels}/SPLIT`` from ``camvid/SPLIT`` and ``camvid/SPLITannot``, under ``root``.

    A split without either folder is left out.

    Raises:
        FileNotFoundError: if there is no split, or a split lacks one of its folders (with ``partial`` it is left out).
    """
    folder = root / "camvid"

    def folders(name: str) -> tuple[Path, Path]:
        return folder / name, folder / f"{name}annot"

    begun = [name for name in PUBLISHED if any(path.is_dir() for path in folders(name))]
    present = present_splits(begun or PUBLISHED, folders, partial)
    for name in (name for name in PUBLISHED if name not in present):
        missing = ", ".join(str(path) for path in folders(name) if not path.is_dir())
        logger.warning("The split %s is left out: no folder %s.", name, missing)
    rule = LabelRule(
        read=read_values,
        meaning=f"0 to {UNLABELLED - 1} and {UNLABELLED} (not labelled)",
        indices={UNLABELLED: IGNORE_LABEL} | {value: value for value in range(UNLABELLED)},
        num_classes=len(CLASSES),
        hints={IGNORE_LABEL: "It contains 255, so it looks converted: use the published file."},
    )
    return Plan(
        "CamVid (SegNet, 11 classes)", folder, [_split(folder, name, *folders(name), partial) for name in present], rule
    )


def _split(folder: Path, name: str, images: Path, sources: Path, partial: bool) -> Split:
    image_targets, targets = folder / "images" / name, folder / "labels" / name
    split = pair_up(
        name,
        PUBLISHED[name],
        files_by_key(images, "*.png", ".png"),
        files_by_key(sources, "*.png", ".png"),
        lambda key: targets / f"{key}.png",
        lambda key: image_targets / f"{key}.png",
        partial=partial,
    )
    return add_strays(split, image_targets, targets)
