import numpy as np
import pytest
import torch

from sgr_d2.structures import ImageTokens
from sgr_d2.visualization.palette import IGNORE_COLOR, token_colors
from sgr_d2.visualization.panels import label_panel, panel_size, region_panel, token_panel
from sgr_d2.visualization.regions import RegionMaps

COLORS = np.array([[200, 0, 0], [0, 200, 0]], dtype=np.uint8)


def _maps(regions, size, extent=None):
    regions = torch.as_tensor(regions, dtype=torch.float32)
    extent = extent or tuple(map(float, regions.shape[1:]))
    return RegionMaps(ImageTokens(regions, torch.zeros(len(regions), 2), extent), size)


def test_panel_size_keeps_the_shape_and_fits():
    assert panel_size(360, 480, 400, 300) == (225, 300)
    assert panel_size(2000, 1000, 400, 300) == (400, 200)
    assert panel_size(1, 5000, 400, 300) == (1, 300)


@pytest.mark.parametrize("size", [(20, 40), (5, 10), (31, 57)])
def test_labels_are_shown_in_their_colors_and_ignored_pixels_in_the_ignore_color(size):
    labels = np.zeros((10, 30), dtype=np.uint8)
    labels[:, 10:20] = 1
    labels[:, 20:] = 255
    panel = label_panel(labels, COLORS, 255, size)
    assert panel.shape == (*size, 3)
    for share, color in ((1 / 6, COLORS[0]), (1 / 2, COLORS[1]), (5 / 6, IGNORE_COLOR)):
        assert panel[size[0] // 2, int(share * size[1])].tolist() == list(color)


def _hue_of(pixel, background):
    """The colour that lies over the background, as a direction."""
    added = pixel.astype(float) - background
    return added / np.linalg.norm(added)


def test_a_region_of_probability_one_shows_the_color_of_its_token():
    image = np.zeros((8, 16, 3), dtype=np.uint8)
    regions = np.zeros((20, 1, 2))
    regions[17, 0, 0] = 1
    regions[4, 0, 1] = 1
    colors = token_colors(20)
    panel = token_panel(image, _maps(regions, (8, 16)), colors, None)
    for column, token in ((0, 17), (15, 4)):
        expected = colors[token] / np.linalg.norm(colors[token])
        assert _hue_of(panel[4, column], 0) == pytest.approx(expected, abs=0.02)
        assert panel[4, column] == pytest.approx(0.85 * colors[token], abs=1)


def test_a_weak_region_lets_the_image_through():
    image = np.full((4, 4, 3), 100, dtype=np.uint8)
    shown = [token_panel(image, _maps([[[p]]], (4, 4)), token_colors(1), None)[0, 0] for p in (0.0, 0.1, 0.9)]
    distance = [np.abs(pixel - token_colors(1)[0].astype(float)).sum() for pixel in shown]
    assert distance[0] > distance[1] > distance[2]
    assert shown[0].tolist() == [55, 55, 55]  # the darkened image alone


def test_contours_lie_between_components_and_nowhere_else():
    image = np.zeros((30, 30, 3), dtype=np.uint8)
    ids = np.ones((10, 10), dtype=np.int32)
    ids[:, 5:] = 2
    panel = token_panel(image, _maps(np.zeros((1, 2, 2)), (30, 30)), token_colors(1), ids)
    assert panel[:, 14:16].max() > 120
    assert panel[:, :13].max() == 0
    assert panel[:, 17:].max() == 0


def test_one_component_has_no_contour():
    image = np.zeros((9, 9, 3), dtype=np.uint8)
    panel = token_panel(image, _maps(np.zeros((1, 2, 2)), (9, 9)), token_colors(1), np.ones((5, 7), dtype=np.int32))
    assert panel.max() == 0


def test_region_panel_is_bright_where_the_region_is():
    image = np.full((2, 2, 3), 200, dtype=np.uint8)
    region = np.array([[1.0, 0.0], [0.5, 0.0]], dtype=np.float32)
    panel = region_panel(image, region, np.array([0, 0, 250], dtype=np.uint8)).astype(int)
    background = 84  # 0.42 of 200
    assert panel[0, 1].tolist() == [background] * 3
    assert panel[0, 0] == pytest.approx([0.15 * background, 0.15 * background, 0.85 * 250 + 0.15 * background], abs=1)
    assert panel[0, 0, 2] > panel[1, 0, 2] > panel[0, 1, 2]


def test_no_tokens_leave_the_darkened_image():
    image = np.full((4, 4, 3), 100, dtype=np.uint8)
    panel = token_panel(image, _maps(np.zeros((0, 2, 2)), (4, 4)), token_colors(0), None)
    assert np.unique(panel).tolist() == [55]
