import pytest
import torch
from mask_targets import MaskTargets
from torch.nn import functional as F

from sgr_d2.modeling.mask2former.points import random_points, sample_pixels, sample_points
from sgr_d2.modeling.mask2former.targets import LabelMapTargets

IGNORE = 255


def spread(rows: int, number: int, seed: int = 0) -> torch.Tensor:
    """Random points, the corners and edges of the map among them."""
    points = torch.rand(rows, number, 2, generator=torch.Generator().manual_seed(seed))
    points[:, 0], points[:, 1], points[:, 2, 0] = 0.0, 1 - 2**-24, 0.0
    return points


def test_random_points():
    points = random_points("matcher", 0, (3, 1000), torch.device("cpu"))
    assert points.shape == (3, 1000, 2)
    assert 0 <= points.min() < 0.01 < 0.99 < points.max() < 1


def test_sample_points_by_hand():
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]])
    points = torch.tensor([[[0.25, 0.25], [0.5, 0.25], [0.5, 0.5], [0.0, 0.25], [1.0, 1.0]]])
    assert sample_points(maps, points).tolist() == [[[1.0, 1.5, 2.75, 0.5, 1.25]]]


@pytest.mark.parametrize("size", [(7, 10), (1, 5), (32, 32)])
def test_sample_pixels_is_sample_points(size):
    torch.manual_seed(0)
    maps, points = torch.randn(3, 6, *size), spread(3, 50)
    expected = sample_points(maps, points).transpose(1, 2)
    torch.testing.assert_close(sample_pixels(maps, points), expected, rtol=0, atol=2e-6)


def label_map(height: int = 13, width: int = 22) -> torch.Tensor:
    labels = torch.randint(0, 6, (3, height, width), generator=torch.Generator().manual_seed(1))
    labels[labels == 5] = IGNORE
    labels[1] = torch.where(labels[1] == 2, IGNORE, labels[1])
    labels[2, 1:] = IGNORE
    return labels


def reference(labels: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """By whole masks: shares of classes 0..4 (B, P, 5), and of what is not ignored (B, P)."""
    masks = torch.stack([labels == value for value in range(5)], dim=1).float()
    shares = sample_points(masks, points).transpose(1, 2)
    # beside an ignored pixel the outside of the image is ignored, too
    ignored, grid = (labels == IGNORE).float()[:, None], 2 * points[:, :, None] - 1
    valid = 1 - F.grid_sample(ignored, grid, padding_mode="border", align_corners=False)
    return shares, valid[:, 0, :, 0]


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("background", [True, False])
def test_label_map_against_whole_masks(compact, background):
    labels, points = label_map(), spread(3, 80)
    targets = LabelMapTargets(labels, num_classes=5, ignore_as_background=background, compact=compact)
    shares, valid = reference(labels, points)
    of_images = targets.of_images(points)
    for image in range(3):
        shown = [value for value in range(5) if (labels[image] == value).any()]
        assert targets.labels[image][targets.present[image]].tolist() == shown
        values = of_images.values[image][:, targets.present[image]]
        torch.testing.assert_close(values, shares[image][:, shown], rtol=0, atol=1e-5)
        for slot in targets.present[image].nonzero()[:, 0].tolist():
            pair = targets.of_pairs(torch.tensor([image]), torch.tensor([slot]), points[image, None])
            expected = shares[image][:, targets.labels[image, slot]]
            torch.testing.assert_close(pair.values[0], expected, rtol=0, atol=1e-5)
            if not background:
                torch.testing.assert_close(pair.validity[0], valid[image], rtol=0, atol=1e-5)
    if background:
        assert of_images.validity is None
        assert targets.takes_part(torch.arange(3), points) is None
    else:
        torch.testing.assert_close(of_images.validity, valid, rtol=0, atol=1e-5)
        nearest = F.grid_sample(
            (labels != IGNORE).float()[:, None],
            2 * points[:, :, None] - 1,
            mode="nearest",
            padding_mode="border",
            align_corners=False,
        )
        assert torch.equal(targets.takes_part(torch.arange(3), points), nearest[:, 0, :, 0].bool())


def test_nothing_ignored_costs_nothing():
    targets = LabelMapTargets(torch.zeros(1, 4, 4, dtype=torch.long), num_classes=2)
    assert targets.of_images(spread(1, 4)).validity is None
    assert targets.labels.tolist() == [[0]]


def test_label_map_without_a_label():
    targets = LabelMapTargets(torch.full((2, 4, 6), IGNORE), num_classes=3)
    assert targets.labels.shape == (2, 0)
    labels = targets.of_images(spread(2, 7))
    assert labels.values.shape == (2, 7, 0)
    assert not labels.validity.any()


def test_wrong_labels_are_noticed():
    for value, wrong in ((4, False), (5, True), (-1, True), (IGNORE, False)):
        labels = torch.zeros(1, 3, 3, dtype=torch.long)
        labels[0, 1, 1] = value
        assert bool(LabelMapTargets(labels, num_classes=5).wrong) is wrong


def test_bad_label_maps():
    with pytest.raises(ValueError, match=r"shape \(4, 4\); \(B, H, W\)"):
        LabelMapTargets(torch.zeros(4, 4), num_classes=2)
    with pytest.raises(ValueError, match=r"NUM_CLASSES = 40000"):
        LabelMapTargets(torch.zeros(1, 4, 4), num_classes=40000)


def test_masks_of_unequal_size_and_number():
    big, small = torch.rand(2, 8, 12) > 0.5, torch.rand(1, 5, 7) > 0.5
    none = torch.zeros(0, 8, 12, dtype=torch.bool)
    labels = [torch.tensor([1, 0]), torch.tensor([2]), torch.tensor([], dtype=torch.long)]
    targets = MaskTargets(labels, [big, small, none], size=(8, 12), num_classes=3)
    assert targets.present.tolist() == [[True, True], [True, False], [False, False]]
    assert targets.labels[0].tolist() == [1, 0]
    points = spread(3, 30)
    values = targets.of_images(points).values
    padded = F.pad(small, (0, 5, 0, 3)).float()
    torch.testing.assert_close(values[1, :, 0], sample_points(padded[None], points[1:2])[0, 0])
    pair = targets.of_pairs(torch.tensor([0, 1]), torch.tensor([1, 0]), points[:2])
    torch.testing.assert_close(pair.values, torch.stack([values[0, :, 1], values[1, :, 0]]))
