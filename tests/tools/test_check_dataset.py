"""The command line of tools/check_dataset.py."""

import json
import os
import shutil

import check_dataset
import miniatures
import numpy as np
import pytest
import yaml
from PIL import Image

from sgr_d2.data.datasets import dataset_root, register_all
from sgr_d2.data.reading import read_values


@pytest.fixture
def check(tmp_path, capsys):
    """``check(*arguments)`` runs the command line; it returns the exit code, what was printed, and the JSON reports."""

    def run(*arguments):
        code = check_dataset.main([*map(str, arguments), "--num-workers", "1", "--output", str(tmp_path / "out")])
        shown = capsys.readouterr()
        reports = {path.parent.name: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/check.json")}
        return code, shown.out + shown.err, reports

    return run


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return miniatures.prepared(tmp_path_factory.mktemp("check"))


@pytest.fixture
def published(tree, tmp_path, monkeypatch):
    """A copy of the miniatures as the root of the data sets."""
    root = tmp_path / "root"
    shutil.copytree(tree, root)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    yield root
    monkeypatch.undo()
    register_all()


def test_published_sets_are_in_order(published, check, tmp_path):
    names = ["coco_2017_train_stuff_10k_sem_seg", "ade20k_sem_seg_val", "cityscapes_fine_sem_seg_val"]
    code, text, reports = check(*names)
    assert code == 0
    assert text.count("no errors") == 3 and "suspicious" not in text
    assert set(reports) == set(names)
    assert reports["ade20k_sem_seg_val"]["num_images"] == 2
    assert reports["ade20k_sem_seg_val"]["unlabelled_share"] == pytest.approx(5 / 72)
    for name in names:
        with Image.open(tmp_path / "out" / name / "class_frequencies.png") as image:
            assert min(image.size) > 300


def test_ade20k_whose_zero_was_not_removed(published, check):
    source, target = (published / "ADEChallengeData2016" / name for name in ("annotations", "annotations_detectron2"))
    shutil.copytree(source, target, dirs_exist_ok=True)
    path = target / "validation/ADE_val_00000001.png"
    labels = read_values(path).copy()
    labels[labels == labels[-1, -1]] = 150
    Image.fromarray(labels).save(path)
    code, text, reports = check("ade20k_sem_seg_val")
    assert code == 1
    assert "error: label out of range, 1 times:" in text
    assert f"{path} holds 150" in text
    assert "suspicious: 150 occurs, one beyond the last class" in text
    assert reports["ade20k_sem_seg_val"]["wrong_values"] == {"150": 1}


def test_a_config_and_its_folders(tmp_path, check, monkeypatch):
    monkeypatch.chdir(os.path.dirname(check_dataset.__file__) + "/..")
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / split / kind).mkdir(parents=True)
        for index in range(3):
            labels = np.zeros((20, 30), np.uint8)
            labels[5 * index :] = index
            Image.fromarray(labels).save(tmp_path / split / f"labels/{index}.png")
            Image.fromarray(np.stack([labels * 80] * 3, -1)).save(tmp_path / split / f"images/{index}.jpg")
    (tmp_path / "val/images/1.jpg").write_bytes(b"broken")
    folders = {
        f"own_{split}": {
            "IMAGE_DIR": str(tmp_path / split / "images"),
            "LABEL_DIR": str(tmp_path / split / "labels"),
            "CLASSES": ["a", "b", "c"],
        }
        for split in ("train", "val")
    }
    config = {
        "_BASE_": os.path.abspath("configs/shapes/fpn_sgr.yaml"),
        "DATASETS": {"FOLDERS": folders, "TRAIN": ["own_train"], "TEST": ["own_val"]},
        "INPUT": {"COMPONENTS": {"MIN_AREA": 7}},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    code, text, reports = check(tmp_path / "own.yaml")
    assert code == 1
    assert list(reports["own_train"]["errors"]) == []
    assert f"Cannot read image file {tmp_path}/val/images/1.jpg" in reports["own_val"]["errors"]["unreadable image"][0]
    assert reports["own_val"]["min_area"] == 7
    assert [entry["images"] for entry in reports["own_val"]["classes"]] == [3, 1, 1]
    assert "own_train: 3 images" in text and "own_val: 3 images" in text


def test_limits_from_the_command_line(published, check):
    _, _, reports = check("ade20k_sem_seg_val", "--min-area", 1, "--max-components", 2)
    components = np.array(reports["ade20k_sem_seg_val"]["components_kept_small_cut"])
    assert (components[:, 0] == 2).all() and (components[:, 1] == 0).all() and (components[:, 2] > 0).all()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("ade20k_sem_seg_vall", "Unknown data set 'ade20k_sem_seg_vall'. Did you mean 'ade20k_sem_seg_val'?"),
        ("camvid_val", "camvid_val: no folder"),
        ("cityscapes_fine_sem_seg_test", "the labels of this split are not public"),
        ("missing.yaml", "missing.yaml: no such file"),
    ],
)
def test_what_cannot_be_checked(published, check, target, message):
    code, text, _ = check(target)
    assert code == 2
    assert message in text and "check_dataset.py: " in text


def test_an_output_that_cannot_be_written_is_found_before_the_files_are_read(published, check, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ade20k_sem_seg_val").write_text("in the way")
    code, text, _ = check("ade20k_sem_seg_val")
    assert code == 2 and "no errors" not in text
    assert text.startswith("check_dataset.py: ") and str(tmp_path / "out" / "ade20k_sem_seg_val") in text


def test_labels_that_are_all_ignored(published, check):
    for path in (published / "ADEChallengeData2016/annotations_detectron2/validation").iterdir():
        Image.fromarray(np.full_like(read_values(path), 255)).save(path)
    code, text, _ = check("ade20k_sem_seg_val")
    assert code == 1 and "suspicious: No pixel is labelled at all." in text


@pytest.mark.data
def test_real_camvid(check):
    if not (dataset_root() / "camvid").is_dir():
        pytest.skip("no camvid")
    code, text, reports = check("camvid_val")
    assert (code, reports["camvid_val"]["num_images"]) == (0, 101)
    assert "suspicious" not in text


@pytest.mark.parametrize("targets", [["a.yaml", "b.yaml"], ["camvid_train", "a.yaml"]])
def test_one_config_a_call(check, targets):
    code, text, _ = check(*targets)
    assert (
        code == 2 and text == f"check_dataset.py: {' '.join(targets)}: give either one config or names of data sets.\n"
    )
