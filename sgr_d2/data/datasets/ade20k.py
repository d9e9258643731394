"""ADE20K in the 150 classes of the SceneParsing challenge (``ADEChallengeData2016``).

B. Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017. Names, classes and folders are those of Detectron2:
``ADEChallengeData2016/{images,annotations_detectron2}/{training,validation}``; label = class - 1, 255 ignored.
"""

from functools import partial
from pathlib import Path

from detectron2.data.datasets.builtin_meta import ADE20K_SEM_SEG_CATEGORIES

from sgr_d2.data.datasets.catalog import register_published
from sgr_d2.data.datasets.folders import load_split

CLASSES = tuple(name.strip() for name in ADE20K_SEM_SEG_CATEGORIES)
IGNORE_LABEL = 255
SPLITS = {"train": "training", "val": "validation"}
# Images of the release, by folder.
PUBLISHED = {"training": 20210, "validation": 2000}


def register_ade20k(root: Path) -> None:
    """Register ``ade20k_sem_seg_train`` and ``ade20k_sem_seg_val``; ``root`` is ADEChallengeData2016."""
    for split, folder in SPLITS.items():
        name = f"ade20k_sem_seg_{split}"
        image_dir, label_dir = root / "images" / folder, root / "annotations_detectron2" / folder
        register_published(
            name,
            partial(load_split, image_dir, label_dir, name=name, script="prepare_ade20k.py"),
            owner="ade20k",
            classes=CLASSES,
            ignore_label=IGNORE_LABEL,
            image_root=image_dir,
            sem_seg_root=label_dir,
            extra={"num_published": PUBLISHED[folder]},
        )
