import math

import cv2
import pytest

from sgr_d2.evaluation import ERROR_KINDS
from sgr_d2.visualization import draw_error_kinds

SEGMENT, RIGHT = (0x00, 0x5E, 0xD5), (0xD9, 0xD9, 0xD9)  # BGR


def bars(path, color):
    """Pixels of this colour in a line through each bar, from above, the axis and the legend left out."""
    picture = cv2.imread(str(path))
    rows = (picture < 250).any(2).sum(1)
    full = rows > 0.7 * rows.max()  # a bar of 100 %
    starts = [y for y in range(1, len(full)) if full[y] and not full[y - 1]]
    return [int((picture[y + 3] == color).all(1).sum()) for y in starts]


@pytest.mark.parametrize("number", [2, 40])
def test_lengths_of_the_bars(tmp_path, number):
    classes = [f"c{i}" for i in range(number)] + ["in no label"]
    figures = {f"{kind}-{name}": 0.0 for kind in ERROR_KINDS for name in classes} | dict.fromkeys(ERROR_KINDS, 0.0)
    figures |= {f"segment-c{i}": 100 * i / number for i in range(number)} | {"segment": 25.0, "absent": 50.0}
    figures |= {f"{kind}-in no label": math.nan for kind in ERROR_KINDS}
    draw_error_kinds(figures, ERROR_KINDS, classes, "title", tmp_path / "new/kinds.png")
    right, segment = (bars(tmp_path / "new/kinds.png", color)[: number + 1] for color in (RIGHT, SEGMENT))
    whole = right[0]  # nothing is lost of the first class
    assert whole > 400
    assert segment == pytest.approx([*(whole * i / number for i in range(number)), 0.25 * whole], abs=4)
    assert right == pytest.approx([*(whole * (1 - i / number) for i in range(number)), 0.25 * whole], abs=4)


@pytest.mark.parametrize("name", ["$wa_{ves$", "$a$", "5 $"])
def test_dollars_are_no_formula(tmp_path, name):
    """Two of them would make matplotlib read a formula, which it may not understand."""
    figures = {f"{kind}-{name}": 0.0 for kind in ERROR_KINDS} | dict.fromkeys(ERROR_KINDS, 0.0)
    draw_error_kinds(figures, ERROR_KINDS, [name], name, tmp_path / "dollars.png")
    assert bars(tmp_path / "dollars.png", RIGHT)[0] > 400


def test_no_labels_at_all_draw_no_bar(tmp_path):
    figures = {f"{kind}-a": math.nan for kind in ERROR_KINDS} | dict.fromkeys(ERROR_KINDS, math.nan)
    draw_error_kinds(figures, ERROR_KINDS, ["a"], "title", tmp_path / "kinds.png")
    picture = cv2.imread(str(tmp_path / "kinds.png"))
    assert (picture[: len(picture) // 2] == RIGHT).all(2).sum(1).max() < 20  # letters have such pixels, too
