import numpy as np
import pycocotools.mask as coco_mask
import pytest

from sgr_d2.data.instance_maps import NO_INSTANCE, has_mask, paint_instances, polygons_of, to_rle

SQUARE = [[1.0, 1.0, 4.0, 1.0, 4.0, 4.0, 1.0, 4.0]]  # pixels 1..3 of both axes


def rectangle(size, top, left, bottom, right):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def test_by_hand_small_instances_lie_on_top_whatever_the_order():
    size = (5, 7)
    large, small = rectangle(size, 0, 0, 5, 6), rectangle(size, 1, 1, 3, 3)
    for order in ((large, small), (small, large)):
        maps = paint_instances(order, [4, 9] if order[0] is large else [9, 4], size)
        number = 2 if order[0] is large else 1
        assert (maps.ids == number).tolist() == small.tolist()
        assert maps.labels[small].tolist() == [9] * 4
        assert maps.labels[large & ~small].tolist() == [4] * 26
        assert (maps.labels[:, 6] == NO_INSTANCE).all() and (maps.ids[:, 6] == 0).all()


def test_polygons_run_lengths_and_masks_are_one():
    size = (6, 9)
    expected = np.zeros(size, np.uint8)
    expected[1:4, 1:4] = 1
    compressed = coco_mask.encode(np.asfortranarray(expected))
    # zeros and ones down the columns: 6 + 1 zeros, then three ones and three zeros a column
    counts = {"size": list(size), "counts": [7, 3, 3, 3, 3, 3, 32]}
    for segmentation in (SQUARE, [np.array(SQUARE[0])], compressed, counts, expected, expected.astype(bool)):
        assert coco_mask.decode(to_rle(segmentation, size)).tolist() == expected.tolist()


def test_an_object_in_two_pieces_has_both():
    polygons = [SQUARE[0], [6.0, 2.0, 8.0, 2.0, 8.0, 5.0, 6.0, 5.0]]
    expected = np.zeros((6, 9), np.uint8)
    expected[1:4, 1:4] = expected[2:5, 6:8] = 1
    assert coco_mask.decode(to_rle(polygons, (6, 9))).tolist() == expected.tolist()
    assert paint_instances([polygons], [0], (6, 9)).ids.tolist() == expected.tolist()


def test_a_flipped_mask_is_taken_as_it_looks():
    mask = rectangle((4, 6), 0, 0, 2, 1)[:, ::-1]
    assert coco_mask.decode(to_rle(mask, (4, 6))).astype(bool).tolist() == mask.tolist()


def test_nothing():
    maps = paint_instances([], [], (3, 2))
    assert maps.labels.tolist() == [[NO_INSTANCE] * 2] * 3 and not maps.ids.any()
    assert not paint_instances([[], [[1.0, 2.0]]], [0, 1], (3, 2)).ids.any()


def test_masks_of_another_size():
    with pytest.raises(ValueError, match=r"A mask has 9x6 pixels .*its image 8x6"):
        to_rle(np.zeros((6, 9), bool), (6, 8))


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        (None, False),
        ([], False),
        ([[]], False),
        ([[1, 2, 3, 4]], False),
        ([[1, 2, 3, 4, 5, 6, 7]], False),
        ([[], SQUARE[0]], True),
        (coco_mask.encode(np.zeros((3, 3), np.uint8, order="F")), False),
        (coco_mask.encode(np.ones((3, 3), np.uint8, order="F")), True),
        ({"size": [3, 3], "counts": [9]}, False),
    ],
)
def test_which_annotations_have_a_mask(segmentation, expected):
    assert has_mask({"segmentation": segmentation}) is expected
    assert has_mask({}) is False


def test_what_is_no_polygon_is_dropped():
    assert polygons_of([[1, 2], SQUARE[0], [0] * 7]) == [SQUARE[0]]
