"""Miniature trees of the published data sets: their folders, file names, formats and label values, a few small images.

``coco_stuff_10k(root)``, ``coco_stuff_164k(root)``, ``ade20k(root)``, ``cityscapes(root)`` and ``camvid(root)`` write
the files as they are published; ``prepared(root)`` writes the first four and runs the preparation, so that every
registered split of theirs can be used with $DETECTRON2_DATASETS set to ``root``. Images are drawn scenes of several
classes, with an unlabelled strip at their top and touching instances.
"""

import json
from pathlib import Path

import numpy as np
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from PIL import Image
from scipy.io import savemat

from sgr_d2.data.datasets.coco_stuff import coco_stuff_classes
from sgr_d2.data.datasets.shapes import draw_scene
from sgr_d2.data.prepare import carry_out, plan_ade20k, plan_cityscapes, plan_coco_stuff_10k, plan_coco_stuff_164k

HEIGHT, WIDTH = 72, 96
UNLABELLED_ROWS = 5
UNLABELLED = -1
TRAIN, TEST = 3, 2
PLANS = {
    "coco_stuff_10k": plan_coco_stuff_10k,
    "coco_stuff_164k": plan_coco_stuff_164k,
    "ade20k": plan_ade20k,
    "cityscapes": plan_cityscapes,
}


def draw(index: int, num_classes: int, height: int = HEIGHT, width: int = WIDTH):
    """Return an image (H, W, 3), its classes (H, W) int64 with UNLABELLED, and its instances (H, W) int32."""
    rng = np.random.default_rng([77, index])
    scene = draw_scene(rng, height, width)
    classes = rng.permutation(num_classes)[: int(scene.labels.max()) + 1][scene.labels].astype(np.int64)
    classes[:UNLABELLED_ROWS] = UNLABELLED
    return scene.image, classes, scene.instances


def coco_stuff_10k(root: Path, *, release: str = "1.1", train: int = TRAIN, test: int = TEST) -> Path:
    """Write coco/coco_stuff_10k/{images,annotations,imageLists}; release "1.1" or "1.0"."""
    folder = root / "coco/coco_stuff_10k"
    for name in ("images", "annotations", "imageLists"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    ids = np.array([0, *(entry.coco_id for entry in coco_stuff_classes())])
    index = 0
    for split, count in (("train", train), ("test", test)):
        keys = []
        for _ in range(count):
            key = f"COCO_train2014_{index + 77:012d}"
            image, classes, _ = draw(index, 171)
            _save(image, folder / f"images/{key}.jpg")
            path = folder / f"annotations/{key}.mat"
            if release == "1.1":
                _save_mat5(ids[classes + 1].astype(np.uint8), path)
            else:
                _save_mat73((classes + 2).astype(np.uint8), path)
            keys.append(key)
            index += 1
        (folder / f"imageLists/{split}.txt").write_text("".join(f"{key}\n" for key in keys))
    return folder


def coco_stuff_164k(root: Path, *, train: int = TRAIN, val: int = TEST) -> Path:
    """Write coco/{train2017,val2017} and coco/stuffthingmaps/{train2017,val2017}."""
    folder = root / "coco"
    ids = np.array([255, *(entry.coco_id - 1 for entry in coco_stuff_classes())])
    for split, count, first in (("train2017", train, 100), ("val2017", val, 200)):
        for index in range(first, first + count):
            image, classes, _ = draw(index, 171)
            _save(image, folder / split / f"{index:012d}.jpg")
            _save(ids[classes + 1].astype(np.uint8), folder / "stuffthingmaps" / split / f"{index:012d}.png")
    return folder


def ade20k(root: Path, *, train: int = TRAIN, val: int = TEST) -> Path:
    """Write ADEChallengeData2016/{images,annotations}/{training,validation}, 0 for not labelled."""
    folder = root / "ADEChallengeData2016"
    for split, short, count, first in (("training", "train", train, 300), ("validation", "val", val, 400)):
        for index in range(count):
            image, classes, _ = draw(first + index, 150)
            key = f"{split}/ADE_{short}_{index + 1:08d}"
            _save(image, folder / f"images/{key}.jpg")
            _save((classes + 1).astype(np.uint8), folder / f"annotations/{key}.png")
    (folder / "sceneCategories.txt").write_text("ADE_train_00000001 street\n")
    return folder


def cityscapes(root: Path, *, train: int = TRAIN, val: int = TEST, height: int = HEIGHT, width: int = WIDTH) -> Path:
    """Write cityscapes/{leftImg8bit,gtFine}/{train,val}/CITY with label ids, instance ids and polygons.

    The last object of a scene of an instance class is a group: its instance id is that of its class.
    """
    folder = root / "cityscapes"
    splits = (("train", ("aachen", "bochum"), train, 500), ("val", ("frankfurt", "munster"), val, 600))
    for split, cities, count, first in splits:
        for index in range(count):
            image, label_ids, instance_ids = draw_street(first + index, height, width)
            city = cities[index % len(cities)]
            key = f"{split}/{city}/{city}_{index:06d}_000019"
            _save(image, folder / f"leftImg8bit/{key}_leftImg8bit.png")
            for kind, array in (("labelIds", label_ids), ("instanceIds", instance_ids)):
                _save(array, folder / f"gtFine/{key}_gtFine_{kind}.png")
            polygons = {"imgHeight": height, "imgWidth": width, "objects": []}
            (folder / f"gtFine/{key}_gtFine_polygons.json").write_text(json.dumps(polygons))
    return folder


def draw_street(index: int, height: int = HEIGHT, width: int = WIDTH):
    """Return an image, label ids (uint8) and instance ids (int32): stuff on both surfaces, stuff and things on them."""
    rng = np.random.default_rng([78, index])
    scene = draw_scene(rng, height, width)
    stuff, things = ([entry["id"] for entry in CITYSCAPES_CATEGORIES if entry["isthing"] == kind] for kind in (0, 1))
    stuff, things = rng.permutation(stuff), rng.permutation(things)
    # Classes 0 and 1 of a scene are its surfaces; of the objects, every third class is stuff, too.
    table = np.array([stuff[0], stuff[1], things[0], things[1], stuff[2], things[2], things[3], stuff[3]])
    label_ids = table[scene.labels]
    instance_ids = np.where(label_ids >= 24, 1000 * label_ids + scene.instances - 1, label_ids)
    grouped = scene.instances == scene.instances[label_ids >= 24].max()
    instance_ids[grouped] = label_ids[grouped]
    label_ids[:UNLABELLED_ROWS] = instance_ids[:UNLABELLED_ROWS] = 3  # out of roi
    return scene.image, label_ids.astype(np.uint8), instance_ids.astype(np.int32)


def camvid(root: Path, *, train: int = TRAIN, val: int = TEST) -> Path:
    """Write camvid/{train,trainannot,val,valannot} as the SegNet tutorial has them, 11 for not labelled; no test."""
    folder = root / "camvid"
    for split, count, first in (("train", train, 700), ("val", val, 800)):
        for index in range(count):
            image, classes, _ = draw(first + index, 11)
            classes[classes == UNLABELLED] = 11
            _save(image, folder / split / f"{index:04d}.png")
            _save(classes.astype(np.uint8), folder / f"{split}annot/{index:04d}.png")
    return folder


def prepared(root: Path, **sizes: int) -> Path:
    """Write all four trees, prepared; ``sizes`` (train, test) are the images of a split."""
    train, test = sizes.get("train", TRAIN), sizes.get("test", TEST)
    coco_stuff_10k(root, train=train, test=test)
    for build in (coco_stuff_164k, ade20k, cityscapes):
        build(root, train=train, val=test)
    return prepare(root, *PLANS)


def prepare(root: Path, *names: str) -> Path:
    """Run the preparation of the data sets of these names, keys of PLANS."""
    for name in names:
        reports = carry_out(PLANS[name](root, partial=True), progress=False)
        failures = [failure for report in reports for failure in report.failures]
        if failures:
            raise RuntimeError("\n".join(failures))
    return root


def _save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array.astype(np.uint16) if array.dtype == np.int32 else array)
    image.save(path, **({"quality": 90} if path.suffix == ".jpg" else {}))


def _save_mat5(labels: np.ndarray, path: Path) -> None:
    captions = np.array([["a scene"], ["a picture"]], dtype=object)
    regions = np.arange(labels.size, dtype=np.uint16).reshape(labels.shape)
    savemat(path, {"S": labels, "captions": captions, "regionMapStuff": regions}, do_compression=True)


def _save_mat73(labels: np.ndarray, path: Path) -> None:
    """As MATLAB 7.3 does: HDF5 behind a block of 512 bytes, columns first."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("S", data=labels.T, compression="gzip")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + b" " * 8 + b"\x00\x02IM")
