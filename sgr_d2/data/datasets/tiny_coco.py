"""tiny_coco: 50 training and 50 validation images of COCO 2017 with their instances, for short runs.

The folder of github.com/lizhogn/tiny_coco_dataset (annotations CC BY 4.0, images under their Flickr terms).
"""

from functools import partial
from pathlib import Path

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from sgr_d2.data.datasets.things import load_coco, register_things

SPLITS = ("train", "val")
NUM_IMAGES = 50  # of each split


def register_tiny_coco(root: Path) -> None:
    """Register ``tiny_coco_train`` and ``tiny_coco_val``; ``root`` contains {split}2017 and annotations."""
    things = [category for category in COCO_CATEGORIES if category["isthing"]]
    for split in SPLITS:
        name = f"tiny_coco_{split}"
        json_file, image_root = root / "annotations" / f"instances_{split}2017.json", root / f"{split}2017"
        register_things(
            name,
            partial(load_coco, name, json_file, image_root),
            owner="tiny_coco",
            classes=[category["name"] for category in things],
            thing_colors=[tuple(category["color"]) for category in things],
            json_file=str(json_file),
            image_root=str(image_root),
            num_published=NUM_IMAGES,
        )
