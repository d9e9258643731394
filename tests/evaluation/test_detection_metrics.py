import math

import numpy as np
import pytest
import torch

from sgr_d2.evaluation import TokenSemanticsEvaluator, format_detection_table, token_semantics
from sgr_d2.structures import ImageTokens

NONE = -1


def truth(_image):
    """(4, 6): a thing of class 0 left, two of class 2 right, a gap between."""
    labels = np.full((4, 6), NONE, np.int32)
    ids = np.zeros((4, 6), np.int32)
    for number, (category, rows, columns) in enumerate(
        [(0, slice(0, 4), slice(0, 2)), (2, slice(0, 2), slice(3, 6)), (2, slice(2, 4), slice(3, 6))], start=1
    ):
        labels[rows, columns], ids[rows, columns] = category, number
    return labels, ids


def make(**options):
    defaults = {"components_of": lambda labels, ids: ids, "num_classes": 3, "ignore_label": NONE}
    return TokenSemanticsEvaluator(**{"maps_of": truth, "distributed": False, **defaults, **options})


def measure(evaluator, regions):
    tokens = ImageTokens(torch.tensor(regions, dtype=torch.float32), torch.zeros(len(regions), 2), (4.0, 6.0))
    evaluator.process([{"file_name": "a.png"}], [{"sgr": tokens}])
    return evaluator.evaluate()["token_semantics"]


def test_by_hand():
    """Token 0 covers the left thing and the gap, which does not count; token 1 both things at the right."""
    left, right = np.zeros((4, 6)), np.zeros((4, 6))
    left[:, :3], right[:, 3:] = 1, 1
    figures = measure(make(), np.stack([left, right]))
    assert figures["S_C"] == pytest.approx(0)
    assert figures["D_C"] == pytest.approx(math.log(2))
    assert figures["S_I"] == pytest.approx(math.log(2) / 2)
    assert figures["D_I"] == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))


def test_the_same_as_the_plain_function():
    regions = np.random.default_rng(0).random((5, 4, 6))
    figures = measure(make(), regions)
    labels, ids = truth("")
    for name, expected in (
        ("C", token_semantics(regions.astype(np.float32), labels, ignore_label=NONE)),
        ("I", token_semantics(regions.astype(np.float32), ids, ignore_label=0)),
    ):
        assert (figures[f"S_{name}"], figures[f"D_{name}"]) == (expected.S, expected.D)


def test_faint_tokens_are_inactive_at_the_share_given():
    regions = np.stack([np.ones((4, 6)), np.full((4, 6), 0.1)])
    rates = [measure(make(min_mass=share), regions)["active_rate"] for share in (1e-4, 0.2, 0.9)]
    assert rates == [1.0, 0.5, 0.0]


def test_instances_that_do_not_count_are_left_out_of_i_alone():
    right = np.zeros((1, 4, 6))
    right[0, :, 3:] = 1
    figures = measure(make(components_of=lambda labels, ids: np.where(ids == 2, 0, ids)), right)
    assert figures["S_I"] == figures["S_C"] == 0


def test_images_without_instances_and_models_without_sgr():
    nothing = make(maps_of=lambda _: (np.full((4, 6), NONE), np.zeros((4, 6), np.int64)))
    figures = measure(nothing, np.ones((2, 4, 6)))
    assert figures["num_unlabelled_C"] == figures["num_unlabelled_I"] == 1 and math.isnan(figures["S_C"])
    evaluator = make()
    evaluator.process([{"file_name": "a.png"}], [{"instances": None}])
    assert evaluator.evaluate() == {}


def test_wrong_categories_name_the_image():
    with pytest.raises(ValueError, match=r"a\.png: .*"):
        measure(make(num_classes=2), np.ones((1, 4, 6)))


def test_table():
    box = {"AP": 12.345, "AP50": 30.0, "AP75": math.nan, "APs": 0.0, "APm": 1.0, "APl": 2.0, "AP-car": 12.3}
    lines = format_detection_table({"bbox": box, "segm": box | {"AP": 9.0}}, ["car"]).splitlines()
    assert len(lines) == 4
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "boxes",
        "12.35",
        "30.00",
        "n/a",
        "0.00",
        "1.00",
        "2.00",
    ]
    assert [cell.strip() for cell in lines[3].split("|")[1:3]] == ["masks", "9.00"]
    with_tokens = format_detection_table({"bbox": box, "token_semantics": {"S_C": 0.5}}, [])
    assert "masks" not in with_tokens and "0.5000" in with_tokens
    assert format_detection_table({}, []) == ""
