import json
import multiprocessing
import shutil
from pathlib import Path

import cc3d
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from sgr_d2.data.datasets import shapes
from sgr_d2.data.datasets.shapes import CLASSES, COLORS, draw_scene, generate_shapes, register_shapes
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


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    return generate_shapes(root, num_train=3, num_val=2, seed=5)


@pytest.fixture
def small_copy(small_set, tmp_path):
    return Path(shutil.copytree(small_set, tmp_path / "shapes"))


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit_stamp(folder, **changes):
    stamp = folder / shapes.STAMP
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | changes))


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


# --- files


def test_generated_files(small_set):
    expected = {f"{kind}/train/{i:04d}.png" for kind in ("images", "labels") for i in range(3)}
    expected |= {f"{kind}/val/{i:04d}.png" for kind in ("images", "labels") for i in range(2)}
    assert set(files_of(small_set)) == expected | {shapes.STAMP}
    assert [path.name for path in small_set.parent.iterdir()] == ["shapes"]
    image = Image.open(small_set / "images/val/0001.png")
    labels = Image.open(small_set / "labels/val/0001.png")
    scene = draw_scene(np.random.default_rng([5, 1, 1]), shapes.HEIGHT, shapes.WIDTH)
    assert (image.mode, image.size, labels.mode) == ("RGB", (192, 144), "L")
    assert np.array_equal(np.asarray(image), scene.image)
    assert np.array_equal(np.asarray(labels), scene.labels)


def test_same_arguments_give_the_same_bytes_and_another_seed_others(small_set, tmp_path):
    again = files_of(generate_shapes(tmp_path / "a", num_train=3, num_val=2, seed=5))
    other = files_of(generate_shapes(tmp_path / "b", num_train=3, num_val=2, seed=6))
    assert again == files_of(small_set)
    assert all(again[name] != other[name] for name in again)
    assert len(set(again.values())) == len(again)  # no scene occurs twice, train and val apart


def test_second_call_writes_nothing(small_set):
    before = {path: path.stat().st_mtime_ns for path in [small_set, *small_set.rglob("*")]}
    assert generate_shapes(small_set.parent, num_train=3, num_val=2, seed=5) == small_set
    assert {path: path.stat().st_mtime_ns for path in [small_set, *small_set.rglob("*")]} == before


@pytest.mark.parametrize("content", [None, "{", "[1]", ""])
def test_folder_without_a_readable_stamp_is_left_alone(small_copy, content):
    if content is None:
        (small_copy / shapes.STAMP).unlink()
    else:
        (small_copy / shapes.STAMP).write_text(content)
    before = files_of(small_copy)
    with pytest.raises(FileExistsError, match=r"generator\.json .*Delete or rename that folder"):
        generate_shapes(small_copy.parent, num_train=3, num_val=2, seed=5)
    assert files_of(small_copy) == before


@pytest.mark.parametrize(("key", "value"), [("num_train", 4), ("num_val", 1), ("seed", 6)])
def test_folder_of_other_arguments_is_left_alone(small_copy, key, value):
    before = files_of(small_copy)
    arguments = {"num_train": 3, "num_val": 2, "seed": 5} | {key: value}
    with pytest.raises(FileExistsError, match=rf"{key} is \d, but {value} is wanted. Delete or rename"):
        generate_shapes(small_copy.parent, **arguments)
    assert files_of(small_copy) == before


def test_folder_of_another_version_is_set_aside_and_generated_anew(small_set, small_copy):
    edit_stamp(small_copy, version=0)
    (small_copy / "images/train/0000.png").write_bytes(b"as the old generator drew it")
    old = files_of(small_copy)
    folder = generate_shapes(small_copy.parent, num_train=3, num_val=2, seed=5)
    assert files_of(folder) == files_of(small_set)
    assert files_of(folder.parent / "shapes_version_0") == old

    edit_stamp(folder, version=0)
    with pytest.raises(FileExistsError, match=r"shapes_version_0.*Delete one of the two folders"):
        generate_shapes(folder.parent, num_train=3, num_val=2, seed=5)


@pytest.mark.parametrize(("key", "value"), [("num_train", 0), ("num_val", -1), ("seed", -1)])
def test_arguments_out_of_range(tmp_path, key, value):
    with pytest.raises(ValueError, match=f"{key}={value}; it must be at least"):
        generate_shapes(tmp_path, **({"num_train": 1, "num_val": 1, "seed": 0} | {key: value}))
    assert not list(tmp_path.iterdir())


# --- several processes


needs_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="a fresh process takes seconds to import Detectron2"
)


def generate_in_step(root, barrier, arguments):
    barrier.wait()
    generate_shapes(root, **arguments)


def start_processes(count, root, **arguments):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(count + 1)
    processes = [context.Process(target=generate_in_step, args=(root, barrier, arguments)) for _ in range(count)]
    for process in processes:
        process.start()
    barrier.wait()
    return processes


@needs_fork
def test_two_processes_at_once_end_with_one_complete_set(small_set, small_copy):
    # From an old version, so that the two race for setting it aside as well.
    edit_stamp(small_copy, version=0)
    processes = start_processes(2, small_copy.parent, num_train=3, num_val=2, seed=5)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert files_of(small_copy) == files_of(small_set)
    assert sorted(path.name for path in small_copy.parent.iterdir()) == ["shapes", "shapes_version_0"]


@needs_fork
def test_a_killed_generation_is_never_taken_as_complete(tmp_path):
    (process,) = start_processes(1, tmp_path, num_train=2000, num_val=1, seed=5)
    while process.is_alive() and not any(tmp_path.rglob("*.png")):
        process.join(0.01)
    process.kill()
    process.join()
    assert not (tmp_path / "shapes").exists()
    folder = generate_shapes(tmp_path, num_train=1, num_val=1, seed=5)
    assert len(list(folder.rglob("*.png"))) == 4


# --- registration


@pytest.fixture
def own_catalogs(monkeypatch):
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", dict(catalog.data))


@pytest.mark.usefixtures("own_catalogs")
def test_registration(small_set):
    for _ in range(2):
        register_shapes(small_set.parent, num_train=3, num_val=2, seed=5)
    records = DatasetCatalog.get("shapes_train")
    assert len(records) == 3
    assert len(DatasetCatalog.get("shapes_val")) == 2
    for record in records:
        assert Image.open(record["file_name"]).size == (record["width"], record["height"])
        assert Image.open(record["sem_seg_file_name"]).size == (record["width"], record["height"])
    assert len({record["image_id"] for record in records}) == 3
    metadata = MetadataCatalog.get("shapes_val")
    assert metadata.stuff_classes == list(CLASSES)
    assert metadata.stuff_colors == COLORS
    assert len(set(COLORS)) == len(CLASSES)
    assert (metadata.ignore_label, metadata.evaluator_type) == (255, "sem_seg")


@pytest.mark.usefixtures("own_catalogs")
def test_registration_alone_writes_nothing_and_a_further_one_moves_it(small_set, tmp_path):
    register_shapes(tmp_path / "elsewhere")
    assert not list(tmp_path.iterdir())
    assert MetadataCatalog.get("shapes_train").image_root == str(tmp_path / "elsewhere/shapes/images/train")
    register_shapes(small_set.parent, num_train=3, num_val=2, seed=5)
    assert DatasetCatalog.get("shapes_val")[0]["file_name"] == str(small_set / "images/val/0000.png")
    register_shapes(small_set.parent, num_train=9, num_val=2, seed=5)
    with pytest.raises(FileExistsError, match="num_train is 3, but 9 is wanted"):
        DatasetCatalog.get("shapes_val")
