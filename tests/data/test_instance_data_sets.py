"""tiny_coco, camvid_instances, and the catalog of data sets of instances."""

import json
import os
import runpy
import shutil
from pathlib import Path

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from sgr_d2.data.datasets import get_dataset_records, register_all, register_things, thing_metadata_of
from sgr_d2.data.datasets.camvid_instances import MIN_AREA, find_instances, write_annotations


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty $DETECTRON2_DATASETS, with the data sets of the package registered there."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    register_all()
    yield tmp_path
    monkeypatch.undo()
    register_all()


def street(size=(60, 90)) -> np.ndarray:
    """Two cars that do not touch, a pedestrian, a fragment of one, road below, the rest not labelled."""
    labels = np.full(size, 255, np.uint8)
    labels[40:] = 3
    labels[30:45, 5:25] = 8
    labels[30:45, 50:70] = 8
    labels[10:40, 30:36] = 9
    labels[2:6, 80:84] = 9
    return labels


def write_camvid(root, labels, split="val"):
    for kind, pixels in (("images", np.zeros((*labels.shape, 3), np.uint8)), ("labels", labels)):
        (root / "camvid" / kind / split).mkdir(parents=True)
        Image.fromarray(pixels).save(root / "camvid" / kind / split / "a.png")


def test_pieces_of_four_classes_by_hand():
    found = find_instances(street())
    assert MIN_AREA == 100
    assert sorted((a["category_id"], *a["bbox"]) for a in found) == [
        (0, 5, 30, 20, 15),
        (0, 50, 30, 20, 15),
        (1, 30, 10, 6, 30),
    ]
    masks = sum(coco_mask.decode(a["segmentation"]).astype(int) for a in found)
    expected = np.isin(street(), (8, 9))
    expected[:8, 78:] = False
    assert masks.tolist() == expected.astype(int).tolist()
    assert all(a["bbox_mode"] == BoxMode.XYWH_ABS and not a["iscrowd"] for a in found)
    assert find_instances(np.full((5, 4), 255, np.uint8)) == []


def test_from_labels_or_from_the_file_the_records_are_the_same(root):
    write_camvid(root, street())
    made = DatasetCatalog.get("camvid_instances_val")
    assert not MetadataCatalog.get("camvid_instances_val").get("json_file")
    counts = write_annotations("val", root / "camvid_instances")
    assert counts == {"Car": 2, "Pedestrian": 1, "Bicyclist": 0, "SignSymbol": 0}
    register_all()
    assert Path(MetadataCatalog.get("camvid_instances_val").json_file).is_file()
    read = DatasetCatalog.get("camvid_instances_val")
    assert json.dumps(read, sort_keys=True) == json.dumps(made, sort_keys=True)
    assert read[0]["file_name"] == str(root / "camvid/images/val/a.png")
    assert thing_metadata_of(["camvid_instances_val"]).classes == ["Car", "Pedestrian", "Bicyclist", "SignSymbol"]


def test_the_script(root, capsys):
    script = runpy.run_path(str(Path(__file__).parents[2] / "datasets/prepare_camvid_instances.py"))
    write_camvid(root, street())
    script["main"](["--splits", "val", "--output", str(root / "elsewhere")])
    assert "instances_val.json: 3 instances (2 Car, 1 Pedestrian, 0 Bicyclist, 0 SignSymbol)" in capsys.readouterr().out
    script["main"](["--splits", "val"])
    files = [root / folder / "instances_val.json" for folder in ("elsewhere", "camvid_instances")]
    assert files[0].read_text() == files[1].read_text()
    with pytest.raises(SystemExit) as stop:
        script["main"](["--splits", "train"])
    assert stop.value.code == 1 and "train: camvid_train: no folder" in capsys.readouterr().err


def test_data_that_is_not_there(root):
    with pytest.raises(FileNotFoundError, match=r"instances_train2017\.json.*DETECTRON2_DATASETS"):
        DatasetCatalog.get("tiny_coco_train")
    with pytest.raises(FileNotFoundError, match=r"camvid.images.train.*DETECTRON2_DATASETS"):
        DatasetCatalog.get("camvid_instances_train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"there is no .*mine\.json"),
        ("{", r"mine\.json is not in COCO's format"),
        ('{"images": [], "annotations": [], "categories": []}', r"mine\.json is not in COCO's format"),
        (
            '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}',
            r"mine\.json is not in COCO's format for instances: no 'height'",
        ),
        ("[]", r"mine\.json is not in COCO's format"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', r"no 'file_name'"),
        (
            json.dumps(
                {
                    "images": [{"id": 1, "file_name": "a.png", "height": 2, "width": 2}],
                    "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, 1, 1], "iscrowd": 0}],
                    "categories": [{"id": 1, "name": "a"}],
                }
            ),
            r"mine\.json.*category_id=5",
        ),
    ],
)
def test_a_users_own_annotation_file_is_named(tmp_path, content, message):
    name, file = f"mine_{tmp_path.name}", tmp_path / "mine.json"
    if content is not None:
        file.write_text(content)
    register_coco_instances(name, {}, str(file), str(tmp_path))
    try:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            thing_metadata_of([name])
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_names_keep_their_owner_and_classes_must_agree():
    names = ["things_a", "things_b"]
    try:
        for name, classes in zip(names, (["x", "y"], ["x"]), strict=True):
            register_things(name, list, owner="test", classes=classes)
            register_things(name, list, owner="test", classes=classes)  # again: replaced
        with pytest.raises(
            ValueError, match=r"'things_a' and 'things_b' cannot be used together.*2 and 1 classes \(y in one"
        ):
            thing_metadata_of(names)
        register_things("things_b", list, owner="test", classes=["x", "z"])
        with pytest.raises(ValueError, match=r"together: their class 1 is 'y' and 'z'"):
            thing_metadata_of(names)
        with pytest.raises(ValueError, match=r"'things_a' already belongs to another"):
            register_things("things_a", list, owner="somebody", classes=["x"])
        metadata = thing_metadata_of(["things_a"])
        assert metadata.classes == ["x", "y"] and len(metadata.colors) == 2
    finally:
        for name in names:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    with pytest.raises(ValueError, match=r"DATASETS.TRAIN and DATASETS.TEST are empty"):
        thing_metadata_of([])


def write_tiny_coco(root) -> None:
    """One image with a toothbrush, whose id in COCO is 90, and its index 79."""
    folder = root / "tiny_coco"
    for child in ("annotations", "val2017"):
        (folder / child).mkdir(parents=True)
    Image.new("RGB", (30, 20)).save(folder / "val2017" / "1.png")
    brush = {"id": 1, "image_id": 1, "category_id": 90, "bbox": [2, 3, 10, 8], "area": 80, "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "1.png", "height": 20, "width": 30}],
        "annotations": [brush],
        "categories": [{"id": c["id"], "name": c["name"]} for c in COCO_CATEGORIES if c["isthing"]],
    }
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(content))


def test_registering_again_keeps_what_reading_has_learnt(root, tmp_path):
    """COCO's evaluation needs the ids of the categories; without them the truth as prediction has an AP of 0."""
    name = "tiny_coco_val"
    write_tiny_coco(root)
    (record,) = DatasetCatalog.get(name)
    metadata = MetadataCatalog.get(name)
    register_all()  # as every load_config does
    assert MetadataCatalog.get(name) is metadata
    evaluator = COCOEvaluator(name, tasks=("bbox",), output_dir=str(tmp_path), use_fast_impl=False)
    evaluator.reset()
    truth = Instances((20, 30), pred_boxes=Boxes(torch.tensor([[2.0, 3, 12, 11]])))
    truth.scores, truth.pred_classes = torch.ones(1), torch.tensor([79])
    evaluator.process([record], [{"instances": truth}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)


def test_other_content_replaces_the_metadata():
    """Also if an entry is left out, as ``json_file`` is if the file does not exist."""
    name, options = "things_with_a_file", {"owner": "test", "classes": ["x"]}
    try:
        register_things(name, list, **options, json_file="a.json")
        first = MetadataCatalog.get(name)
        register_things(name, lambda: [{}], **options, json_file="a.json")
        assert MetadataCatalog.get(name) is first and DatasetCatalog.get(name) == [{}]
        register_things(name, list, **options)
        second = MetadataCatalog.get(name)
        assert second is not first and not second.get("json_file")
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_a_file_that_an_evaluation_has_made_is_forgotten(root, tmp_path):
    """It is in the output folder of another config, which may be gone."""
    write_camvid(root, street())
    name = "camvid_instances_val"
    COCOEvaluator(name, tasks=("bbox",), output_dir=str(tmp_path / "output"))
    shutil.rmtree(tmp_path / "output")
    register_all()
    assert len(get_dataset_records(name)) == 1
    COCOEvaluator(name, tasks=("bbox",), output_dir=str(tmp_path / "other"))


@pytest.mark.data
def test_tiny_coco_itself():
    if not (Path(os.environ.get("DETECTRON2_DATASETS", "datasets")) / "tiny_coco").is_dir():
        pytest.skip("no tiny_coco under $DETECTRON2_DATASETS")
    register_all()
    records = DatasetCatalog.get("tiny_coco_train")
    assert len(records) == 50 and sum(len(r["annotations"]) for r in records) == 470
    assert len(thing_metadata_of(["tiny_coco_train", "tiny_coco_val", "coco_2017_val"]).classes) == 80
