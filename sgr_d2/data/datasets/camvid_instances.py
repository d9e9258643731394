"""camvid_instances: boxes and masks of the connected pieces of four classes of CamVid.

Things that touch are one instance: CamVid's labels do not separate them. `prepare_camvid_instances.py` writes them to
files in COCO's format; without these they are made from CamVid's labels, within seconds, when the data set is used.
"""

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
import pycocotools.mask as coco_mask
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode

from sgr_d2.data.datasets import camvid
from sgr_d2.data.datasets.things import load_coco, register_things
from sgr_d2.data.reading import read_label
from sgr_d2.files import appearing_whole

CLASSES = ("Car", "Pedestrian", "Bicyclist", "SignSymbol")
# Pixels: smaller pieces are fragments behind other things, or unrecognisable at 480 x 360.
MIN_AREA = 100

logger = logging.getLogger(__name__)


def register_camvid_instances(root: Path) -> None:
    """Register ``camvid_instances_{train,val,test}``; ``root`` contains ``camvid`` and maybe ``camvid_instances``."""
    for split, number in camvid.PUBLISHED.items():
        name = f"camvid_instances_{split}"
        json_file = annotation_file(root / "camvid_instances", split)
        register_things(
            name,
            partial(_load, name, split, root, json_file),
            owner="camvid_instances",
            classes=CLASSES,
            thing_colors=[camvid.CLASSES[c] for c in CLASSES],
            image_root=str(root / "camvid" / "images" / split),
            num_published=number,
            **({"json_file": str(json_file)} if json_file.is_file() else {}),
        )


def annotation_file(folder: Path, split: str) -> Path:
    """The file with the annotations of a split in the folder ``camvid_instances``."""
    return folder / f"instances_{split}.json"


def write_annotations(split: str, folder: Path) -> dict[str, int]:
    """Write the instances of a split of CamVid to ``folder`` in COCO's format; the file is replaced atomically.

    Returns:
        {class: number of instances}.

    Raises:
        FileNotFoundError, ValueError: if CamVid is missing, or a label is invalid.
    """
    records = instance_records(split)
    annotations = [(r["image_id"], a) for r in records for a in r["annotations"]]
    content = {
        "info": {"description": f"Connected pieces of {', '.join(CLASSES)} in CamVid, at least {MIN_AREA} pixels"},
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
        "images": [_image_entry(r) for r in records],
        "annotations": [_annotation_entry(i + 1, image, a) for i, (image, a) in enumerate(annotations)],
    }
    with appearing_whole(annotation_file(folder, split)) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file)
    counts = np.bincount([a["category_id"] for _, a in annotations], minlength=len(CLASSES))
    return dict(zip(CLASSES, counts.tolist(), strict=True))


def instance_records(split: str) -> list[dict[str, Any]]:
    """The records of CamVid's ``split`` with "annotations" made from its labels, and integer image ids."""
    records = []
    for index, record in enumerate(DatasetCatalog.get(f"camvid_{split}")):
        labels = read_label(
            record["sem_seg_file_name"], num_classes=len(camvid.CLASSES), ignore_label=camvid.IGNORE_LABEL
        )
        records.append(
            {
                "file_name": record["file_name"],
                "image_id": index,
                "height": labels.shape[0],
                "width": labels.shape[1],
                "annotations": find_instances(labels),
            }
        )
    return records


def find_instances(labels: np.ndarray) -> list[dict[str, Any]]:
    """The annotations, in Detectron2's format, of the pieces in a label map (H, W) of CamVid's classes."""
    names = list(camvid.CLASSES)
    lookup = np.zeros(256, np.uint8)
    lookup[[names.index(name) for name in CLASSES]] = np.arange(1, len(CLASSES) + 1)
    wanted = lookup[labels]
    pieces = cc3d.connected_components(wanted, connectivity=8)
    areas = np.bincount(pieces.ravel())
    annotations = []
    for number in np.flatnonzero(areas[1:] >= MIN_AREA) + 1:
        mask = pieces == number
        code = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        annotations.append(
            {
                "bbox": coco_mask.toBbox(code).tolist(),
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": int(wanted[mask][0]) - 1,
                "segmentation": {"size": list(mask.shape), "counts": code["counts"].decode("ascii")},
                "iscrowd": 0,
            }
        )
    return annotations


def _load(name: str, split: str, root: Path, json_file: Path) -> list[dict[str, Any]]:
    if json_file.is_file():
        return load_coco(name, json_file, root / "camvid" / "images" / split)
    logger.info("%s: making instances from the labels of camvid_%s", name, split)
    return instance_records(split)


def _image_entry(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": record["image_id"],
        "file_name": Path(record["file_name"]).name,
        "height": record["height"],
        "width": record["width"],
    }


def _annotation_entry(number: int, image_id: int, annotation: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image_id,
        "category_id": annotation["category_id"] + 1,
        "bbox": annotation["bbox"],
        "area": int(coco_mask.area(annotation["segmentation"])),
        "segmentation": annotation["segmentation"],
        "iscrowd": 0,
    }
