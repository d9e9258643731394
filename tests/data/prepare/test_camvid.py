"""CamVid of the SegNet tutorial: 11 becomes 255; what is missing, wrong or in the way is named."""

import logging
import shutil

import numpy as np
import pytest
from miniatures import camvid
from PIL import Image

from sgr_d2.data.datasets.pairs import load_image_label_folder
from sgr_d2.data.prepare import carry_out, plan_camvid
from sgr_d2.data.reading import read_label, read_values


def failures(plan):
    return [failure for report in carry_out(plan, progress=False) for failure in report.failures]


def everything(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_11_becomes_255_and_the_rest_stays(tmp_path):
    folder = camvid(tmp_path, train=1, val=1)
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(folder / "train/0000.png")
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(folder / "trainannot/0000.png")
    assert failures(plan_camvid(tmp_path)) == []
    (record,) = load_image_label_folder(folder / "images/train", folder / "labels/train")
    labels = read_label(record["sem_seg_file_name"], num_classes=11, ignore_label=255)
    assert labels.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 255]]
    assert (folder / "images/train/0000.png").read_bytes() == (folder / "train/0000.png").read_bytes()


def test_counts_and_a_repeated_run_that_changes_nothing(tmp_path):
    folder = camvid(tmp_path, train=3, val=2)
    first = carry_out(plan_camvid(tmp_path), progress=False)
    assert [(report.name, report.published, dict(report.states)) for report in first] == [
        ("train", 367, {"written": 3}),
        ("val", 101, {"written": 2}),
    ]
    assert first[0].unlabelled == pytest.approx(5 / 72)
    before = everything(folder)
    again = carry_out(plan_camvid(tmp_path), progress=False)
    assert [dict(report.states) for report in again] == [{"kept": 3}, {"kept": 2}]
    assert everything(folder) == before


def test_files_without_a_partner(tmp_path):
    folder = camvid(tmp_path, train=2, val=2)
    (folder / "trainannot/0001.png").unlink()
    (folder / "val/0000.png").unlink()
    assert failures(plan_camvid(tmp_path)) == [
        f"{folder}/train/0001.png: has no label map.",
        f"{folder}/valannot/0000.png: has no image.",
    ]
    assert [path.name for path in (folder / "images/train").iterdir()] == ["0000.png"]


@pytest.mark.parametrize(("value", "hint"), [(12, ""), (255, "it looks converted: ")])
def test_values_that_camvid_does_not_have(tmp_path, value, hint):
    folder = camvid(tmp_path, train=2, val=1)
    path = folder / "trainannot/0001.png"
    Image.fromarray(np.full((72, 96), value, np.uint8)).save(path)
    (failure,) = failures(plan_camvid(tmp_path))
    assert failure.startswith(f"{path}: holds {value}; the values of this release are 0 to 10 and 11 (not labelled).")
    assert hint in failure
    assert not (folder / "images/train/0001.png").exists() and not (folder / "labels/train/0001.png").exists()


def test_sizes_that_differ(tmp_path):
    folder = camvid(tmp_path, train=1, val=1)
    Image.fromarray(np.zeros((72, 95), np.uint8)).save(folder / "trainannot/0000.png")
    (failure,) = failures(plan_camvid(tmp_path))
    assert "trainannot/0000.png: the label map has 95x72 pixels" in failure and failure.endswith("96x72.")


def test_what_is_in_the_way_is_kept(tmp_path):
    """Labels of which 1 was subtracted, and images of another kind."""
    folder = camvid(tmp_path, train=1, val=1)
    for name in ("images/train", "labels/train"):
        (folder / name).mkdir(parents=True)
    Image.fromarray(read_values(folder / "trainannot/0000.png") - np.uint8(1)).save(folder / "labels/train/0000.png")
    Image.fromarray(np.zeros((72, 96, 3), np.uint8)).save(folder / "images/train/0000.jpg")
    (folder / "images/train/notes.txt").touch()
    before = everything(folder / "labels")
    strange, shifted = failures(plan_camvid(tmp_path))
    assert strange == f"{folder}/images/train/0000.jpg: is not made from the published files; move it away."
    assert f"{folder}/labels/train/0000.png: exists and differs from the result of its source in 100 %" in shifted
    assert {path: state for path, state in everything(folder / "labels").items() if path in before} == before


def test_a_split_that_is_not_there_is_logged(tmp_path, caplog):
    folder = camvid(tmp_path, train=1, val=1)
    with caplog.at_level(logging.WARNING):
        assert [split.name for split in plan_camvid(tmp_path).splits] == ["train", "val"]
    assert caplog.messages == [f"The split test is left out: no folder {folder}/test, {folder}/testannot."]


def test_a_split_without_labels(tmp_path):
    folder = camvid(tmp_path, train=1, val=1)
    shutil.rmtree(folder / "valannot")
    with pytest.raises(FileNotFoundError, match=rf"No folder {folder}/valannot\."):
        plan_camvid(tmp_path)
    assert [split.name for split in plan_camvid(tmp_path, partial=True).splits] == ["train"]


def test_another_root(tmp_path):
    camvid(tmp_path, train=1, val=1)
    with pytest.raises(FileNotFoundError, match=r"No folder .*/camvid/camvid/train\. .*--root names another place"):
        plan_camvid(tmp_path / "camvid")
