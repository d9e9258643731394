"""COCO-Stuff in its 171 classes: the 10K images of the first releases, and all of COCO 2017 (164K).

H. Caesar et al., "COCO-Stuff: Thing and stuff classes in context", CVPR 2018. Names and folders are those of
MaskFormer: ``coco/coco_stuff_10k/{images_detectron2,annotations_detectron2}/{train,test}`` and ``coco/{train,val}2017``
with ``coco/stuffthingmaps_detectron2/{train,val}2017``; label = index of the class, 255 ignored.
"""

import json
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from sgr_d2.data.datasets.catalog import register_published
from sgr_d2.data.datasets.folders import load_split

IGNORE_LABEL = 255
# Images of the releases, by folder.
PUBLISHED_10K = {"train": 9000, "test": 1000}
PUBLISHED_164K = {"train2017": 118287, "val2017": 5000}


class StuffClass(NamedTuple):
    """A class of COCO-Stuff: its id in the release (1-182), its name, and whether it has instances."""

    coco_id: int
    name: str
    isthing: int


@cache
def coco_stuff_classes() -> tuple[StuffClass, ...]:
    """Return the 171 classes that have annotations; the position is the label."""
    text = files("sgr_d2.data.datasets").joinpath("coco_stuff_classes.json").read_text(encoding="utf-8")
    return tuple(StuffClass(**entry) for entry in json.loads(text)["classes"])


def register_coco_stuff(root: Path) -> None:
    """Register ``coco_2017_{train,test}_stuff_10k_sem_seg`` and ``coco_2017_{train,val}_stuff_sem_seg``.

    ``root`` is the folder ``coco``.
    """
    ten_k = root / "coco_stuff_10k"
    for split, number in PUBLISHED_10K.items():
        _register(
            f"coco_2017_{split}_stuff_10k_sem_seg",
            ten_k / "images_detectron2" / split,
            ten_k / "annotations_detectron2" / split,
            "prepare_coco_stuff_10k.py",
            number,
        )
    for folder, number in PUBLISHED_164K.items():
        _register(
            f"coco_2017_{folder.removesuffix('2017')}_stuff_sem_seg",
            root / folder,
            root / "stuffthingmaps_detectron2" / folder,
            "prepare_coco_stuff_164k.py",
            number,
        )


def _register(name: str, image_dir: Path, label_dir: Path, script: str, number: int) -> None:
    classes = coco_stuff_classes()
    register_published(
        name,
        partial(load_split, image_dir, label_dir, name=name, script=script),
        owner="coco_stuff",
        classes=[entry.name for entry in classes],
        ignore_label=IGNORE_LABEL,
        image_root=image_dir,
        sem_seg_root=label_dir,
        extra={
            "stuff_dataset_id_to_contiguous_id": {entry.coco_id: label for label, entry in enumerate(classes)},
            "num_published": number,
            "thing_classes": [entry.name for entry in classes if entry.isthing],
        },
    )
