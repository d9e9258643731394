"""COCO-Stuff: two releases of .mat files, told apart by looking, and the pixel maps of 164K."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from miniatures import UNLABELLED, UNLABELLED_ROWS, coco_stuff_10k, coco_stuff_164k, draw
from PIL import Image
from scipy.io import savemat

from sgr_d2.data.datasets import register_all
from sgr_d2.data.datasets.coco_stuff import coco_stuff_classes
from sgr_d2.data.prepare import carry_out, plan_coco_stuff_10k, plan_coco_stuff_164k
from sgr_d2.data.prepare.coco_stuff_10k import read_mat, recognise_release
from sgr_d2.data.reading import read_values

needs_h5py = pytest.mark.skipif(importlib.util.find_spec("h5py") is None, reason="release 1.0 needs h5py")
RELEASES = ["1.1", pytest.param("1.0", marks=needs_h5py)]
KEY = "COCO_train2014_{:012d}"


def prepare(plan):
    return carry_out(plan, progress=False)


def failures(reports):
    return [failure for report in reports for failure in report.failures]


def test_the_classes():
    classes = coco_stuff_classes()
    assert len(classes) == len({entry.name for entry in classes}) == 171
    assert (classes[0].name, classes[0].coco_id) == ("person", 1)
    assert (classes[11].name, classes[11].coco_id) == ("stop sign", 13)  # 12 is one of the eleven empty ids
    assert (classes[170].name, classes[170].coco_id) == ("wood", 182)
    assert sum(entry.isthing for entry in classes) == 80
    register_all()
    things = MetadataCatalog.get("coco_2017_val_stuff_sem_seg").thing_classes
    assert len(things) == 80 and things[0] == "person" and "wall-brick" not in things
    assert [entry.coco_id for entry in classes] == sorted(entry.coco_id for entry in classes)


@pytest.mark.parametrize("release", RELEASES)
def test_both_releases_give_the_drawn_classes(tmp_path, release):
    folder = coco_stuff_10k(tmp_path, release=release, train=2, test=1)
    plan = plan_coco_stuff_10k(tmp_path)
    assert plan.title == f"COCO-Stuff 10K, release {release} (171 classes)"
    reports = prepare(plan)
    assert [(report.name, report.num_ready, report.failures) for report in reports] == [
        ("train", 2, []),
        ("test", 1, []),
    ]
    for index, split in enumerate(("train", "train", "test")):
        image, classes, _ = draw(index, 171)
        key = KEY.format(index + 77)
        labels = read_values(folder / f"annotations_detectron2/{split}/{key}.png")
        assert np.array_equal(labels, np.where(classes == UNLABELLED, 255, classes))
        assert (labels[:UNLABELLED_ROWS] == 255).all()
        copy = folder / f"images_detectron2/{split}/{key}.jpg"
        assert copy.read_bytes() == (folder / f"images/{key}.jpg").read_bytes()
        assert image.shape[:2] == labels.shape


@pytest.mark.parametrize("release", RELEASES)
def test_a_file_is_recognised_by_its_first_bytes(tmp_path, release):
    folder = coco_stuff_10k(tmp_path, release=release, train=1, test=1)
    assert recognise_release(folder / f"annotations/{KEY.format(77)}.mat") == release


@pytest.mark.parametrize("content", [b"", b"MATLAB", b"<!DOCTYPE html>" * 300])
def test_no_mat_file(tmp_path, content):
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    assert recognise_release(path) is None
    with pytest.raises(ValueError, match=r"a\.mat: is not a MATLAB file, or truncated; the others are of release 1\.1"):
        read_mat(path, "1.1")


@needs_h5py
def test_hdf5_without_the_block_of_matlab(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["S"] = np.array([[2, 3, 4], [1, 1, 172]]).T
    assert recognise_release(tmp_path / "a.mat") == "1.0"
    assert read_mat(tmp_path / "a.mat", "1.0").tolist() == [[2, 3, 4], [1, 1, 172]]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_files_cut_short_are_listed_and_the_others_go_on(tmp_path, release, share):
    folder = coco_stuff_10k(tmp_path, release=release, train=3, test=1)
    broken = folder / f"annotations/{KEY.format(78)}.mat"
    content = broken.read_bytes()
    if release == "1.1":  # the map stands first: behind it, a cut does no harm
        content = content[: 128 + 8 + int.from_bytes(content[132:136], "little")]
    broken.write_bytes(content[: int(share * len(content))])
    reports = prepare(plan_coco_stuff_10k(tmp_path))
    (failure,) = failures(reports)
    assert failure.startswith(f"{broken}: is damaged or truncated (")
    assert [report.num_ready for report in reports] == [2, 1]
    assert not (folder / f"annotations_detectron2/train/{KEY.format(78)}.png").exists()


@needs_h5py
def test_the_wrong_release_by_name_is_an_error(tmp_path):
    coco_stuff_10k(tmp_path, release="1.0", train=1, test=1)
    message = r"annotations: its files are of release 1\.0 \(MATLAB 7\.3 \(HDF5\)\), not 1\.1 \(MATLAB 5\)"
    with pytest.raises(ValueError, match=message):
        plan_coco_stuff_10k(tmp_path, release="1.1")
    assert "release 1.0" in plan_coco_stuff_10k(tmp_path, release="1.0").title


@needs_h5py
def test_a_mixture_of_releases_is_an_error(tmp_path):
    folder = coco_stuff_10k(tmp_path, release="1.1", train=2, test=1)
    other = coco_stuff_10k(tmp_path / "other", release="1.0", train=2, test=1)
    name = f"annotations/{KEY.format(78)}.mat"
    (folder / name).write_bytes((other / name).read_bytes())
    (failure,) = failures(prepare(plan_coco_stuff_10k(tmp_path)))
    assert f"{KEY.format(78)}.mat: is of release 1.0 (MATLAB 7.3 (HDF5)); the others are of release 1.1" in failure


@pytest.mark.parametrize("value", [12, 183])
def test_ids_that_no_class_has(tmp_path, value):
    folder = coco_stuff_10k(tmp_path, train=1, test=1)
    path = folder / f"annotations/{KEY.format(77)}.mat"
    savemat(path, {"S": np.full((72, 96), value, np.uint8)})
    (failure,) = failures(prepare(plan_coco_stuff_10k(tmp_path)))
    assert failure.startswith(f"{path}: holds {value}; the values of this release are 0 (not labelled) and 1 to 182")


def test_a_mat_file_of_something_else(tmp_path):
    savemat(tmp_path / "a.mat", {"labels": np.ones((2, 2))})
    with pytest.raises(ValueError, match=r"a\.mat: has no label map \(a matrix S\)"):
        read_mat(tmp_path / "a.mat", "1.1")


def test_missing_parts_of_the_tree(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"No folder {tmp_path}/coco/coco_stuff_10k/images\. .*README"):
        plan_coco_stuff_10k(tmp_path)
    folder = coco_stuff_10k(tmp_path, train=1, test=1)
    (folder / f"annotations/{KEY.format(78)}.mat").unlink()
    (failure,) = failures(prepare(plan_coco_stuff_10k(tmp_path)))
    assert failure == f"{folder}/annotations/{KEY.format(78)}.mat: no such file, but its split lists it."
    (folder / f"images/{KEY.format(77)}.jpg").unlink()
    assert f"No image file {folder}/images/{KEY.format(77)}.jpg" in failures(prepare(plan_coco_stuff_10k(tmp_path)))[0]
    (folder / "imageLists/test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=rf"No list of the split test: {folder}/imageLists/test\.txt"):
        plan_coco_stuff_10k(tmp_path)
    assert [split.name for split in plan_coco_stuff_10k(tmp_path, partial=True).splits] == ["train"]
    (folder / "imageLists/train.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"train\.txt: the list of the split is empty"):
        plan_coco_stuff_10k(tmp_path, partial=True)


def test_no_file_is_of_a_known_release(tmp_path):
    folder = coco_stuff_10k(tmp_path, train=1, test=1)
    for path in (folder / "annotations").iterdir():
        path.write_text("not a mat file")
    with pytest.raises(ValueError, match=r"annotations: none of the 2 listed \.mat files exists and is of release 1\."):
        plan_coco_stuff_10k(tmp_path)


def test_a_list_may_end_in_blanks_but_not_repeat(tmp_path):
    folder = coco_stuff_10k(tmp_path, train=2, test=1)
    path = folder / "imageLists/train.txt"
    path.write_text(f"{KEY.format(77)} \r\n{KEY.format(78)}\r\n{KEY.format(77)}\r\n\r\n")
    reports = prepare(plan_coco_stuff_10k(tmp_path))
    assert reports[0].num_ready == 2
    assert failures(reports) == [f"{path}: lists {KEY.format(77)} more than once."]


def test_what_a_shorter_list_leaves_behind(tmp_path):
    folder = coco_stuff_10k(tmp_path, train=2, test=1)
    assert failures(prepare(plan_coco_stuff_10k(tmp_path))) == []
    (folder / "imageLists/train.txt").write_text(KEY.format(77))
    names = (f"annotations_detectron2/train/{KEY.format(78)}.png", f"images_detectron2/train/{KEY.format(78)}.jpg")
    expected = [f"{folder / name}: is not made from the published files; move it away." for name in names]
    assert failures(prepare(plan_coco_stuff_10k(tmp_path))) == expected


def test_a_photograph_in_both_lists(tmp_path):
    folder = coco_stuff_10k(tmp_path, train=2, test=1)
    with (folder / "imageLists/test.txt").open("a") as file:
        file.write(KEY.format(78))
    assert failures(prepare(plan_coco_stuff_10k(tmp_path))) == [
        f"{folder}/annotations/{KEY.format(78)}.mat: imageLists/test.txt lists it, and train.txt, too."
    ]


def test_stray_pixel_maps_of_164k(tmp_path):
    folder = coco_stuff_164k(tmp_path, train=1, val=1)
    stray = folder / "stuffthingmaps_detectron2/val2017/000000000999.png"
    stray.parent.mkdir(parents=True)
    stray.touch()
    (failure,) = failures(prepare(plan_coco_stuff_164k(tmp_path)))
    assert failure == f"{stray}: is not made from the published files; move it away."


def test_pixel_maps_of_164k(tmp_path):
    folder = coco_stuff_164k(tmp_path, train=2, val=1)
    raw = read_values(folder / "stuffthingmaps/train2017/000000000101.png")
    assert failures(prepare(plan_coco_stuff_164k(tmp_path))) == []
    labels = read_values(folder / "stuffthingmaps_detectron2/train2017/000000000101.png")
    names = {entry.coco_id - 1: label for label, entry in enumerate(coco_stuff_classes())} | {255: 255}
    assert np.array_equal(labels, np.vectorize(names.get)(raw))
    assert np.array_equal(labels[UNLABELLED_ROWS:], draw(101, 171)[1][UNLABELLED_ROWS:])
    assert (folder / "stuffthingmaps_detectron2/val2017/000000000200.png").exists()


@pytest.mark.parametrize(("value", "hint"), [(11, ""), (182, "it counts from 1")])
def test_pixel_maps_with_other_values(tmp_path, value, hint):
    folder = coco_stuff_164k(tmp_path, train=1, val=1)
    path = folder / "stuffthingmaps/val2017/000000000200.png"
    Image.fromarray(np.full((72, 96), value, np.uint8)).save(path)
    (failure,) = failures(prepare(plan_coco_stuff_164k(tmp_path)))
    assert failure.startswith(f"{path}: holds {value};")
    assert hint in failure


@pytest.mark.data
def test_real_photographs(tmp_path):
    """The layout of 164K around real COCO images of many sizes; labels made up from their brightness."""
    shared = Path(__file__).parents[4] / "shared/data/tiny_coco"
    if not shared.is_dir():
        pytest.skip("no tiny_coco")
    for split in ("train2017", "val2017"):
        for path in sorted((shared / split).glob("*.jpg"))[:4]:
            (tmp_path / "coco" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "coco/stuffthingmaps" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "coco" / split / path.name).write_bytes(path.read_bytes())
            labels = np.asarray(Image.open(path).convert("L")) // 128  # person or bicycle
            Image.fromarray(labels).save(tmp_path / "coco/stuffthingmaps" / split / f"{path.stem}.png")
    reports = prepare(plan_coco_stuff_164k(tmp_path))
    assert failures(reports) == []
    assert [report.num_ready for report in reports] == [4, 4]


@pytest.mark.data
def test_the_classes_are_those_of_the_list(tmp_path):
    shared = Path(__file__).parents[4] / "shared/data/coco_stuff_classes.json"
    if not shared.is_file():
        pytest.skip("no coco_stuff_classes.json")
    entries = json.loads(shared.read_text())["classes"]
    assert [entry._asdict() for entry in coco_stuff_classes()] == entries
