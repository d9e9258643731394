"""The published data sets under the names and folders that users know."""

import logging
import shutil
from pathlib import Path

import miniatures
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin import register_all_ade20k, register_all_cityscapes

from sgr_d2.data.datasets import get_dataset_records, metadata_of, register_all, register_semantic, semantic_names
from sgr_d2.data.datasets.catalog import register_published
from sgr_d2.data.prepare import plan_coco_stuff_10k
from sgr_d2.data.prepare.convert import convert
from sgr_d2.data.reading import read_image, read_instances, read_label

SPLITS = {
    "coco_2017_train_stuff_10k_sem_seg": (3, 171),
    "coco_2017_test_stuff_10k_sem_seg": (2, 171),
    "coco_2017_train_stuff_sem_seg": (3, 171),
    "coco_2017_val_stuff_sem_seg": (2, 171),
    "ade20k_sem_seg_train": (3, 150),
    "ade20k_sem_seg_val": (2, 150),
    "cityscapes_fine_sem_seg_train": (3, 19),
    "cityscapes_fine_sem_seg_val": (2, 19),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return miniatures.prepared(tmp_path_factory.mktemp("published"))


@pytest.fixture
def root(monkeypatch, request):
    """Registers everything under a folder, and under the old one again at the end."""

    def use(path):
        monkeypatch.setenv("DETECTRON2_DATASETS", str(path))
        register_all()

    yield use
    monkeypatch.undo()
    register_all()


@pytest.mark.parametrize("name", SPLITS)
def test_every_split_is_read(tree, root, name):
    root(tree)
    count, num_classes = SPLITS[name]
    info = metadata_of([name])
    assert (len(info.classes), len(info.colors), info.ignore_label) == (num_classes, num_classes, 255)
    records = get_dataset_records(name)
    assert len(records) == len({record["image_id"] for record in records}) == count
    for record in records:
        image = read_image(record["file_name"])
        labels = read_label(record["sem_seg_file_name"], num_classes=num_classes, ignore_label=255)
        assert image.shape == (72, 96, 3)
        assert labels.shape == (72, 96)
        assert len(np.unique(labels)) > 3
        assert (labels[: miniatures.UNLABELLED_ROWS] == 255).all()


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *(("coco_2017_train_stuff_10k_sem_seg", 9000), ("coco_2017_test_stuff_10k_sem_seg", 1000)),
        *(("coco_2017_train_stuff_sem_seg", 118287), ("coco_2017_val_stuff_sem_seg", 5000)),
        *(("ade20k_sem_seg_train", 20210), ("ade20k_sem_seg_val", 2000)),
        *(("cityscapes_fine_sem_seg_train", 2975), ("cityscapes_fine_sem_seg_val", 500)),
    ],
)
def test_a_part_of_a_split_is_told_once(tree, root, tmp_path, caplog, name, number):
    (tmp_path / "root").symlink_to(tree)  # of whose own path other tests have been told
    root(tmp_path / "root")
    for _ in range(2):
        get_dataset_records(name)
    folder, count = MetadataCatalog.get(name).image_root, SPLITS[name][0]
    text = f"{name}: {count} images in {folder}, but its release has {number}: results are not those of the whole split"
    assert caplog.text.count(text) == 1


def test_an_interrupted_preparation_is_told(root, tmp_path, caplog):
    """Both folders have as many files, so that nothing else tells of it."""
    miniatures.coco_stuff_10k(tmp_path, train=3, test=4)
    plan = plan_coco_stuff_10k(tmp_path)
    for task in plan.splits[1].tasks[:3]:
        convert(task, rule=plan.rule)
    root(tmp_path)
    assert len(get_dataset_records("coco_2017_test_stuff_10k_sem_seg")) == 3
    assert "coco_2017_test_stuff_10k_sem_seg: 3 images in " in caplog.text


def test_a_whole_split_is_no_warning(tmp_path, caplog):
    options = {"owner": "test", "classes": ["a"], "image_root": tmp_path, "sem_seg_root": tmp_path}
    try:
        for number in (2, 3):
            records = [{"file_name": "a.jpg"}, {"file_name": "b.jpg"}]
            register_semantic("counted", lambda r=records: r, **options, extra={"num_published": number})
            get_dataset_records("counted")
            assert ("counted: 2 images in" in caplog.text) == (number == 3)
    finally:
        DatasetCatalog.remove("counted")
        MetadataCatalog.remove("counted")


def test_train_and_evaluation_split_agree(tree, root):
    root(tree)
    names = list(SPLITS)
    for first, second in zip(names[::2], names[1::2], strict=True):
        assert metadata_of([first]) == metadata_of([second])


def test_cityscapes_has_instances_and_its_own_evaluator(tree, root):
    root(tree)
    metadata = MetadataCatalog.get("cityscapes_fine_sem_seg_val")
    assert metadata.evaluator_type == "cityscapes_sem_seg"
    assert metadata.thing_classes == ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
    assert metadata.stuff_classes[:2] == ["road", "sidewalk"]
    assert metadata.stuff_colors[0] == (128, 64, 128)
    record = get_dataset_records("cityscapes_fine_sem_seg_val")[1]
    assert record["image_id"] == "munster_000001_000019"
    instances = read_instances(record["instance_file_name"], first_id=metadata.first_instance_id)
    ids = miniatures.draw_street(601)[2]
    assert np.array_equal(instances, np.where(ids >= 1000, ids, 0))
    assert instances.max() >= 24000


def test_the_root_is_looked_up_when_registering_not_when_importing(tree, root, tmp_path):
    root(tmp_path / "elsewhere")
    with pytest.raises(
        FileNotFoundError, match=rf"ade20k_sem_seg_val: no folder {tmp_path}/elsewhere/ADEChallengeData"
    ):
        get_dataset_records("ade20k_sem_seg_val")
    root(tree)
    assert len(get_dataset_records("ade20k_sem_seg_val")) == 2


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("coco_2017_train_stuff_10k_sem_seg", "prepare_coco_stuff_10k.py"),
        ("coco_2017_val_stuff_sem_seg", "prepare_coco_stuff_164k.py"),
        ("ade20k_sem_seg_train", "prepare_ade20k.py"),
        ("cityscapes_fine_sem_seg_train", "prepare_cityscapes.py"),
    ],
)
def test_what_to_do_where_the_data_is_missing(root, tmp_path, name, script):
    root(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"{name}: no folder .*Download the data and run .*{script}, .*README"):
        get_dataset_records(name)


@pytest.mark.parametrize(
    ("name", "label", "script"),
    [
        ("ade20k_sem_seg_val", "annotations_detectron2/validation/ADE_val_00000001.png", "prepare_ade20k.py"),
        (
            "coco_2017_val_stuff_sem_seg",
            "stuffthingmaps_detectron2/val2017/000000000200.png",
            "prepare_coco_stuff_164k.py",
        ),
    ],
)
@pytest.mark.parametrize("missing", ["label", "image"])
def test_a_tree_prepared_by_half_is_told_its_script(tree, root, tmp_path, name, label, script, missing):
    shutil.copytree(tree, tmp_path, dirs_exist_ok=True)
    root(tmp_path)
    (path,) = tmp_path.glob(f"*/{label}")
    if missing == "image":
        path = next(Path(r["file_name"]) for r in get_dataset_records(name) if r["sem_seg_file_name"] == str(path))
    path.unlink()
    with pytest.raises(ValueError, match=rf"{name}: 1 of 2 .*\. Run python datasets/{script} again: it makes") as e:
        get_dataset_records(name)
    assert "SUFFIX" not in str(e.value)


def test_cityscapes_as_it_was_downloaded(root, tmp_path):
    miniatures.cityscapes(tmp_path)
    root(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"3 of 3 images have no label file, .*_gtFine_labelTrainIds\.png\. Make"
    ):
        get_dataset_records("cityscapes_fine_sem_seg_train")


def test_cityscapes_without_instances(root, tmp_path, caplog):
    folder = miniatures.prepared(tmp_path) / "cityscapes"
    for path in folder.rglob("*_instanceIds.png"):
        path.unlink()
    root(tmp_path)
    with caplog.at_level(logging.WARNING):
        records = get_dataset_records("cityscapes_fine_sem_seg_val")
    assert not any("instance_file_name" in record for record in records)
    assert "2 of 2 images have no _gtFine_instanceIds.png" in caplog.text


def test_entries_of_detectron2_are_replaced(tree, root, monkeypatch):
    published = [name for name in SPLITS if not name.startswith("coco")]
    for name in [
        *published,
        "cityscapes_fine_sem_seg_test",
        *(n for n in DatasetCatalog if "cityscapes_fine_inst" in n),
    ]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    register_all_ade20k("nowhere")
    register_all_cityscapes("nowhere")
    assert MetadataCatalog.get("ade20k_sem_seg_val").sem_seg_root.startswith("nowhere")
    root(tree)
    root(tree)
    for name in published:
        assert len(get_dataset_records(name)) == SPLITS[name][0]
    assert "cityscapes_fine_sem_seg_test" in semantic_names()


def test_a_registration_of_other_code_is_kept(caplog):
    name = "published_by_somebody_else"
    DatasetCatalog.register(name, lambda: [{"file_name": "theirs"}])
    MetadataCatalog.get(name).set(stuff_classes=["a"])
    try:
        with caplog.at_level(logging.INFO):
            register_published(name, list, owner="us", classes=["a"], image_root="i", sem_seg_root="l")
        assert get_dataset_records(name) == [{"file_name": "theirs"}]
        assert f"{name} is already registered by other code" in caplog.text
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_cityscapes_test_has_no_public_labels(tree, root):
    root(tree)
    with pytest.raises(
        ValueError, match=r"_sem_seg_test: the labels of this split are not public\. Name .*_val; tools/"
    ):
        get_dataset_records("cityscapes_fine_sem_seg_test")
