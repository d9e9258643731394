import numpy as np
import pytest

from sgr_d2.visualization.palette import IGNORE_COLOR, class_colors, colorize, oklab, token_colors


def _nearest(colors):
    lab = oklab(colors)
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    return distance.min()


def test_oklab_of_white_grey_and_red():
    lab = oklab(np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0]]))
    assert lab[0] == pytest.approx([1, 0, 0], abs=1e-3)
    assert lab[1] == pytest.approx([0, 0, 0], abs=1e-6)
    assert lab[2] == pytest.approx([0.628, 0.225, 0.126], abs=1e-3)


@pytest.mark.parametrize(("number", "least"), [(8, 0.12), (32, 0.07), (64, 0.05), (256, 0.03)])
def test_token_colors_differ_and_neighbours_differ_clearly(number, least):
    colors = token_colors(number)
    assert colors.shape == (number, 3)
    assert colors.dtype == np.uint8
    assert _nearest(colors) > least
    lab = oklab(colors)
    assert np.linalg.norm(lab[1:] - lab[:-1], axis=1).min() > 0.1


def test_token_colors_do_not_depend_on_how_many_there_are():
    assert np.array_equal(token_colors(64)[:5], token_colors(5))
    assert len(np.unique(token_colors(512), axis=0)) == 512
    assert token_colors(0).shape == (0, 3)


def test_a_caller_cannot_spoil_the_colors_of_others():
    first = token_colors(3)
    first[:] = 0
    assert token_colors(3).any()


def test_negative_number_of_tokens():
    with pytest.raises(ValueError, match="num_tokens is -1"):
        token_colors(-1)


def test_class_colors_come_from_the_metadata_or_are_made():
    assert class_colors(2, [(1, 2, 3), (255, 0, 9)]).tolist() == [[1, 2, 3], [255, 0, 9]]
    assert np.array_equal(class_colors(4), token_colors(4))
    assert np.array_equal(class_colors(4, []), token_colors(4))


@pytest.mark.parametrize("colors", [[(1, 2, 3)], [(1, 2), (3, 4)], [(0, 0, 0), (0, 0, 256)]])
def test_class_colors_that_do_not_fit(colors):
    with pytest.raises(ValueError, match="2 classes need 2 RGB triples"):
        class_colors(2, colors)


def test_colorize_paints_what_is_no_class_in_the_ignore_color():
    colors = np.array([[10, 0, 0], [0, 20, 0], [0, 0, 30]], dtype=np.uint8)
    painted = colorize(np.array([[0, 1, 2], [255, -2, 3]]), colors, ignore_label=255)
    assert painted[0].tolist() == colors.tolist()
    assert painted[1].tolist() == [list(IGNORE_COLOR)] * 3


def test_colorize_an_ignore_label_that_lies_among_the_classes():
    colors = np.array([[10, 0, 0], [0, 20, 0]], dtype=np.uint8)
    painted = colorize(np.array([[0, 1]], dtype=np.uint16), colors, ignore_label=0)
    assert painted[0].tolist() == [list(IGNORE_COLOR), [0, 20, 0]]
