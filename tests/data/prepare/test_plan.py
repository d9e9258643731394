"""Rules for label values, and pairing of files."""

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from sgr_d2.data.prepare.plan import LabelRule, files_by_key, pair_up, present_splits
from sgr_d2.data.reading import read_values


def constant(path, values):
    return np.array(values)


def rule_for(values):
    return LabelRule(
        read=partial(constant, values=values),
        meaning="0 and 3 to 4",
        indices={0: 255, 3: 0, 4: 1},
        num_classes=2,
        hints={9: "Nine is odd."},
    )


def test_values_become_class_indices():
    labels = rule_for([[0, 3], [4, 4]]).labels_of(Path("a"))
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[255, 0], [1, 1]]
    assert rule_for([[3.0, 4.0]]).labels_of(Path("a")).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([[3, 1], [2, 1]], r"a\.mat: holds 1, 2; the values of this release are 0 and 3 to 4\.$"),
        ([[9, 3]], r"holds 9; .*Nine is odd\.$"),
        ([[-1, 300]], r"holds -1, 300;"),
        ([[3.5, 3]], r"holds 3\.5;"),
        ([list(range(5, 20))], r"holds 5, 6, 7, 8, 9, 10, 11, 12, \.\.\.;"),
        (np.zeros((0, 4), int), r"a\.mat: the label map is empty"),
    ],
)
def test_any_other_value_is_an_error(values, shown):
    with pytest.raises(ValueError, match=shown):
        rule_for(values).labels_of(Path("a.mat"))


def test_a_rule_pickles():
    rule = LabelRule(read=read_values, meaning="0", indices={0: 0}, num_classes=1)
    assert pickle.loads(pickle.dumps(rule)).read is read_values


def test_files_without_a_partner_are_problems(tmp_path):
    images = {key: Path(f"{key}.jpg") for key in "abd"}
    sources = {key: Path(f"{key}.png") for key in "bcd"}
    split = pair_up("train", 7, images, sources, lambda key: tmp_path / key)
    assert [(task.source.name, task.image.name, task.target.name) for task in split.tasks] == [
        ("b.png", "b.jpg", "b"),
        ("d.png", "d.jpg", "d"),
    ]
    assert split.problems == ["a.jpg: has no label map.", "c.png: has no image."]
    assert split.published == 7
    assert {task.image_target for task in split.tasks} == {None}
    part = pair_up("train", 7, images, sources, lambda key: tmp_path / key, partial=True)
    assert (part.tasks, part.problems, part.left_out) == (split.tasks, ["a.jpg: has no label map."], 1)
    split = pair_up("train", 7, images, sources, lambda key: tmp_path / key, lambda key: tmp_path / f"{key}.jpg")
    assert [task.image_target.name for task in split.tasks] == ["b.jpg", "d.jpg"]


def test_hidden_and_other_files_are_not_listed(tmp_path):
    for name in ("a/x_label.png", "a/._x_label.png", "b/y_label.png", "b/z.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(files_by_key(tmp_path, "*/*_label.png", "_label.png")) == ["a/x", "b/y"]


def test_missing_splits(tmp_path):
    (tmp_path / "train").mkdir()
    find = partial(present_splits, ("train", "val"), lambda name: (tmp_path / name,))
    assert find(True) == ["train"]
    with pytest.raises(FileNotFoundError, match=rf"No folder {tmp_path}/val\. datasets/README\.md shows"):
        find(False)
    (tmp_path / "train").rmdir()
    with pytest.raises(FileNotFoundError, match=rf"No folder {tmp_path}/train\."):
        find(True)
