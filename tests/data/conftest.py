"""A small data set on disk: one scene of hand-made labels, an image a label."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgr_d2.config import get_sgr_cfg
from sgr_d2.data.datasets import register_folders

CLASSES = ["ground", "box", "pole"]


def _write_pair(root: Path, key: str, labels: np.ndarray, image: np.ndarray | None = None) -> dict[str, str]:
    if image is None:
        rows, columns = np.indices(labels.shape)
        image = np.stack([labels * 40, rows % 256, columns % 256], axis=-1).astype(np.uint8)
    paths = {}
    for kind, array in (("images", image), ("labels", labels)):
        path = root / kind / f"{key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        paths[kind] = str(path)
    return {"file_name": paths["images"], "sem_seg_file_name": paths["labels"], "image_id": key}


@pytest.fixture
def write_pair(tmp_path):
    """``write_pair(key, labels, image=None)`` writes images/<key>.png and labels/<key>.png under ``tmp_path``.

    It returns the record. The default image encodes its label in red and a gradient in green and blue.
    """
    return partial(_write_pair, tmp_path)


@pytest.fixture
def scene() -> np.ndarray:
    """(37, 53) labels: ground with two boxes that do not touch, one of them cut by a pole; a strip is ignored."""
    labels = np.zeros((37, 53), np.uint8)
    labels[5:15, 4:20] = 1
    labels[20:33, 25:45] = 1
    labels[18:35, 34:36] = 2
    labels[:3] = 255
    return labels


@pytest.fixture
def folder_cfg(tmp_path, scene, write_pair):
    """A config that trains on seven pairs under ``tmp_path``, registered under a name of its own."""
    for index in range(7):
        write_pair(f"scene{index}", np.roll(scene, 3 * index, axis=1))
    name = f"pairs_of_{tmp_path.parent.name}_{tmp_path.name}"
    cfg = get_sgr_cfg()
    cfg.DATASETS.FOLDERS[name] = type(cfg)(
        {"IMAGE_DIR": str(tmp_path / "images"), "LABEL_DIR": str(tmp_path / "labels"), "CLASSES": CLASSES}
    )
    register_folders(cfg)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (name,)
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = (30, 60), "range"
    cfg.INPUT.MIN_SIZE_TEST = 0
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", [32, 40]
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 0.8
    cfg.INPUT.COLOR_AUG_SSD = True
    cfg.INPUT.COMPONENTS.MIN_AREA = 4
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg
