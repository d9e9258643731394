"""ADE20K and Cityscapes: the mapping of values, and what is wrong with a tree."""

import numpy as np
import pytest
from miniatures import UNLABELLED_ROWS, ade20k, cityscapes, draw, draw_street
from PIL import Image

from sgr_d2.data.prepare import carry_out, plan_ade20k, plan_cityscapes
from sgr_d2.data.reading import read_values


def failures(plan):
    return [failure for report in carry_out(plan, progress=False) for failure in report.failures]


def test_zero_of_ade20k_becomes_255(tmp_path):
    folder = ade20k(tmp_path, train=1, val=1)
    assert failures(plan_ade20k(tmp_path)) == []
    labels = read_values(folder / "annotations_detectron2/validation/ADE_val_00000001.png")
    assert (labels[:UNLABELLED_ROWS] == 255).all()
    assert np.array_equal(labels[UNLABELLED_ROWS:], draw(400, 150)[1][UNLABELLED_ROWS:])


def test_labels_of_ade20k_whose_zero_was_not_removed(tmp_path):
    folder = ade20k(tmp_path, train=2, val=1)
    source = folder / "annotations/training/ADE_train_00000002.png"
    target = folder / "annotations_detectron2/training/ADE_train_00000002.png"
    target.parent.mkdir(parents=True)
    target.write_bytes(source.read_bytes())
    (failure,) = failures(plan_ade20k(tmp_path))
    assert f"{target}: exists and is one too high everywhere: 0 for 'not labelled' was never removed" in failure
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(("value", "hint"), [(151, ""), (255, "it looks converted: ")])
def test_values_that_ade20k_does_not_have(tmp_path, value, hint):
    folder = ade20k(tmp_path, train=1, val=1)
    path = folder / "annotations/training/ADE_train_00000001.png"
    Image.fromarray(np.full((72, 96), value, np.uint8)).save(path)
    (failure,) = failures(plan_ade20k(tmp_path))
    assert failure.startswith(f"{path}: holds {value}; the values of this release are 0 (not labelled) and 1 to 150.")
    assert hint in failure


def test_colour_maps_of_the_full_ade20k(tmp_path):
    folder = ade20k(tmp_path, train=1, val=1)
    path = folder / "annotations/training/ADE_train_00000001.png"
    Image.fromarray(draw(0, 150)[0]).save(path)
    (failure,) = failures(plan_ade20k(tmp_path))
    assert f"Label {path} is of mode RGB" in failure


def test_labels_of_ade20k_that_nothing_makes(tmp_path):
    folder = ade20k(tmp_path, train=2, val=1)
    assert failures(plan_ade20k(tmp_path)) == []
    for name in ("images/training/ADE_train_00000002.jpg", "annotations/training/ADE_train_00000002.png"):
        (folder / name).unlink()
    stray = folder / "annotations_detectron2/training/ADE_train_00000002.png"
    assert failures(plan_ade20k(tmp_path)) == [f"{stray}: is not made from the published files; move it away."]


def test_train_ids_of_cityscapes(tmp_path):
    folder = cityscapes(tmp_path, train=2, val=1)
    assert failures(plan_cityscapes(tmp_path)) == []
    labels = read_values(folder / "gtFine/train/bochum/bochum_000001_000019_gtFine_labelTrainIds.png")
    ids = draw_street(501)[1]
    # the order of the 19 evaluated ids, by hand from the published table
    order = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    expected = np.full(ids.shape, 255)
    for train_id, number in enumerate(order):
        expected[ids == number] = train_id
    assert np.array_equal(labels, expected)
    assert (labels[:UNLABELLED_ROWS] == 255).all()


def test_all_ids_map_as_in_cityscapesscripts(tmp_path):
    helpers = pytest.importorskip("cityscapesscripts.helpers.labels")
    labels = [label for label in helpers.labels if label.id >= 0]
    Image.fromarray(np.array([[label.id for label in labels]], np.uint8)).save(tmp_path / "ids.png")
    cityscapes(tmp_path, train=1, val=1)
    found = plan_cityscapes(tmp_path).rule.labels_of(tmp_path / "ids.png")
    assert found.tolist() == [[label.trainId for label in labels]]


def test_what_is_missing_in_cityscapes(tmp_path):
    folder = cityscapes(tmp_path, train=2, val=1)
    image = folder / "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"
    label = folder / "gtFine/train/bochum/bochum_000001_000019_gtFine_labelIds.png"
    image.unlink()
    assert failures(plan_cityscapes(tmp_path)) == [
        f"{folder}/gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png: has no image."
    ]
    Image.fromarray(np.full((72, 96), 255, np.uint8)).save(label)
    assert "it looks like train ids: " in failures(plan_cityscapes(tmp_path))[1]
    with pytest.raises(FileNotFoundError, match=r"No folder .*/leftImg8bit/train"):
        plan_cityscapes(tmp_path / "elsewhere")
