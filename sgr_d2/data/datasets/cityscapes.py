"""Cityscapes with its fine annotations, in the 19 classes that are evaluated.

M. Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016. Names, classes and folders
are those of Detectron2: ``cityscapes/{leftImg8bit,gtFine}/{train,val}/CITY/``; the labels are the files
``*_gtFine_labelTrainIds.png`` (255 ignored), next to the ``*_gtFine_instanceIds.png`` of the release.
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES

from sgr_d2.data.datasets.catalog import register_published
from sgr_d2.data.datasets.folders import check_folders

IGNORE_LABEL = 255
# Images of the release, by split.
PUBLISHED = {"train": 2975, "val": 500, "test": 1525}
# In *_instanceIds.png an object is 1000 * (id of its class) + number; smaller values are not instances.
FIRST_INSTANCE_ID = 1000
IMAGE_SUFFIX = "_leftImg8bit.png"
LABEL_SUFFIX = "_gtFine_labelTrainIds.png"
INSTANCE_SUFFIX = "_gtFine_instanceIds.png"

logger = logging.getLogger(__name__)


def register_cityscapes(root: Path) -> None:
    """Register ``cityscapes_fine_sem_seg_train`` and ``..._val``; ``root`` holds leftImg8bit/ and gtFine/.

    ``..._test``, which Detectron2 registers, too, says on use that its labels are not public.
    """
    for split, number in PUBLISHED.items():
        name = f"cityscapes_fine_sem_seg_{split}"
        image_dir, label_dir = root / "leftImg8bit" / split, root / "gtFine" / split
        register_published(
            name,
            partial(_refuse_test if split == "test" else load_cityscapes, image_dir, label_dir, name=name),
            owner="cityscapes",
            classes=[entry["name"] for entry in CITYSCAPES_CATEGORIES],
            colors=[entry["color"] for entry in CITYSCAPES_CATEGORIES],
            ignore_label=IGNORE_LABEL,
            image_root=image_dir,
            sem_seg_root=label_dir,
            evaluator_type="cityscapes_sem_seg",
            extra={
                "thing_classes": [entry["name"] for entry in CITYSCAPES_CATEGORIES if entry["isthing"]],
                "first_instance_id": FIRST_INSTANCE_ID,
                "image_dir": str(image_dir),  # these two have Detectron2's names
                "gt_dir": str(label_dir),
                "num_published": number,
            },
        )


def load_cityscapes(image_dir: Path, label_dir: Path, *, name: str) -> list[dict[str, Any]]:
    """List the images of a split with their labels and instances.

    Returns:
        [{file_name, sem_seg_file_name, instance_file_name, image_id}], sorted by image_id, "CITY_000000_000019".
        An image without a file of instance ids lacks that key.

    Raises:
        FileNotFoundError: if a folder, or the label of an image, is missing.
        ValueError: if there are no images.
    """
    check_folders(name, "prepare_cityscapes.py", image_dir, label_dir)
    images = sorted(path for path in image_dir.glob(f"*/*{IMAGE_SUFFIX}") if not path.name.startswith("."))
    if not images:
        raise ValueError(f"{name}: no images (CITY/*{IMAGE_SUFFIX}) in {image_dir.absolute()}.")
    present = {path.relative_to(label_dir).as_posix() for path in label_dir.glob("*/*_gtFine_*.png")}
    records, unlabelled, plain = [], [], 0
    for image in images:
        key = image.name.removesuffix(IMAGE_SUFFIX)
        label, instances = (f"{image.parent.name}/{key}{suffix}" for suffix in (LABEL_SUFFIX, INSTANCE_SUFFIX))
        record = {"file_name": str(image), "sem_seg_file_name": str(label_dir / label), "image_id": key}
        if label not in present:
            unlabelled.append(label)
        if instances in present:
            record["instance_file_name"] = str(label_dir / instances)
        else:
            plain += 1
        records.append(record)
    if unlabelled:
        raise FileNotFoundError(
            f"{name}: {len(unlabelled)} of {len(images)} images have no label file, for instance "
            f"{label_dir / unlabelled[0]}. Make them with python datasets/prepare_cityscapes.py."
        )
    if plain:
        logger.warning("%s: %d of %d images have no %s.", name, plain, len(images), INSTANCE_SUFFIX)
    return records


def _refuse_test(image_dir: Path, label_dir: Path, *, name: str) -> list[dict[str, Any]]:
    raise ValueError(
        f"{name}: the labels of this split are not public. Name cityscapes_fine_sem_seg_val; tools/predict.py predicts "
        f"the images in {image_dir} without labels."
    )
