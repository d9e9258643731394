import numpy as np
import pytest
import torch

from sgr_d2.structures import ImageTokens
from sgr_d2.visualization.regions import RegionMaps


def _tokens(regions, extent=None):
    regions = torch.as_tensor(regions, dtype=torch.float32)
    return ImageTokens(regions, torch.zeros(len(regions), 2), extent or tuple(map(float, regions.shape[1:])))


def _bilinear(region, extent, size):
    """The same by the definition in ImageTokens, one pixel after the other."""
    out = np.zeros(size)
    rows, columns = region.shape
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) / size[0] * extent[0] - 0.5, 0), rows - 1)
            x = min(max((j + 0.5) / size[1] * extent[1] - 0.5, 0), columns - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = region[top, left] * (1 - (x - left)) + region[top, right] * (x - left)
            lower = region[bottom, left] * (1 - (x - left)) + region[bottom, right] * (x - left)
            out[i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return out


@pytest.mark.parametrize(("shape", "extent", "size"), [((3, 4), (3.0, 4.0), (7, 9)), ((3, 5), (2.3, 4.6), (23, 46))])
def test_map_equals_the_definition(shape, extent, size):
    region = np.random.default_rng(0).random((1, *shape))
    maps = RegionMaps(_tokens(region, extent), size)
    assert maps.map_of(0) == pytest.approx(_bilinear(region[0], extent, size), abs=1e-5)


def test_a_grid_that_ends_inside_a_cell_is_not_stretched():
    # An image of 12 x 12 pixels at stride 8: the second cell begins at pixel 8, which is 2/3 of the image, not 1/2.
    region = np.zeros((1, 2, 2))
    region[0, :, 1] = 1
    cells = RegionMaps(_tokens(region, (1.5, 1.5)), (12, 12)).map_of(0)
    # Cell centres lie at pixels 4 and 12, so the boundary (1/2) lies at pixel 8, between the pixels 7 and 8.
    assert cells[0, 7] == pytest.approx(0.4375)
    assert cells[0, 8] == pytest.approx(0.5625)
    assert cells[:, :4].max() == 0


def test_owner_is_the_strongest_region_and_strength_its_probability():
    regions = np.zeros((3, 2, 2))
    regions[0, 0] = 0.25
    regions[1, 0, 1] = 0.75
    regions[2, 1] = 0.5
    owner, strength = RegionMaps(_tokens(regions), (2, 2)).owners()
    assert owner.tolist() == [[0, 1], [2, 2]]
    assert strength.tolist() == [[0.25, 0.75], [0.5, 0.5]]


def test_cover_is_the_mean_over_the_image_only():
    regions = np.zeros((2, 1, 2))
    regions[0, 0, 0] = 1  # the left cell
    regions[1] = 0.5
    cover = RegionMaps(_tokens(regions), (1, 200)).cover()
    assert cover == pytest.approx([0.5, 0.5], abs=1e-6)
    # Where only a tenth of the second cell lies in the image, the first region covers nearly all of it.
    cut = RegionMaps(_tokens(regions, (1.0, 1.1)), (1, 220)).cover()
    assert cut[0] == pytest.approx(_bilinear(regions[0], (1, 1.1), (1, 220)).mean(), abs=1e-6)
    assert cut[0] > 0.8


def test_strongest_names_class_share_and_order():
    regions = np.zeros((4, 2, 4))
    regions[0, 0, 0] = 1  # one cell of class 0
    regions[2] = 0.5  # everything: class 0 has 3 labelled cells, class 1 has 4
    regions[3, :, 3] = 0.2  # class 1 only
    labels = np.array([[0, 0, 1, 1], [-1, 0, 1, 1]])
    found = RegionMaps(_tokens(regions), (2, 4)).strongest(5, labels, num_classes=2)
    assert [summary.token for summary in found] == [2, 0, 3]  # token 1 covers nothing
    assert [summary.label for summary in found] == [1, 0, 1]
    assert [summary.cover for summary in found] == pytest.approx([0.5, 1 / 8, 0.05])
    assert [summary.share for summary in found] == pytest.approx([4 / 7, 1, 1])
    assert len(RegionMaps(_tokens(regions), (2, 4)).strongest(1, labels, 2)) == 1


@pytest.mark.parametrize("labels", [None, np.full((4, 4), -1), np.full((4, 4), 9)])
def test_without_truth_there_is_no_class(labels):
    found = RegionMaps(_tokens(np.ones((1, 2, 2))), (4, 4)).strongest(5, labels, num_classes=2)
    assert [(summary.label, summary.share) for summary in found] == [(None, 0)]


def test_no_tokens_at_all():
    maps = RegionMaps(_tokens(np.zeros((0, 2, 2))), (3, 3))
    assert maps.owners()[1].max() == 0
    assert maps.strongest(5, None, 2) == []


def test_values_that_are_not_finite_are_not_shown():
    maps = RegionMaps(_tokens([[[np.nan, 1.0]]]), (1, 2))
    assert maps.map_of(0).tolist() == [[0.0, 1.0]]


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="expected \\(K, H, W\\)"):
        RegionMaps(ImageTokens(torch.zeros(2, 2), torch.zeros(2, 2), (2.0, 2.0)), (4, 4))
    for extent in ((3.0, 2.0), (2.0, 0.0)):
        with pytest.raises(ValueError, match="does not fit into a token grid"):
            RegionMaps(_tokens(np.zeros((1, 2, 2)), extent), (4, 4))
