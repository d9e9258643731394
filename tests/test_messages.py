import numpy as np
import pytest

from sgr_d2.messages import did_you_mean, first_few


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        (["sky"], "sky"),
        (("sky", "road", "car"), "sky, road, car"),
        (["sky", "road", "car", "tree"], "sky, road, car, ..."),
        (np.arange(4), "0, 1, 2, ..."),
        ({"a": 1, "b": 2}, "a, b"),
    ],
)
def test_long_lists_are_cut(values, text):
    assert first_few(values, 3) == text


def test_the_usual_length():
    assert first_few(range(8)) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert first_few(range(9)) == "0, 1, 2, 3, 4, 5, 6, 7, ..."


def test_similar_names_are_offered():
    known = ["seeds", "series", "title"]
    assert did_you_mean("seed", known) == " Did you mean seeds?"
    assert did_you_mean("seres", known, most=2) == " Did you mean series or seeds?"
    assert did_you_mean("x", known) == did_you_mean("seed", []) == ""
