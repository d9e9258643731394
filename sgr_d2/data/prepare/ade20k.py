"""ADE20K, SceneParsing release: 0 (not labelled) and 1-150 become 255 and 0-149."""

from pathlib import Path

from sgr_d2.data.datasets.ade20k import PUBLISHED
from sgr_d2.data.prepare.plan import IGNORE_LABEL, LabelRule, Plan, mirrored_splits
from sgr_d2.data.reading import read_values

NUM_CLASSES = 150


def plan_ade20k(root: Path, *, partial: bool = False) -> Plan:
    """Plan ``ADEChallengeData2016/annotations_detectron2`` from ``annotations``, under ``root``.

    Raises:
        FileNotFoundError: if a folder is missing (with ``partial``: if all splits are).
    """
    folder = root / "ADEChallengeData2016"
    images, sources, targets = (folder / name for name in ("images", "annotations", "annotations_detectron2"))
    splits = mirrored_splits(PUBLISHED, images, sources, targets, partial=partial)
    rule = LabelRule(
        read=read_values,
        meaning="0 (not labelled) and 1 to 150",
        indices={0: IGNORE_LABEL} | {value: value - 1 for value in range(1, NUM_CLASSES + 1)},
        num_classes=NUM_CLASSES,
        hints={IGNORE_LABEL: "It contains 255, so it looks converted: annotations/ must hold the published files."},
    )
    return Plan("ADE20K (SceneParsing, 150 classes)", folder, splits, rule)
