"""Images and labels find each other by their names."""

import unicodedata
from pathlib import Path

import pytest

from sgr_d2.data.datasets import load_image_label_folder

LEFT_OUT = {"l/a_color.png", "l/a_mask.tif", "i/notes.png", "i/a.png"}


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_pairs_are_found_in_subfolders_and_sorted(tmp_path):
    touch(tmp_path / "i", "b.JPG", "town/a.tiff", "town/x.y.png", "a.jpeg", "notes.txt", ".hidden.png", ".cache/z.png")
    touch(tmp_path / "l", "a.png", "b.PNG", "town/a.png", "town/x.y.tif", "town/list.json")
    records = load_image_label_folder(tmp_path / "i", tmp_path / "l")
    assert [record["image_id"] for record in records] == ["a", "b", "town/a", "town/x.y"]
    assert records[3] == {
        "file_name": str(tmp_path / "i/town/x.y.png"),
        "sem_seg_file_name": str(tmp_path / "l/town/x.y.tif"),
        "image_id": "town/x.y",
    }
    assert [Path(record["sem_seg_file_name"]).name for record in records] == ["a.png", "b.PNG", "a.png", "x.y.tif"]


def test_links_to_folders_are_followed(tmp_path):
    touch(tmp_path, "elsewhere/a.jpg", "l/part/a.png", "i/b.jpg", "l/b.png")
    (tmp_path / "i/part").symlink_to(tmp_path / "elsewhere")
    assert [r["image_id"] for r in load_image_label_folder(tmp_path / "i", tmp_path / "l")] == ["b", "part/a"]


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mine: image folder /.*/i does not exist"):
        load_image_label_folder(tmp_path / "i", tmp_path / "l", name="mine")
    touch(tmp_path / "i", "a.gif")
    with pytest.raises(FileNotFoundError, match=r"mine: label folder /.*/l does not exist"):
        load_image_label_folder(tmp_path / "i", tmp_path / "l", name="mine")
    touch(tmp_path / "l", "a.png")
    with pytest.raises(ValueError, match=r"mine: no images \(\.jpg, .*\) in /.*/i"):
        load_image_label_folder(tmp_path / "i", tmp_path / "l", name="mine")


def test_lonely_files(tmp_path):
    touch(tmp_path / "i", *(f"{i}.jpg" for i in range(6)))
    touch(tmp_path / "l", "0.png", "1.jpg")
    with pytest.raises(
        ValueError, match=r"5 of 6 images have no label in .*1\.jpg, .*2\.jpg, .*3\.jpg, \.\.\.\. Image"
    ):
        load_image_label_folder(tmp_path / "i", tmp_path / "l")
    (tmp_path / "one.txt").write_text("1", encoding="utf-8")
    with pytest.raises(ValueError, match=r"/l/1\.jpg exists, but .* export them again, unless IMAGE_DIR and LABEL_DIR"):
        load_image_label_folder(tmp_path / "i", tmp_path / "l", split=tmp_path / "one.txt")
    touch(tmp_path / "l", *(f"{i}.png" for i in range(7)))
    with pytest.raises(ValueError, match=r"1 of 7 labels have no image in .*/i: .*6\.png\. Image"):
        load_image_label_folder(tmp_path / "i", tmp_path / "l")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\n5\n4.jpg\n", r"2 of 3 images are not in IMAGE_DIR: 4, 5\. Each line is .* as 0\."),
        ("\n", r"train\.txt: names no image\."),
        ("0\n1\n", r"1 of 2 images have no label in .*1\.jpg"),
    ],
)
def test_a_split_that_does_not_fit(tmp_path, text, message):
    touch(tmp_path, "i/0.jpg", "i/1.jpg", "l/0.png")
    folders = tmp_path / "i", tmp_path / "l"
    with pytest.raises(FileNotFoundError, match=r"mine: SPLIT: no file /.*train\.txt"):
        load_image_label_folder(*folders, name="mine", split=tmp_path / "train.txt")
    (tmp_path / "train.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_image_label_folder(*folders, name="mine", split=tmp_path / "train.txt")


def test_two_files_of_one_name(tmp_path):
    touch(tmp_path / "i", "a.jpg", "a.png")
    touch(tmp_path / "l", "a.png")
    with pytest.raises(ValueError, match=r"a\.jpg and .*a\.png only differ in file type"):
        load_image_label_folder(tmp_path / "i", tmp_path / "l")


@pytest.mark.parametrize(
    ("suffixes", "files", "expected"),
    [
        (("", "_mask"), {"i/a.jpg", "i/t/b.png", "l/a_mask.png", "l/t/b_Mask.TIF"}, ["a", "t/b"]),
        (("", "_mask.png"), {"i/a.jpg", "l/a_mask.PNG", "l/a_color.png", "l/a_mask.tif"}, ["a"]),
        (
            ("_leftImg8bit", "_gtFine_labelIds"),
            {"i/a_leftImg8bit.png", "i/notes.png", "l/a_gtFine_labelIds.png"},
            ["a"],
        ),
        ((".jpg", ""), {"i/a.JPG", "i/a.png", "l/a.png"}, ["a"]),
        (
            ("image.png", "label.png"),
            {"i/s1/image.png", "i/s2/image.png", "l/s1/label.png", "l/s2/label.png"},
            ["s1", "s2"],
        ),
        (("", "_x.y"), {"i/a.b.jpg", "l/a.b_x.y.png"}, ["a.b"]),
    ],
)
def test_names_that_end_differently(tmp_path, suffixes, files, expected):
    touch(tmp_path, *files)
    records = load_image_label_folder(
        tmp_path / "i", tmp_path / "l", image_suffix=suffixes[0], label_suffix=suffixes[1]
    )
    assert [record["image_id"] for record in records] == expected
    paths = {
        Path(record[key]).relative_to(tmp_path) for record in records for key in ("file_name", "sem_seg_file_name")
    }
    assert {str(path) for path in paths} == files - LEFT_OUT


@pytest.mark.parametrize(
    ("suffixes", "files"),
    [
        (("", "_mask"), {"a.png", "a_mask.png", "b_mask_2.png", "b_mask_2_mask.png"}),
        ((".jpg", ".png"), {"a.jpg", "a.png", "b_mask_2.JPG", "b_mask_2.PNG"}),
        (("_rgb", ""), {"a_rgb.png", "a.png", "b_mask_2_rgb.png", "b_mask_2.png"}),
    ],
)
def test_images_and_labels_in_one_folder(tmp_path, suffixes, files):
    touch(tmp_path, *files)
    records = load_image_label_folder(tmp_path, tmp_path / ".", image_suffix=suffixes[0], label_suffix=suffixes[1])
    assert [record["image_id"] for record in records] == ["a", "b_mask_2"]
    paths = {record[key] for record in records for key in ("file_name", "sem_seg_file_name")}
    assert paths == {str(tmp_path / file) for file in files}
    with pytest.raises(ValueError, match=r"mine: images and labels are both .* from .*, and nothing tells them apart"):
        load_image_label_folder(tmp_path, tmp_path, name="mine", image_suffix="_mask", label_suffix="_mask")


def test_labels_of_a_type_that_does_not_keep_values(tmp_path):
    touch(tmp_path, "i/sub/a.jpg", "i/b.jpg", "l/sub/a.JPG", "l/b.jpg")
    with pytest.raises(ValueError, match=r"2 of 2 images have no label .*b\.jpg exists, but labels are only read from"):
        load_image_label_folder(tmp_path / "i", tmp_path / "l")


def test_lists_that_come_from_windows(tmp_path):
    touch(tmp_path, "i/sub/a.jpg", "i/b.jpg", "l/sub/a.png", "l/b.png")
    split = tmp_path / "list.txt"
    split.write_bytes(b"\xef\xbb\xbfsub\\a.jpg\r\nb.jpg\r\n")
    assert len(load_image_label_folder(tmp_path / "i", tmp_path / "l", split=split)) == 2
    split.write_bytes("b.jpg".encode("utf-16"))
    with pytest.raises(ValueError, match=r"SPLIT: .*list\.txt is not UTF-8 text .* Save it as UTF-8\."):
        load_image_label_folder(tmp_path / "i", tmp_path / "l", split=split)


def test_lonely_files_and_suffixes(tmp_path):
    touch(tmp_path, "i/a.jpg", "l/a_mask.png")
    with pytest.raises(ValueError, match=r"1 of 1 images have no label .*set LABEL_SUFFIX for names as town_mask\.png"):
        load_image_label_folder(tmp_path / "i", tmp_path / "l")
    with pytest.raises(
        ValueError, match=r"Without IMAGE_SUFFIX '' and LABEL_SUFFIX '_label' their names must be the same"
    ):
        load_image_label_folder(tmp_path / "i", tmp_path / "l", label_suffix="_label")
    with pytest.raises(ValueError, match=r"no images \(_rgb\.jpg, _rgb\.jpeg, .*\) in"):
        load_image_label_folder(tmp_path / "i", tmp_path / "l", image_suffix="_rgb", label_suffix="_mask")
    with pytest.raises(ValueError, match=r"no images \(_rgb\.PNG\) in"):
        load_image_label_folder(tmp_path / "i", tmp_path / "l", image_suffix="_rgb.PNG", label_suffix="_mask")


@pytest.mark.parametrize("suffix", ["_rgb", "_rgb.jpg"])
def test_a_split_and_a_suffix(tmp_path, suffix):
    touch(tmp_path, "l/t/a.png", "l/b.png", "l/c.png", *(f"i/{name}_rgb.jpg" for name in ("t/a", "b", "c", "d")))
    (tmp_path / "train.txt").write_text("t/a\nb_rgb\n./c_rgb.jpg\n", encoding="utf-8")
    records = load_image_label_folder(tmp_path / "i", tmp_path / "l", image_suffix=suffix, split=tmp_path / "train.txt")
    assert [record["image_id"] for record in records] == ["b", "c", "t/a"]


@pytest.mark.parametrize("suffix", ["", "_mask"])
def test_an_umlaut_of_one_or_two_characters(tmp_path, suffix):
    """As names come from macOS."""
    one, two = (unicodedata.normalize(form, "Grün") for form in ("NFC", "NFD"))
    touch(tmp_path, f"i/{one}.jpg", f"l/{two}{suffix}.png")
    (tmp_path / "split.txt").write_text(f"{two}\n", encoding="utf-8")
    for split in (None, tmp_path / "split.txt"):
        (record,) = load_image_label_folder(tmp_path / "i", tmp_path / "l", label_suffix=suffix, split=split)
        assert record["image_id"] == one and Path(record["sem_seg_file_name"]).name == f"{two}{suffix}.png"
