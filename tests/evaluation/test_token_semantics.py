import math

import numpy as np
import pytest
import torch

from sgr_d2.evaluation import label_masses, token_semantics


def entropy(probs):
    return -sum(p * math.log(p) for p in np.ravel(probs) if p > 0)


def reference(regions, labels, ignore_label=None, extent=None, min_mass=1e-4):
    """S, D, I, H(y), active tokens and overlap, pixel by pixel; I from the joint table of token and label."""
    num_tokens, rows, columns = regions.shape
    rows, columns = extent or (rows, columns)
    height, width = labels.shape
    tables, pixels, largest = [{} for _ in range(num_tokens)], {}, 0.0
    for y in range(height):
        for x in range(width):
            label = int(labels[y, x])
            if label == ignore_label:
                continue
            pixels[label] = pixels.get(label, 0) + 1
            cell = math.floor((y + 0.5) / height * rows), math.floor((x + 0.5) / width * columns)
            largest += max(float(region[cell]) for region in regions)
            for table, region in zip(tables, regions, strict=True):
                table[label] = table.get(label, 0.0) + float(region[cell])
    active = [t for t in tables if sum(t.values()) > 0 and sum(t.values()) >= min_mass * labels.size]
    joint = np.array([[t[label] / sum(t.values()) / len(active) for label in pixels] for t in active])
    s = np.mean([entropy(row * len(active)) for row in joint])
    d = entropy(joint.sum(axis=0))
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    used = joint > 0
    information = (joint[used] * np.log(joint[used] / independent[used])).sum()
    overlap = 1 - largest / sum(sum(table.values()) for table in tables)
    label_entropy = entropy(np.array(list(pixels.values())) / sum(pixels.values()))
    return s, d, information, label_entropy, len(active), overlap


def random_case(size, grid, num_tokens=5, num_labels=4, seed=0):
    rng = np.random.default_rng(seed)
    regions = rng.random((num_tokens, *grid), dtype=np.float32) ** 4
    labels = rng.integers(0, num_labels, size)
    return regions, labels


def test_two_tokens_two_classes_by_hand():
    # Left half class 0, right half class 1. Token 0 lies on the left only, token 1 has 1/4 of its mass there.
    regions = np.array([[[0.8, 0.0]], [[0.25, 0.75]]])
    labels = np.array([[0, 0, 1, 1]] * 4)
    out = token_semantics(regions, labels)
    h1 = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    assert pytest.approx(h1 / 2, rel=1e-12) == out.S
    mean = (1 + 0.25) / 2
    assert pytest.approx(-mean * math.log(mean) - (1 - mean) * math.log(1 - mean), rel=1e-12) == out.D
    assert pytest.approx(out.D - out.S, rel=1e-12) == out.I
    assert out.label_entropy == pytest.approx(math.log(2), rel=1e-12)
    assert (out.num_active, out.num_tokens) == (2, 2)
    assert out.overlap == pytest.approx(0.25 / 1.8, rel=1e-12)  # of 1.8 the left cell has 0.25 twice
    assert out.normalized() == pytest.approx([v / math.log(2) for v in (out.S, out.D, out.I)], rel=1e-12)


def test_one_token_per_class_is_perfect():
    regions = np.eye(3, dtype=np.float32)[:, None, :]  # (3, 1, 3), token k on cell k
    labels = np.repeat(np.arange(3), 4)[None].repeat(2, axis=0)
    out = token_semantics(regions, labels)
    assert out.S == 0.0
    assert out.normalized() == pytest.approx((0.0, 1.0, 1.0))
    assert out.overlap == 0.0


def test_equal_tokens_say_nothing_about_the_label():
    for seed in range(30):
        regions, labels = random_case((12, 12), (3, 4), num_tokens=1, seed=seed)
        out = token_semantics(np.repeat(regions, 7, axis=0), labels)
        assert pytest.approx(out.D) == out.S
        assert 0.0 <= out.I < 1e-12  # rounding would put it below zero every other time
        assert out.overlap == pytest.approx(6 / 7)


@pytest.mark.parametrize("ignore_label", [None, 0, 3, 9])
@pytest.mark.parametrize(
    ("size", "grid", "extent"),
    [
        ((12, 16), (3, 4), None),
        ((13, 17), (4, 5), None),
        ((13, 17), (4, 5), (3.3, 4.25)),  # the image ends inside a cell
        ((7, 5), (9, 8), (8.75, 5.0)),  # more cells than pixels
        ((1, 1), (1, 1), (0.2, 1.0)),
        ((9, 9), (9, 9), None),
    ],
)
def test_agrees_with_the_pixel_by_pixel_reference(size, grid, extent, ignore_label):
    regions, labels = random_case(size, grid)
    labels[0, 0] = 1  # at least one labelled pixel
    out = token_semantics(regions, labels, ignore_label=ignore_label, extent=extent)
    expected = reference(regions, labels, ignore_label, extent)
    assert out[:4] == pytest.approx(expected[:4], rel=1e-9, abs=1e-12)
    assert out.num_active == expected[4]
    assert out.overlap == pytest.approx(expected[5], rel=1e-9)


@pytest.mark.parametrize("step", [1, 300, 10**7])
def test_many_and_odd_label_ids_give_the_same_figures(step):
    # The step moves the ids through the dense, the sorted and the far-apart code paths.
    regions, labels = random_case((40, 41), (16, 15), num_labels=200)
    plain = token_semantics(regions, labels, ignore_label=7)
    moved = token_semantics(regions, labels * step - 500, ignore_label=7 * step - 500)
    assert moved == plain
    assert plain[:4] == pytest.approx(reference(regions, labels, 7)[:4], rel=1e-9)


def test_cells_outside_the_extent_take_no_part():
    regions, labels = random_case((12, 12), (4, 4))
    changed = regions.copy()
    changed[:, 3:] = 5.0
    changed[:, :, 2:] = 7.0
    extent = (2.5, 1.75)
    assert token_semantics(changed, labels, extent=extent) == token_semantics(regions, labels, extent=extent)


def test_order_of_tokens_and_names_of_labels_do_not_matter():
    regions, labels = random_case((20, 22), (5, 6), num_tokens=8, num_labels=6)
    rng = np.random.default_rng(1)
    out = token_semantics(regions[rng.permutation(8)], rng.permutation(6)[labels])
    assert out == pytest.approx(token_semantics(regions, labels), rel=1e-12)


def test_scale_of_a_token_does_not_matter_to_its_meaning():
    regions, labels = random_case((20, 22), (5, 6))
    scales = np.array([1, 8, 0.25, 100, 3], dtype=np.float32)[:, None, None]
    out = token_semantics(regions * scales, labels)
    assert out[:-1] == pytest.approx(token_semantics(regions, labels)[:-1], rel=1e-6)  # all but the overlap


def test_min_mass_boundary_counts_all_pixels_and_labelled_mass():
    # 8 pixels of which 4 are labelled; the labelled mass of the token is 4 * 0.5 = 2 pixels: a share of 1/4.
    regions = np.full((1, 2, 4), 0.5, dtype=np.float32)
    labels = np.array([[0, 0, 1, 1], [9, 9, 9, 9]])
    assert token_semantics(regions, labels, ignore_label=9, min_mass=0.25).num_active == 1
    below = token_semantics(regions, labels, ignore_label=9, min_mass=np.nextafter(0.25, 1))
    assert below.num_active == 0
    assert math.isnan(below.S) and math.isnan(below.D) and math.isnan(below.I)
    assert below.is_labelled and below.label_entropy == pytest.approx(math.log(2))


def test_inactive_tokens_are_not_averaged_in():
    regions, labels = random_case((12, 12), (4, 4))
    faint = np.concatenate([regions, np.full((3, 4, 4), 1e-6, dtype=np.float32), np.zeros((1, 4, 4), np.float32)])
    out = token_semantics(faint, labels)
    assert out[:4] == token_semantics(regions, labels)[:4]
    assert (out.num_active, out.num_tokens) == (5, 9)


def test_a_token_without_mass_is_inactive_even_for_min_mass_zero():
    out = token_semantics(np.zeros((2, 3, 3), np.float32), np.zeros((6, 6), int), min_mass=0.0)
    assert out.num_active == 0 and math.isnan(out.S)


def test_image_of_one_class_has_no_normalized_figures():
    out = token_semantics(np.ones((2, 3, 3), np.float32), np.full((5, 7), 4))
    assert out[:4] == (0.0, 0.0, 0.0, 0.0)
    assert all(math.isnan(value) for value in out.normalized())


def test_image_without_labelled_pixel():
    out = token_semantics(np.ones((2, 3, 3), np.float32), np.full((5, 7), 255, np.uint8), ignore_label=255)
    assert not out.is_labelled and out.num_active == 0
    assert all(math.isnan(value) for value in (*out[:4], *out.normalized()))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint16, np.int64])
def test_label_types(dtype):
    regions, labels = random_case((12, 12), (4, 4))
    assert token_semantics(regions, labels.astype(dtype), num_labels=4) == token_semantics(regions, labels)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.bool])
def test_tensors_give_what_arrays_give(dtype):
    regions = torch.from_numpy(random_case((12, 12), (4, 4))[0]).gt(0.1).to(dtype)
    labels = torch.arange(144).reshape(12, 12) % 5
    expected = token_semantics(regions.float().numpy(), labels.numpy())
    assert token_semantics(regions.requires_grad_(dtype.is_floating_point), labels) == expected


def test_chunks_of_tokens_change_nothing():
    # More (token, pair) elements than one chunk holds, beside each token alone.
    regions, labels = random_case((90, 91), (80, 81), num_tokens=30, num_labels=3)
    out = token_semantics(regions, labels)
    alone = [token_semantics(region[None], labels) for region in regions]
    assert pytest.approx(np.mean([single.S for single in alone]), rel=1e-12) == out.S


@pytest.mark.parametrize(
    ("regions", "match"),
    [
        (np.zeros((0, 3, 3)), "at least one token"),
        (np.zeros((2, 0, 3)), "one cell"),
        (np.zeros((3, 3)), r"\(3, 3\)"),
        (np.full((1, 2, 2), -0.1), "not negative.*not logits"),
        (np.array([[[0.5, math.nan]]]), "finite"),
        (np.array([[[0.5, math.inf]]]), "finite"),
    ],
)
def test_bad_regions(regions, match):
    with pytest.raises(ValueError, match=match):
        token_semantics(regions, np.zeros((4, 4), int))


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.zeros((1, 4, 4), int), r"\(H, W\)"),
        (np.zeros((0, 4), int), "at least one pixel"),
        (np.zeros((4, 4)), "integers, got float64"),
        (np.full((4, 4), 11), r"labels 11 are neither in \[0, 11\) nor the ignore label 255"),
        (np.full((4, 4), -1), r"labels -1 are"),
    ],
)
def test_bad_labels(labels, match):
    with pytest.raises(ValueError, match=match):
        token_semantics(np.ones((1, 2, 2)), labels, num_labels=11, ignore_label=255)


@pytest.mark.parametrize("extent", [(2.01, 2.0), (2.0, 3.0), (0.0, 1.0), (-1.0, 1.0), (math.nan, 1.0)])
def test_bad_extent(extent):
    with pytest.raises(ValueError, match="extent"):
        token_semantics(np.ones((1, 2, 2)), np.zeros((4, 4), int), extent=extent)


def test_masses_by_hand():
    regions = np.array([[[1.0, 0.5]], [[0.0, 0.0]]])  # two cells side by side
    labels = np.array([[7, 7, 3, 255], [7, 3, 3, 255]])  # two columns of pixels a cell
    found = label_masses(regions, labels, ignore_label=255)
    assert found.ids.tolist() == [3, 7] and found.pixels.tolist() == [3, 3] and found.num_pixels == 8
    assert found.masses.tolist() == [[1 + 2 * 0.5, 3.0], [0.0, 0.0]]
    assert found.active(5 / 8).tolist() == [True, False]
    assert found.active(5.1 / 8).tolist() == [False, False] and not found.active(0)[1]
    assert label_masses(regions, np.full((2, 4), 255), ignore_label=255).masses.shape == (2, 0)
