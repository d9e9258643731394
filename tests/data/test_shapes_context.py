import json

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from PIL import Image

from sgr_d2.data.datasets import dataset_root, get_dataset_records, metadata_of
from sgr_d2.data.datasets import shapes_context as data
from sgr_d2.data.datasets.shapes_context_scene import CLASSES, KEYS, REACH, RINGS, draw_context_scene

# Scene [0, 0, 0] of VERSION: pixels a class, mean of the channels.
GOLDEN_COUNTS = [29409, 370, 0, 985, 567, 0, 1693, 0]
GOLDEN_MEAN = [26.2, 147.0, 148.0]


@pytest.fixture(scope="module")
def pairs():
    """The two scenes of 20 generator states, one with either key."""
    return [
        tuple(draw_context_scene(np.random.default_rng([3, i]), data.HEIGHT, data.WIDTH, key) for key in (0, 1))
        for i in range(20)
    ]


@pytest.fixture(scope="module")
def small_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    data.generate_shapes_context(root, num_train=3, num_val=2, seed=5)
    return root


# --- one scene


def test_scene_has_the_promised_types_and_one_key(pairs):
    for key, scene in ((key, pair[key]) for pair in pairs for key in (0, 1)):
        assert (scene.image.shape, scene.image.dtype) == ((data.HEIGHT, data.WIDTH, 3), np.uint8)
        assert (scene.labels.shape, scene.labels.dtype) == ((data.HEIGHT, data.WIDTH), np.uint8)
        assert set(np.unique(scene.labels)) <= set(range(len(CLASSES)))
        own, other = CLASSES.index(KEYS[key]), CLASSES.index(KEYS[1 - key])
        assert (scene.labels == own).sum() > 100 and not (scene.labels == other).any()
        assert (scene.labels == RINGS[key]).any() and not (scene.labels == RINGS[1 - key]).any()
        centre = np.argwhere(scene.labels == own).mean(0)
        assert np.abs(centre - scene.key).max() < 3


def test_boxes_and_distances_are_those_of_the_label_map(pairs):
    for scene in (scene for pair in pairs for scene in pair):
        assert len(scene.rings) >= 2
        covered = np.zeros_like(scene.labels, bool)
        for ring in scene.rings:
            top, left, bottom, right = ring.box
            inside = scene.labels[top:bottom, left:right] == ring.label
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
            assert set(np.unique(scene.labels[top:bottom, left:right])) == {0, ring.label}
            assert not covered[top:bottom, left:right].any()
            covered[top:bottom, left:right] = True
            middle = np.array([top + bottom - 1, left + right - 1]) / 2
            assert ring.distance == pytest.approx(np.hypot(*(middle - scene.key)), abs=2)
            assert ring.distance > 25
        assert covered[scene.labels == scene.rings[0].label].all()


def test_the_other_key_changes_every_ring_and_no_pixel_beyond_the_key(pairs):
    """So a window without the key is the same for both classes, and whoever decides by it is right half of the time."""
    rows, columns = np.mgrid[: data.HEIGHT, : data.WIDTH]
    for star, cross in pairs:
        away = np.hypot(rows - star.key[0], columns - star.key[1]) > REACH
        assert star.key == cross.key
        assert np.array_equal(star.image[away], cross.image[away])
        assert not np.array_equal(star.image[~away], cross.image[~away])
        rings = star.labels == RINGS[0]
        assert np.array_equal(rings, cross.labels == RINGS[1])
        others = away & ~rings
        assert np.array_equal(star.labels[others], cross.labels[others])
        assert [ring[1:] for ring in star.rings] == [ring[1:] for ring in cross.rings]


def test_distances_reach_over_the_whole_strip(pairs):
    distances = [ring.distance for pair in pairs for ring in pair[0].rings]
    assert min(distances) < 60 and max(distances) > 400
    assert np.mean(np.array(distances) > 120) > 0.4


def test_what_surrounds_a_ring_does_not_tell_its_class(pairs):
    """The nearest neighbour among windows of 43 pixels around other rings, none of which shows the key."""

    def windows(key):
        padded = [np.pad(pair[key].image.mean(-1), 21) for pair in pairs]
        centres = [[(r.box[0] + r.box[2]) // 2, (r.box[1] + r.box[3]) // 2] for p in pairs for r in p[key].rings]
        owner = [i for i, pair in enumerate(pairs) for _ in pair[key].rings]
        far = [r.distance > 21 * 2**0.5 + REACH for pair in pairs for r in pair[key].rings]
        cut = [padded[i][r : r + 43, c : c + 43].ravel() for i, (r, c) in zip(owner, centres, strict=True)]
        return np.array(cut)[far], np.array(owner)[far]

    # 10 scenes with a star and 10 others with a cross, as in a split
    x, owner = windows(0)
    truth = owner % 2  # the class in a split: the window itself is the same for both keys
    assert np.array_equal(x, windows(1)[0])
    distance = ((x[:, None] - x[None]) ** 2).sum(-1)
    distance[owner[:, None] == owner[None]] = np.inf
    accuracy = (truth[distance.argmin(1)] == truth).mean()
    assert 0.3 < accuracy < 0.7


def test_same_seed_gives_the_same_scene_and_odd_sizes_work():
    first, again, other = (draw_context_scene(np.random.default_rng(seed), 65, 259, 1) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image) and first.rings == again.rings
    assert not np.array_equal(first.image, other.image)
    for seed in range(8):
        scene = draw_context_scene(np.random.default_rng(seed), 40, 258, 0)
        assert scene.image.shape == (40, 258, 3) and len(scene.rings) >= 2


@pytest.mark.parametrize(("size", "key"), [((39, 258), 0), ((40, 257), 0), ((64, 516), 2)])
def test_what_cannot_be_drawn_is_refused(size, key):
    with pytest.raises(ValueError, match=r"draw_context_scene: (height=\d+, width=\d+; at least 40 and 258|key=2;)"):
        draw_context_scene(np.random.default_rng(0), *size, key)


def test_generator_still_draws_what_its_version_drew():
    # Where a change is meant: raise VERSION as well.
    scene = draw_context_scene(np.random.default_rng([0, 0, 0]), data.HEIGHT, data.WIDTH, 0)
    assert data.VERSION == 1
    assert np.bincount(scene.labels.ravel(), minlength=8).tolist() == pytest.approx(GOLDEN_COUNTS, abs=20)
    assert scene.image.reshape(-1, 3).mean(0).tolist() == pytest.approx(GOLDEN_MEAN, abs=0.5)


# --- files


def test_generated_files_and_records(small_root):
    folder = small_root / data.NAME
    data.register_shapes_context(small_root, num_train=3, num_val=2, seed=5)
    try:
        names = [f"{data.NAME}_train", f"{data.NAME}_val"]
        records = get_dataset_records(names[1])
        assert len(get_dataset_records(names[0])) == 3 and len(records) == 2
        scene = draw_context_scene(np.random.default_rng([5, 1, 1]), data.HEIGHT, data.WIDTH, 1)
        assert np.array_equal(np.asarray(Image.open(records[1]["file_name"])), scene.image)
        assert np.array_equal(np.asarray(Image.open(records[1]["sem_seg_file_name"])), scene.labels)
        assert [tuple(item["box"]) for item in records[1]["context_objects"]] == [ring.box for ring in scene.rings]
        assert {item["label"] for item in records[1]["context_objects"]} == {RINGS[1]}
        assert metadata_of(names).classes == list(CLASSES)
        assert MetadataCatalog.get(names[1]).evaluator_type == "shapes_context"
        assert MetadataCatalog.get(names[1]).context_labels == list(RINGS)
    finally:
        data.register_shapes_context(dataset_root())  # back to the usual numbers and place
    stamp = json.loads((folder / "generator.json").read_text())
    assert (stamp["version"], stamp["num_train"], stamp["seed"]) == (data.VERSION, 3, 5)


def test_second_call_writes_nothing_and_other_arguments_are_refused(small_root):
    before = {path: path.stat().st_mtime_ns for path in small_root.rglob("*")}
    data.generate_shapes_context(small_root, num_train=3, num_val=2, seed=5)
    with pytest.raises(FileExistsError, match=r"num_val is 2, but 4 is wanted\. Delete or rename"):
        data.generate_shapes_context(small_root, num_train=3, num_val=4, seed=5)
    assert {path: path.stat().st_mtime_ns for path in small_root.rglob("*")} == before


@pytest.mark.parametrize("wrong", [{"num_train": 0}, {"num_val": -1}, {"seed": -1}])
def test_arguments_out_of_range(tmp_path, wrong):
    with pytest.raises(ValueError, match=rf"generate_shapes_context: {next(iter(wrong))}=.*must be at least"):
        data.generate_shapes_context(tmp_path, **wrong)
