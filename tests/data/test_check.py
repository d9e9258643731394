"""The checker of data sets: what it finds in a pair, and what it suspects of the whole."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sgr_d2.data.check import CheckRules, DatasetCheck, PairCheck, check_pair, check_records
from sgr_d2.data.check_hints import suspicions
from sgr_d2.data.check_report import SHOWN, check_to_json, format_check
from sgr_d2.data.components import ComponentLimits

RULES = CheckRules(num_classes=3, limits=ComponentLimits(4, 2))
CLASSES = ["ground", "box", "pole"]


@pytest.fixture
def record(write_pair, scene):
    return write_pair("a", scene)


def found(record, rules=RULES):
    return [kind for kind, _ in check_pair(record, rules=rules).errors]


def test_a_pair_in_order(record, scene):
    pair = check_pair(record, rules=RULES)
    assert pair.errors == []
    assert dict(zip(pair.values.tolist(), pair.pixels.tolist(), strict=True)) == {
        value: int((scene == value).sum()) for value in (0, 1, 2, 255)
    }
    # ground, the two boxes, one of which the pole cuts in two, and the pole: five; two are kept
    assert pair.components == (2, 0, 3)
    large = CheckRules(num_classes=3, limits=ComponentLimits(100))
    assert check_pair(record, rules=large).components == (4, 1, 0)


def test_files_that_cannot_be_read(record):
    Path(record["file_name"]).write_bytes(b"not an image")
    Path(record["sem_seg_file_name"]).unlink()
    assert found(record) == ["unreadable image", "unreadable label"]
    assert check_pair(record, rules=RULES).components is None
    assert found({"file_name": record["file_name"]}) == ["unreadable image", "unreadable label"]


@pytest.mark.parametrize(("largest", "expected"), [(4095, True), (65535, False)])
def test_sixteen_bit_images_that_use_twelve_bits(record, scene, largest, expected):
    pixels = np.linspace(0, largest, scene.size).reshape(scene.shape).astype(np.uint16)
    Image.fromarray(pixels).save(record["file_name"])
    check = check_records([record], RULES, title="toys", progress=False)
    assert check.brightest == largest // 256
    suspected = any(f"the largest value is {largest // 256} of 255" in text for text in suspicions(check, CLASSES))
    assert suspected == expected


def test_a_photograph_cut_short_is_found(record):
    path = Path(record["file_name"])
    path.write_bytes(path.read_bytes()[:-40])
    assert found(record) == ["unreadable image"]


def test_a_colour_label(record, scene):
    Image.fromarray(np.stack([scene] * 3, -1)).save(record["sem_seg_file_name"])
    ((kind, message),) = check_pair(record, rules=RULES).errors
    assert kind == "unreadable label" and "three channels are equal" in message


def test_sizes_that_differ(record, scene):
    Image.fromarray(scene.T.copy()).save(record["sem_seg_file_name"])
    ((kind, message),) = check_pair(record, rules=RULES).errors
    assert kind == "sizes differ"
    assert message.endswith(f"has 37x53 pixels (width x height), {record['file_name']} 53x37. Is one of them rotated?")


def test_values_out_of_range_are_named_and_the_rest_is_counted(record, scene):
    scene[0, :2], scene[1, 0] = 7, 3
    Image.fromarray(scene).save(record["sem_seg_file_name"])
    check = check_records([record], RULES, title="a", progress=False)
    (message,) = check.errors["label out of range"]
    assert "holds 3, 7, neither a class (0..2) nor the ignore label (255)" in message
    assert dict(check.wrong) == {3: 1, 7: 1}
    assert check.pixels.sum() + check.ignored == scene.size - 3
    assert check.components == []


def test_labels_are_counted_as_their_map_says(record, scene):
    expected = check_pair(record, rules=RULES)
    Image.fromarray(scene + np.uint8(1)).save(record["sem_seg_file_name"])  # 255 becomes 0
    record["label_map"] = [255, 0, 1, 2]
    pair = check_pair(record, rules=RULES)
    assert pair.errors == [] and pair.components == expected.components
    assert (pair.values.tolist(), pair.pixels.tolist()) == (expected.values.tolist(), expected.pixels.tolist())
    record["label_map"] = [255, 0, 1]
    ((kind, message),) = check_pair(record, rules=RULES).errors
    assert kind == "label out of range" and f"{record['sem_seg_file_name']} holds 3, for which LABEL_MAP" in message


def test_labels_in_colour_are_counted_as_their_map_says(record, scene):
    expected = check_pair(record, rules=RULES)
    palette = np.zeros((256, 3), np.uint8)
    palette[[0, 1, 2, 255]] = [[0, 0, 255], [9, 0, 0], [9, 9, 0], [0, 0, 0]]
    Image.fromarray(palette[scene]).save(record["sem_seg_file_name"])
    record["label_map"] = {(9, 9, 0): 2, (0, 0, 255): 0, (9, 0, 0): 1, (0, 0, 0): 255}
    pair = check_pair(record, rules=RULES)
    assert pair.errors == [] and pair.components == expected.components
    assert (pair.values.tolist(), pair.pixels.tolist()) == (expected.values.tolist(), expected.pixels.tolist())
    del record["label_map"][9, 9, 0]
    ((kind, message),) = check_pair(record, rules=RULES).errors
    assert kind == "label out of range" and "holds [9, 9, 0] in" in message


def test_palettes_that_disagree_are_suspicious(write_pair):
    def write(name, palette):
        record = write_pair(name, np.array([[0, 1], [1, 1]], np.uint8))
        image = Image.open(record["sem_seg_file_name"]).convert("P")
        image.putpalette([value for color in palette for value in color])
        image.putdata([0, 1, 1, 1])
        image.save(record["sem_seg_file_name"])
        return record

    red_green, green_red = [(255, 0, 0), (0, 255, 0)], [(0, 255, 0), (255, 0, 0)]
    records = [write("a", red_green), write("b", red_green)]
    check = partial(check_records, rules=RULES, title="a", progress=False)
    assert not any("palette" in text for text in suspicions(check(records), CLASSES))
    records.append(write("c", green_red))
    (text,) = [text for text in suspicions(check(records), CLASSES) if "palette" in text]
    assert re.search(r"0 is shown as \[0, 255, 0\] in \S+c\.png and as \[255, 0, 0\] in \S+a\.png", text)
    for record in records:
        record["label_map"] = {(255, 0, 0): 0, (0, 255, 0): 1}
    mapped = check(records)
    assert not mapped.palette and mapped.pixels.tolist() == [2 * 1 + 3, 2 * 3 + 1, 0]


def test_a_label_with_a_palette_is_opened_once(record, scene, monkeypatch):
    image = Image.fromarray(scene).convert("P")
    image.putdata(scene.ravel().tolist())
    image.putpalette([0, 0, 0, 9, 8, 7])
    image.save(record["sem_seg_file_name"])
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(str(path)) or real(path))
    assert check_pair(record, rules=RULES).palette[1] == (9, 8, 7)
    assert opened.count(record["sem_seg_file_name"]) == 1


def test_real_instances_take_the_place_of_components(record, scene, tmp_path):
    ids = np.where(scene == 1, 1000, 26).astype(np.uint16)
    Image.fromarray(ids).save(tmp_path / "ids.png")
    record["instance_file_name"] = str(tmp_path / "ids.png")
    rules = CheckRules(num_classes=3, limits=ComponentLimits(4), first_instance_id=1000)
    assert check_pair(record, rules=rules).components == (3, 0, 0)  # both boxes are one object
    Image.fromarray(ids[1:]).save(tmp_path / "ids.png")
    assert found(record, rules) == ["sizes differ"]
    (tmp_path / "ids.png").unlink()
    assert found(record, rules) == ["unreadable instances"]


def test_several_processes_count_like_one(write_pair, scene):
    records = [write_pair(f"{index}", np.roll(scene, 5 * index, axis=1)) for index in range(5)]
    records[3]["file_name"] = "gone.png"
    one, two = (check_records(records, RULES, title="a", num_workers=n, progress=False) for n in (1, 2))
    assert check_to_json(one, "a", CLASSES) == check_to_json(two, "a", CLASSES)
    assert one.num_pairs == 5
    assert one.images.tolist() == [5, 5, 5]
    assert len(one.components) == 5


def summed(num_classes: int, *images: dict[int, int]) -> DatasetCheck:
    """The check of images whose label maps hold {value: pixels}."""
    check = DatasetCheck(CheckRules(num_classes=num_classes))
    for image in images:
        values = np.array(list(image))
        wrong = (values >= num_classes) & (values != 255)
        errors = [("label out of range", "x")] if wrong.any() else []
        check.add(PairCheck(errors, values, np.array(list(image.values())), None if errors else (1, 0, 0)))
    return check


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        # ADE20K's zero not removed: 0 is "not labelled", 4 the last class; or CamVid's: 0 is a class, 4 "not labelled"
        ([{0: 5, 1: 50, 2: 40}, {3: 30, 4: 10}], "4 occurs, one beyond the last class.*Does 4 mean.*Does 0 mean"),
        ([{0: 5, 1: 50, 4: 40}, {3: 30, 4: 10}], "Then write 255 instead of it, or set IGNORE_LABEL: 4"),
        ([{1: 50, 2: 40, 255: 3}, {3: 30, 4: 10}], "shifted by one: 0 never occurs and 4 does.*counted from 1"),
        ([{1: 50, 2: 40}, {3: 30, 4: 10}], "shifted by one: 0 never occurs and 4 does.*counted from 1"),
        ([{1: 50, 2: 40}, {3: 30, 255: 9}], r"Labels look shifted by one: class 0 \(c0\) never occurs"),
        ([{0: 50, 1: 40}, {2: 30, 255: 9}], r"Labels may be shifted by one: the last class \(c3\) never occurs"),
        ([{0: 70, 1: 10}, {2: 10, 3: 10}], r"Label 0 \(c0\) covers 70 % of the pixels and the ignore label 255 never"),
        ([{0: 30, 1: 30}, {2: 30, 3: 10, 11: 5}], "only value that is not a class is 11.*Does 11 mean 'not labelled'"),
        (
            [{0: 70, 255: 10}, {0: 10}],
            r"Only one class occurs: c0 \(0\)\. Files of 0 and 255 look like masks, .* LABEL_MAP: \[\[0, 0\]",
        ),
        ([{2: 70}, {2: 10}], r"Only one class occurs: c2 \(2\)\. Any model"),
        ([{0: 10, 1: 10}, {2: 5, 3: 5, 255: 70}], "70 % of the pixels have the ignore label 255"),
        ([{255: 10}, {255: 3}], "No pixel is labelled at all"),
    ],
)
def test_suspicions(images, expected):
    texts = suspicions(summed(4, *images), [f"c{index}" for index in range(4)])
    with pytest.raises(ValueError, match=expected):
        raise ValueError(" | ".join(texts))
    assert len(texts) == 1


@pytest.mark.parametrize(
    "images",
    [
        [{0: 40, 1: 30, 255: 10}, {2: 10, 3: 10}],
        [{0: 70, 1: 10, 255: 1}, {2: 10, 3: 10}],  # much of class 0, but 255 is in use
        [{0: 50, 1: 30}, {2: 10, 3: 10}],  # nothing ignored
        [{1: 50, 2: 40, 3: 3, 255: 5}, {4: 30, 0: 9}],  # one value out of range beside an ignore label in use
        [],
    ],
)
def test_nothing_to_suspect(images):
    assert suspicions(summed(4, *images), list("abcd")) == []


def test_one_label_without_0_does_not_make_the_classes_count_from_1():
    (text,) = suspicions(summed(4, {1: 50, 4: 9}, {0: 20, 2: 40}), list("abcd"))
    assert "counted from 1" not in text and "set IGNORE_LABEL: 4" in text


@pytest.mark.parametrize(
    ("train", "test", "found"),
    [
        (
            (180, 480),
            0,
            "to 180 to 480 (INPUT.MIN_SIZE_TRAIN); evaluation and prediction see 1080 (INPUT.MIN_SIZE_TEST 0)",
        ),
        ((180, 480), 540, ""),
        ((180, 480), 601, "see 601"),
        ((400,), 300, "see 300"),
        ((400,), 320, ""),
        ((), 0, ""),
    ],
)
def test_scales_of_training_and_test(train, test, found):
    check = DatasetCheck(CheckRules(3, train_edges=train, test_edge=test))
    for edge in (1080, 1080, 720):
        check.add(PairCheck([], np.array([0, 1, 2]), np.array([5, 5, 5]), (1, 0, 0), edge))
    (text,) = suspicions(check, ["a", "b", "c"]) or [""]
    assert found in text and bool(found) == bool(text)


def test_few_of_many_classes_say_nothing_about_an_offset():
    assert suspicions(summed(150, {1: 50, 7: 40, 255: 3}), [str(index) for index in range(150)]) == []


def test_a_fault_of_many_files_is_told_once():
    check = DatasetCheck(CheckRules(3))
    for name in ("one", "two two", "three"):
        check.add(PairCheck([("unreadable label", f"Label a b/{name}.png is of mode RGB; a label is not.")]))
    check.add(PairCheck([("unreadable label", "Label c.png is broken.")]))
    for name in ("x.v2 y/a.png", "x.v2 y/b.PNG"):
        check.add(PairCheck([("unreadable label", f"Cannot read label file {name}: truncated.")]))
    lines = format_check(check, "toys", CLASSES).splitlines()
    assert lines[1:5] == [
        "error: unreadable label, 6 times:",
        "  Label a b/one.png is of mode RGB; a label is not. The same in 2 more: two two.png, three.png.",
        "  Label c.png is broken.",
        "  Cannot read label file x.v2 y/a.png: truncated. The same in 1 more: b.PNG.",
    ]


def test_the_report_in_words():
    check = summed(3, {0: 60, 1: 20, 255: 20}, {255: 10, 1: 90}, {0: 100, 5: 1}, {255: 40})
    text = format_check(check, "toys", CLASSES)
    assert text.startswith("toys: 4 images, 3 classes, ignore label 255\nerror: label out of range, 1 times:\n  x\n")
    assert "values out of range, with the number of images: 5 in 1\n" in text
    assert f"not labelled: {100 * 70 / 340:.2f} % of the pixels" in text
    assert "1 images have no labelled pixel, the first \n1 of 3 classes never occur\n" in text
    assert (
        "components per image, at full size: 1 in the median, 1 to 1 in nine of ten images, at most 1; 0 images" in text
    )
    row = next(line for line in text.splitlines() if "ground" in line)
    assert row.split() == ["0", "ground", f"{100 * 160 / 270:.3f}", "%", "2"]


def test_a_long_list_of_errors_is_cut_in_print_only():
    check = summed(3, *[{9: 1}] * (SHOWN + 5))
    lines = format_check(check, "toys", CLASSES).splitlines()
    assert lines.count("  x") == SHOWN
    assert "  ... and 5 more" in lines
    assert "values out of range, with the number of images: 9 in 25" in lines
    many = format_check(summed(3, dict.fromkeys(range(3, 3 + SHOWN + 1), 1)), "toys", CLASSES).splitlines()
    (values,) = [line for line in many if line.startswith("values out of range")]
    assert values.endswith(f"{2 + SHOWN} in 1, ...")
    assert not any(line.startswith("not labelled:") for line in lines)
    report = check_to_json(check, "toys", CLASSES)
    assert len(report["errors"]["label out of range"]) == SHOWN + 5
    assert report["unlabelled_share"] is None
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize(("of_image", "of_label", "told"), [(3, 1, True), (3, 3, False), (1, 1, False)])
def test_images_that_are_turned_without_their_labels(record, of_image, of_label, told):
    for path, orientation in ((record["file_name"], of_image), (record["sem_seg_file_name"], of_label)):
        exif = Image.Exif()
        exif[274] = orientation
        with Image.open(path) as image:
            image.load()
        image.save(path, exif=exif)
    check = check_records([record], RULES, title="check", progress=False)
    said = [text for text in suspicions(check, CLASSES) if "EXIF" in text]
    assert bool(said) == told and (not told or record["file_name"] in said[0])
