import cc3d
import numpy as np
import pytest

from sgr_d2.data.datasets import shapes
from sgr_d2.data.datasets.shapes import CLASSES, draw_scene
from sgr_d2.data.datasets.shapes_outline import OUTLINES, outline_distance

HEIGHT, WIDTH = 144, 192
SURFACES = 2

# Scene [0, 0, 0] of VERSION: pixels a class, mean of the channels, spread of the image, number of objects.
GOLDEN_COUNTS = [11487, 10755, 0, 0, 1465, 2902, 0, 1039]
GOLDEN_MEAN = [98.4, 143.4, 153.3]
GOLDEN_STD = 58.4
GOLDEN_INSTANCES = 5


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(np.random.default_rng([7, i]), HEIGHT, WIDTH) for i in range(40)]


# --- one scene


def test_scene_has_the_promised_types_and_ranges(scenes):
    for image, labels, instances in scenes:
        assert (image.shape, image.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
        assert (labels.shape, labels.dtype) == ((HEIGHT, WIDTH), np.uint8)
        assert (instances.shape, instances.dtype) == ((HEIGHT, WIDTH), np.int32)
        assert labels.max() < len(CLASSES)
        assert np.array_equal(instances == 0, labels < SURFACES)
        ids = np.unique(instances)
        assert np.array_equal(ids, np.arange(len(ids)))
        assert 4 <= ids[-1] <= 9
        assert all(len(np.unique(labels[instances == i])) == 1 for i in ids[1:])


def test_same_seed_gives_the_same_scene_and_another_seed_another():
    first, again, other = (draw_scene(np.random.default_rng(seed), 97, 131) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.image, other.image)
    assert not np.array_equal(first.labels, other.labels)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 203), (201, 71)])
def test_odd_sizes(height, width):
    for seed in range(5):
        scene = draw_scene(np.random.default_rng(seed), height, width)
        assert scene.image.shape == (height, width, 3)
        assert scene.instances.max() >= 2


def test_too_small_scene_is_refused():
    with pytest.raises(ValueError, match=r"height=63, width=192; both must be at least 64"):
        draw_scene(np.random.default_rng(0), 63, 192)


def test_every_class_occurs_and_has_a_sensible_share(scenes):
    labels = np.stack([scene.labels for scene in scenes])
    share = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
    assert share.shape == (len(CLASSES),)
    assert np.all(share[:SURFACES] > 0.25)
    assert np.all(share[:SURFACES] < 0.5)
    assert np.all(share[SURFACES:] > 0.015)
    assert np.all(share[SURFACES:] < 0.1)


def test_most_scenes_hold_touching_and_separate_instances_of_one_class(scenes):
    touching = separate = 0
    for _, labels, instances in scenes:
        components = [cc3d.connected_components(labels == c, connectivity=8) for c in range(SURFACES, len(CLASSES))]
        separate += any(ids.max() >= 2 for ids in components)
        touching += any(
            len(np.unique(instances[ids == i])) >= 2 for ids in components for i in range(1, int(ids.max()) + 1)
        )
    assert touching >= 0.8 * len(scenes)
    assert separate >= 0.8 * len(scenes)


def mean_iou(truth, predicted):
    confusion = np.zeros((len(CLASSES), len(CLASSES)))
    np.add.at(confusion, (truth.ravel(), predicted.ravel()), 1)
    hits = np.diag(confusion)
    return 100 * np.mean(hits / (confusion.sum(0) + confusion.sum(1) - hits))


@pytest.mark.parametrize("balanced", [True, False])
def test_colour_alone_does_not_tell_the_class(scenes, balanced):
    images = np.stack([scene.image for scene in scenes]).astype(int)
    labels = np.stack([scene.labels for scene in scenes])
    bins = np.dot(images // 32, [64, 8, 1])  # (N, H, W), 8 steps a channel
    histogram = np.zeros((512, len(CLASSES)))
    np.add.at(histogram, (bins[:30].ravel(), labels[:30].ravel()), 1)
    if balanced:
        histogram /= histogram.sum(0)
    assert mean_iou(labels[30:], histogram.argmax(1)[bins[30:]]) < 20
    assert mean_iou(labels[30:], labels[30:]) == 100  # the measure itself


def test_nearest_mean_colour_does_not_tell_the_class(scenes):
    images = np.stack([scene.image for scene in scenes]).astype(np.float32)
    labels = np.stack([scene.labels for scene in scenes])
    means = np.stack([images[:30][labels[:30] == c].mean(0) for c in range(len(CLASSES))])
    distances = np.stack([((images[30:] - mean) ** 2).sum(-1) for mean in means])
    assert mean_iou(labels[30:], distances.argmin(0)) < 20


def test_generator_still_draws_what_its_version_drew():
    # Rounded figures, since the last bit may differ between processors. Where a change is meant: raise VERSION as well.
    image, labels, instances = draw_scene(np.random.default_rng([0, 0, 0]), HEIGHT, WIDTH)
    assert shapes.VERSION == 1
    assert np.bincount(labels.ravel(), minlength=8).tolist() == pytest.approx(GOLDEN_COUNTS, abs=20)
    assert image.reshape(-1, 3).mean(0).tolist() == pytest.approx(GOLDEN_MEAN, abs=0.5)
    assert image.std() == pytest.approx(GOLDEN_STD, abs=0.5)
    assert instances.max() == GOLDEN_INSTANCES


# --- outlines


def test_area_of_each_outline_is_that_of_its_formula():
    y, x = np.mgrid[-60:61, -60:61].astype(np.float32)
    inside = {name: np.count_nonzero(outline_distance(name, x, y, 50, 0.3) <= 0) for name in OUTLINES}
    assert inside["disk"] == pytest.approx(np.pi * 37**2, rel=0.01)
    assert inside["ring"] == pytest.approx(np.pi * (43**2 - 20**2), rel=0.01)
    # A convex outline of area A and perimeter U, grown by r all round, covers A + r U + pi r**2 (Steiner).
    circumradius, growth = 0.95 * 50, 0.05 * 50
    side = 0.88 * circumradius * 2**0.5
    assert inside["square"] == pytest.approx(side**2 + growth * 4 * side + np.pi * growth**2, rel=0.01)
    side = circumradius * 3**0.5
    area = side**2 * 3**0.5 / 4
    assert inside["triangle"] == pytest.approx(area + growth * 3 * side + np.pi * growth**2, rel=0.01)


def test_distance_of_a_polygon_is_that_to_the_nearest_of_many_outline_points():
    y, x = np.mgrid[-20:21, -20:21].astype(np.float32)
    distance = outline_distance("square", x, y, 20 / 0.88, np.pi / 4)
    half = 0.95 * 20 / 2**0.5
    t = np.linspace(-half, half, 400)
    sides = [(t, t * 0 - half), (t, t * 0 + half), (t * 0 - half, t), (t * 0 + half, t)]
    outline = np.concatenate([np.stack(side, 1) for side in sides])  # (1600, 2)
    slow = np.sqrt(((np.stack([x, y], -1)[:, :, None] - outline) ** 2).sum(-1)).min(-1)
    slow *= np.where(np.maximum(abs(x), abs(y)) < half, -1, 1)
    assert np.abs(distance + 0.05 * 20 / 0.88 - slow).max() < 0.05
