import os
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from sgr_d2.data.datasets import (
    dataset_root,
    get_dataset_records,
    metadata_of,
    register_all,
    register_semantic,
    semantic_names,
    thing_metadata_of,
)
from sgr_d2.data.datasets.palette import generate_colors
from sgr_d2.data.mapper import SemanticMapper


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty $DETECTRON2_DATASETS, with the data sets of the package registered there."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    register_all()
    yield tmp_path
    monkeypatch.undo()
    register_all()


@pytest.fixture
def register():
    """Registers small data sets and removes them again."""
    names = []

    def do(name, load=list, **options):
        names.append(name)
        options = {"owner": "test", "classes": ["a", "b"], "image_root": "i", "sem_seg_root": "l", **options}
        register_semantic(name, load, **options)

    yield do
    for name in set(names) & set(DatasetCatalog):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_root(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", "~/data")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert dataset_root() == tmp_path / "data"
    monkeypatch.setenv("DETECTRON2_DATASETS", "")
    assert dataset_root() == Path("datasets")
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert dataset_root() == Path("datasets")


def test_all_are_registered_and_may_be_again(root):
    before = [MetadataCatalog.get(name) for name in ("camvid_val", "shapes_val", "tiny_coco_val")]
    register_all()
    assert all(MetadataCatalog.get(metadata.name) is metadata for metadata in before)
    names = {"camvid_train", "camvid_val", "camvid_test", "shapes_train", "shapes_val", "ade20k_sem_seg_val"}
    assert names <= set(semantic_names())
    metadata = metadata_of(["camvid_train", "camvid_val"])
    assert (len(metadata.classes), metadata.ignore_label) == (11, 255)
    assert (metadata.classes[8], metadata.colors[8]) == ("Car", (64, 0, 128))


def test_camvid_is_read_from_its_folders(root, write_pair, scene):
    for kind in ("images", "labels"):
        (root / "camvid" / kind).mkdir(parents=True)
    record = write_pair("val/a", scene)  # under root, as both are tmp_path
    for kind in ("images", "labels"):
        (root / kind / "val").rename(root / "camvid" / kind / "val")
    (found,) = get_dataset_records("camvid_val")
    assert found["image_id"] == "a"
    assert found["file_name"] == record["file_name"].replace("/images/", "/camvid/images/")
    mapper = SemanticMapper(is_train=True, augmentations=[], num_classes=11)
    assert np.array_equal(mapper(found)["sem_seg"].numpy(), scene)


def test_missing_camvid(root, monkeypatch):
    message = rf"camvid_train: no folder {root}/camvid/images/train\. \$DETECTRON2_DATASETS is set to {root}\..*README"
    with pytest.raises(FileNotFoundError, match=message):
        get_dataset_records("camvid_train")
    monkeypatch.delenv("DETECTRON2_DATASETS")
    monkeypatch.chdir(root)
    register_all()
    message = (
        rf"no folder {root}/datasets/camvid/images/val\. \$DETECTRON2_DATASETS is not set, .* in {root}/datasets\."
    )
    with pytest.raises(FileNotFoundError, match=message):
        get_dataset_records("camvid_val")


def test_unknown_names(root):
    message = "Unknown data set 'camvid_trian'. Did you mean 'camvid_train'.*Known: .*shapes_val.*DATASETS.FOLDERS"
    for use in (get_dataset_records, lambda name: metadata_of([name])):
        with pytest.raises(ValueError, match=message):
            use("camvid_trian")
    assert "camvid_trian" not in MetadataCatalog


@pytest.mark.parametrize(
    "use", [get_dataset_records, lambda name: metadata_of([name]), lambda n: thing_metadata_of([n])]
)
def test_unknown_names_may_be_those_of_detection(root, use):
    message = "Unknown data set 'tiny_coco_trian'. Did you mean 'tiny_coco_train'.*Known: .*camvid_val.*tiny_coco_val"
    with pytest.raises(ValueError, match=message):
        use("tiny_coco_trian")


def test_an_empty_data_set(register):
    register("nothing", image_root="/data/nothing")
    with pytest.raises(ValueError, match="Data set 'nothing' is empty: no images in /data/nothing"):
        get_dataset_records("nothing")


def test_errors_of_the_loader_pass(register):
    def load():
        raise FileNotFoundError("no folder x")

    register("broken", load)
    with pytest.raises(FileNotFoundError, match="no folder x"):
        get_dataset_records("broken")


def test_data_sets_that_agree(register):
    register("left")
    register("right")
    assert metadata_of(["left", "right"]) == metadata_of(["left"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ignore_label": 7}, "their ignore labels are 255 and 7"),
        ({"classes": ["a"]}, "they have 2 and 1 classes"),
        ({"classes": ["a", "c"]}, "their class 1 is 'b' and 'c'"),
    ],
)
def test_data_sets_that_do_not(register, options, message):
    register("left")
    register("same")
    register("right", **options)
    with pytest.raises(ValueError, match=f"'left' and 'right' cannot be used together: {message}"):
        metadata_of(["left", "same", "right"])


def test_no_names_and_no_classes():
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN and DATASETS\.TEST are empty"):
        metadata_of([])
    with pytest.raises(ValueError, match="'coco_2017_train' has no semantic classes"):
        metadata_of(["coco_2017_train"])


def test_colours_are_one_a_class(register):
    register("painted", colors=[(1, 2, 3)])
    with pytest.raises(ValueError, match="'painted' has 1 stuff_colors for 2 stuff_classes: give one per class"):
        metadata_of(["painted"])


def test_detectron2_sets_get_colours_and_an_ignore_label():
    classes, colors, ignore_label = metadata_of(["ade20k_sem_seg_train", "ade20k_sem_seg_val"])
    assert len(classes) == len(colors) == 150
    assert ignore_label == 255


@pytest.mark.parametrize("count", [0, 1, 7, 8, 171, 1000])
def test_generated_colours_are_distinct_and_stable(count):
    colors = generate_colors(count)
    assert len(set(colors)) == len(colors) == count
    assert all(isinstance(x, int) and 0 <= x <= 255 for color in colors for x in color)
    assert generate_colors(count + 3)[:count] == colors


@pytest.mark.data
@pytest.mark.parametrize(("name", "count"), [("camvid_train", 367), ("camvid_val", 101)])
def test_real_camvid(name, count):
    if not (dataset_root() / "camvid").is_dir():
        pytest.skip(f"no camvid under {os.environ.get('DETECTRON2_DATASETS', 'datasets')}")
    register_all()
    records = get_dataset_records(name)
    assert len(records) == count
    mapper = SemanticMapper(is_train=True, augmentations=[], num_classes=11)
    for record in records:
        output = mapper(record)
        assert output["image"].shape == (3, 360, 480)
        assert output["components"].max() == len(output["component_classes"]) > 1
