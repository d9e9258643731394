import json
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from sgr_d2.data.datasets import shapes
from sgr_d2.data.datasets.shapes import CLASSES, COLORS, draw_scene, generate_shapes, register_shapes


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
