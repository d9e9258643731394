from collections import deque

import cv2
import numpy as np
import pytest
import torch

from sgr_d2.config import get_sgr_cfg
from sgr_d2.data.components import ComponentLimits, label_components
from sgr_d2.structures import ComponentMap

EVERYTHING = {"ignore_label": 255, "min_area": 0, "max_components": 10**6}


def flood_fill(labels, *, ignore_label, min_area, max_components) -> ComponentMap:
    """The definition, pixel by pixel."""
    height, width = labels.shape
    seen = labels == ignore_label
    found = []
    for start in np.ndindex(labels.shape):
        if seen[start]:
            continue
        pixels, queue = [], deque([start])
        seen[start] = True
        while queue:
            y, x = queue.popleft()
            pixels.append((y, x))
            for v in range(max(y - 1, 0), min(y + 2, height)):
                for u in range(max(x - 1, 0), min(x + 2, width)):
                    if not seen[v, u] and labels[v, u] == labels[start]:
                        seen[v, u] = True
                        queue.append((v, u))
        found.append((int(labels[start]), pixels))
    return _compose(labels.shape, found, min_area, max_components)


def label_components_per_class(labels, *, ignore_label, min_area, max_components) -> ComponentMap:
    """One OpenCV call a class."""
    found = []
    for value in np.unique(labels[labels != ignore_label]):
        count, parts = cv2.connectedComponents((labels == value).astype(np.uint8), connectivity=8)
        found += [(int(value), np.argwhere(parts == i).tolist()) for i in range(1, count)]
    found.sort(key=lambda part: part[1][0])
    return _compose(labels.shape, found, min_area, max_components)


def _compose(shape, found, min_area, max_components) -> ComponentMap:
    """Drop, sort and number components that stand in scan order."""
    large = [part for part in found if len(part[1]) >= min_area]
    kept = sorted(large, key=lambda part: -len(part[1]))[:max_components]  # a stable sort: ties stay in scan order
    ids = np.zeros(shape, np.int32)
    for number, (_, pixels) in enumerate(kept, start=1):
        ids[tuple(np.transpose(pixels))] = number
    classes = np.array([value for value, _ in kept], np.int64)
    return ComponentMap(ids, classes, len(found) - len(large), len(large) - len(kept))


def assert_equal(actual: ComponentMap, expected: ComponentMap) -> None:
    assert actual.ids.dtype == np.int32
    assert actual.classes.dtype == np.int64
    assert actual.ids.tolist() == expected.ids.tolist()
    assert actual.classes.tolist() == expected.classes.tolist()
    assert actual[2:] == expected[2:]


def test_hand_computed():
    labels = np.array(
        [
            [0, 0, 255, 1, 1],
            [0, 2, 255, 1, 1],
            [2, 0, 255, 255, 1],
            [2, 0, 0, 3, 255],
        ]
    )
    # 0: the corner of 3 and the three below touch at (1, 0)-(2, 1): 6 pixels; 1: 5; 2: 3 by a diagonal; 3: 1
    found = label_components(labels, ignore_label=255, min_area=2, max_components=2)
    assert found.ids.tolist() == [[1, 1, 0, 2, 2], [1, 0, 0, 2, 2], [0, 1, 0, 0, 2], [0, 1, 1, 0, 0]]
    assert found.classes.tolist() == [0, 1]
    assert found[2:] == (1, 1)
    outside = label_components(labels, ignore_label=255, min_area=2, max_components=2, left_out="outside")
    assert outside.ids.tolist() == [[1, 1, 0, 2, 2], [1, 3, 0, 2, 2], [3, 1, 0, 0, 2], [3, 1, 1, 3, 0]]
    assert outside.classes.tolist() == [0, 1] and outside[2:] == (1, 1)


def test_a_row_end_does_not_join_the_next_row():
    labels = np.array([[0, 1, 1, 2], [2, 1, 0, 0], [2, 2, 1, 1]])
    assert_equal(label_components(labels, **EVERYTHING), flood_fill(labels, **EVERYTHING))


def test_ties_go_by_scan_order():
    found = label_components(np.array([[4, 255, 7], [255, 255, 255], [5, 255, 4]], np.uint8), **EVERYTHING)
    assert found.ids.tolist() == [[1, 0, 2], [0, 0, 0], [3, 0, 4]]
    assert found.classes.tolist() == [4, 7, 5, 4]


@pytest.mark.parametrize("shape", [(1, 1), (1, 17), (23, 1), (31, 45)])
@pytest.mark.parametrize("limits", [(0, 10**6), (3, 5)])
@pytest.mark.parametrize("kind", ["noise", "blocks"])
@pytest.mark.parametrize("reference", [flood_fill, label_components_per_class])
def test_equals_the_references(shape, limits, kind, reference):
    random = np.random.default_rng(sum(shape) + limits[0])
    labels = random.choice(np.array([0, 1, 2, 255], np.uint8), shape)
    if kind == "blocks":
        labels = np.kron(labels, np.ones((3, 2), np.uint8))
    options = {"ignore_label": 255, "min_area": limits[0], "max_components": limits[1]}
    expected = reference(labels, **options)
    assert_equal(label_components(labels, **options), expected)
    ids = np.where((labels != 255) & (expected.ids == 0), len(expected.classes) + 1, expected.ids)
    assert_equal(label_components(labels, **options, left_out="outside"), expected._replace(ids=ids))


def test_long_runs_equal_the_references():
    labels = np.zeros((41, 67), np.uint8)
    labels[5:20, 9:58], labels[8:11, 30], labels[20:41, 40:], labels[33] = 1, 2, 1, 255
    for options in (EVERYTHING, {**EVERYTHING, "min_area": 9, "max_components": 2}):
        assert_equal(label_components(labels, **options), flood_fill(labels, **options))
        assert_equal(label_components(labels[:0:-1], **options), flood_fill(labels[:0:-1], **options))


def test_one_colour():
    found = label_components(np.full((13, 19), 3, np.uint8), **EVERYTHING)
    assert (found.ids == 1).all()
    assert found.classes.tolist() == [3]


def test_more_components_than_16_bits():
    rows, columns = np.indices((270, 250))
    labels = (2 * (rows % 2) + columns % 2).astype(np.uint8)  # no two neighbours are equal
    every = label_components(labels, **EVERYTHING)
    assert (every.ids.ravel() == np.arange(1, labels.size + 1)).all()
    assert (every.classes == labels.ravel()).all()
    few = label_components(labels, **{**EVERYTHING, "max_components": 3})
    assert few.ids.ravel()[:5].tolist() == [1, 2, 3, 0, 0]
    assert (few.ids.dtype, few.ids.sum(), few.num_cut) == (np.int32, 6, labels.size - 3)


def test_a_view_with_other_strides():
    labels = np.random.default_rng(0).integers(0, 3, (12, 20)).astype(np.uint8)
    for view in (labels[:, ::-1], labels.T, labels[1:9, 3:15]):
        assert_equal(label_components(view, **EVERYTHING), flood_fill(view, **EVERYTHING))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.int64])
def test_the_ignore_label_may_be_any_value(dtype):
    labels = np.array([[0, 0, 3], [2, 2, 3]], dtype)
    for ignored in (0, 2, 3, 200, 65535, -1):
        options = {**EVERYTHING, "ignore_label": ignored}
        assert_equal(label_components(labels, **options), flood_fill(labels, **options))


def test_extreme_classes():
    labels = np.array([[0, 254, 255]], np.uint8)
    assert label_components(labels, **EVERYTHING).classes.tolist() == [0, 254]
    wide = np.array([[0, 65534, 65535]], np.uint16)
    assert label_components(wide, **{**EVERYTHING, "ignore_label": 65535}).classes.tolist() == [0, 65534]


@pytest.mark.parametrize("shape", [(4, 6), (0, 6), (4, 0)])
def test_nothing_labelled(shape):
    found = label_components(np.full(shape, 255, np.uint8), **EVERYTHING)
    assert found.ids.shape == shape
    assert not found.ids.any()
    assert found.classes.shape == (0,)
    assert found[2:] == (0, 0)


def test_one_colour_is_one_component():
    found = label_components(np.full((5, 7), 9, np.uint8), ignore_label=255, min_area=35, max_components=1)
    assert (found.ids == 1).all()
    assert found.classes.tolist() == [9]


def test_thousands_of_components_are_cut_and_counted():
    labels = np.zeros((200, 200), np.uint8)
    labels[::2, ::2] = 1
    found = label_components(labels, ignore_label=0, min_area=1, max_components=2000)
    assert found.ids.max() == len(found.classes) == 2000
    assert found[2:] == (0, 8000)


def test_bad_input():
    with pytest.raises(ValueError, match=r"2-D integer NumPy array; got ndarray, shape .2, 3. of float64"):
        label_components(np.zeros((2, 3)), **EVERYTHING)
    with pytest.raises(ValueError, match="2-D integer NumPy array"):
        label_components(np.zeros((2, 3, 1), np.uint8), **EVERYTHING)
    with pytest.raises(ValueError, match=r"got Tensor, shape .2, 3. of torch.int64"):
        label_components(torch.zeros(2, 3, dtype=torch.int64), **EVERYTHING)
    with pytest.raises(ValueError, match=r"ignore_label = None: give the whole number"):
        label_components(np.zeros((2, 3), np.uint8), **EVERYTHING | {"ignore_label": None})
    with pytest.raises(ValueError, match=r"span -1\.\.65535; at most 16 bits"):
        label_components(np.full((2, 3), 65535, np.uint16), **EVERYTHING | {"ignore_label": -1})
    with pytest.raises(ValueError, match=r"MIN_AREA and MAX_COMPONENTS .* got -1 and 3"):
        label_components(np.zeros((2, 3), np.uint8), ignore_label=255, min_area=-1, max_components=3)
    with pytest.raises(ValueError, match=r"LEFT_OUT = 'inside': choose from \['ignored', 'outside'\]"):
        label_components(np.zeros((2, 3), np.uint8), **EVERYTHING, left_out="inside")
    with pytest.raises(ValueError, match=r"span 0\.\.70000"):
        label_components(np.array([[0, 70000]]), **EVERYTHING)


def test_limits_are_those_of_the_config():
    cfg = get_sgr_cfg()
    assert ComponentLimits() == ComponentLimits.from_config(cfg, is_train=False)
    cfg.INPUT.COMPONENTS.MIN_AREA, cfg.INPUT.COMPONENTS.LEFT_OUT, cfg.MODEL.SGR.NUM_TOKENS = 2, "outside", 3
    assert ComponentLimits.from_config(cfg, is_train=True) == ComponentLimits(2, 3, "outside")
    assert ComponentLimits.from_config(cfg, is_train=False) == ComponentLimits(2, 256, "ignored")
    labels = np.array([[1, 1, 255], [0, 255, 2]], np.uint8)
    expected = label_components(labels, ignore_label=255, min_area=2, max_components=1, left_out="outside")
    assert_equal(ComponentLimits(2, 1, "outside").label(labels, ignore_label=255), expected)
