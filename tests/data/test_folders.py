import json
from pathlib import Path

import pytest
import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from sgr_d2.config import get_sgr_cfg
from sgr_d2.data.datasets import folders, get_dataset_records, metadata_of, register_folders, require_folders
from sgr_d2.data.datasets.folders import _class_names

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def catalogs():
    """Leaves the catalogs as they were."""
    before = set(DatasetCatalog)
    yield
    for name in set(DatasetCatalog) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def make_cfg(**entries):
    cfg = get_sgr_cfg()
    cfg.DATASETS.FOLDERS = CfgNode(entries)
    return cfg


def entry(tmp_path, **keys):
    return {"IMAGE_DIR": str(tmp_path / "i"), "LABEL_DIR": str(tmp_path / "l"), "CLASSES": ["a", "b"], **keys}


def test_register(tmp_path, catalogs, monkeypatch):
    touch(tmp_path, "i/x.png", "l/x.png")
    monkeypatch.setenv("MY_DATA", str(tmp_path))
    register_folders(
        make_cfg(mine=entry(tmp_path, IMAGE_DIR="$MY_DATA/i", IGNORE_LABEL=2, COLORS=[[1, 2, 3], [4, 5, 6]]))
    )
    (record,) = get_dataset_records("mine")
    assert record["file_name"] == str(tmp_path / "i/x.png")
    # the first number after the classes may be the ignore label, as in CamVid
    assert metadata_of(["mine"]) == (["a", "b"], [(1, 2, 3), (4, 5, 6)], 2)
    metadata = MetadataCatalog.get("mine")
    assert metadata.evaluator_type == "sem_seg"
    assert (metadata.image_root, metadata.sem_seg_root) == (str(tmp_path / "i"), str(tmp_path / "l"))


def test_a_split_takes_the_images_it_names(tmp_path, catalogs):
    touch(tmp_path / "i", *(f"{i}.jpg" for i in range(4)), "town/x.y.png", "without label.jpg")
    touch(tmp_path / "l", *(f"{i}.png" for i in range(4)), "town/x.y.png", "without image.png")
    (tmp_path / "train.txt").write_text("3\r\n\ntown/x.y.png\n0.jpg \n3\n", encoding="utf-8")
    (tmp_path / "val.txt").write_text("1\ntown/x.y\n", encoding="utf-8")
    for split, expected in (("train", ["0", "3", "town/x.y"]), ("val", ["1", "town/x.y"])):  # one replaces the other
        register_folders(make_cfg(mine=entry(tmp_path, SPLIT=str(tmp_path / f"{split}.txt"))))
        assert [record["image_id"] for record in get_dataset_records("mine")] == expected


def test_suffixes(tmp_path, catalogs):
    touch(tmp_path, "i/x.png", "i/x_mask.png")
    for suffix, message in (("_mask", None), ("_label", "nothing|no label")):  # one replaces the other
        register_folders(make_cfg(mine=entry(tmp_path, LABEL_DIR=str(tmp_path / "i"), LABEL_SUFFIX=suffix)))
        if message is None:
            (record,) = get_dataset_records("mine")
            assert record["sem_seg_file_name"] == str(tmp_path / "i/x_mask.png")
        else:
            with pytest.raises(ValueError, match=message):
                get_dataset_records("mine")
    (tmp_path / "i/y_rgb.png").touch()
    register_folders(
        make_cfg(mine=entry(tmp_path, LABEL_DIR=str(tmp_path / "i"), IMAGE_SUFFIX="_rgb", LABEL_SUFFIX="_mask"))
    )
    with pytest.raises(ValueError, match=r"1 of 1 images have no label .*y_rgb\.png"):
        get_dataset_records("mine")


def test_defaults(tmp_path, catalogs):
    register_folders(make_cfg(mine=entry(tmp_path)))
    classes, colors, ignore_label = metadata_of(["mine"])
    assert classes == ["a", "b"]
    assert len(set(colors)) == 2
    assert ignore_label == 255


def test_a_label_map_travels_with_the_records(tmp_path, catalogs):
    touch(tmp_path, "i/x.png", "l/x.png")
    register_folders(make_cfg(mine=entry(tmp_path, LABEL_MAP=(255, 0, 1))))
    (record,) = get_dataset_records("mine")
    assert record["label_map"] == MetadataCatalog.get("mine").label_map == [255, 0, 1]
    register_folders(make_cfg(mine=entry(tmp_path, LABEL_MAP=[[7, 255], (300, 1)])))
    (record,) = get_dataset_records("mine")
    assert record["label_map"] == {7: 255, 300: 1}
    register_folders(make_cfg(mine=entry(tmp_path, LABEL_MAP=[[[1, 2, 3], 1], ((4, 5, 6), 0)])))
    (record,) = get_dataset_records("mine")
    assert record["label_map"] == {(1, 2, 3): 1, (4, 5, 6): 0}
    register_folders(make_cfg(mine=entry(tmp_path)))
    (record,) = get_dataset_records("mine")
    assert "label_map" not in record and MetadataCatalog.get("mine").label_map is None


def test_classes_look_as_in_label_files_that_hold_colours(tmp_path, catalogs):
    label_map = [[[9, 9, 9], 255], [[1, 2, 3], 1], [[4, 5, 6], 0], [[7, 8, 9], 1]]
    register_folders(make_cfg(mine=entry(tmp_path, LABEL_MAP=label_map)))
    assert metadata_of(["mine"]).colors == [(4, 5, 6), (1, 2, 3)]
    register_folders(make_cfg(mine=entry(tmp_path, LABEL_MAP=label_map, COLORS=[[1, 1, 1], [2, 2, 2]])))
    assert metadata_of(["mine"]).colors == [(1, 1, 1), (2, 2, 2)]
    register_folders(make_cfg(mine=entry(tmp_path, LABEL_MAP=label_map[:2])))  # nothing shows the first class
    assert len(set(metadata_of(["mine"]).colors)) == 2


def test_home_and_relative_paths(tmp_path, catalogs, monkeypatch):
    touch(tmp_path, "i/x.png", "l/x.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    register_folders(make_cfg(mine=entry(tmp_path, IMAGE_DIR="~/i", LABEL_DIR="l")))
    (record,) = get_dataset_records("mine")
    assert record == {"file_name": str(tmp_path / "i/x.png"), "sem_seg_file_name": "l/x.png", "image_id": "x"}


def test_registering_again(tmp_path, catalogs):
    register_folders(make_cfg(mine=entry(tmp_path)))
    metadata = MetadataCatalog.get("mine")
    register_folders(make_cfg(mine=entry(tmp_path)))
    assert MetadataCatalog.get("mine") is metadata
    register_folders(make_cfg(mine=entry(tmp_path, CLASSES=["c"], IGNORE_LABEL=9)))
    assert metadata_of(["mine"]).classes == ["c"]
    assert metadata_of(["mine"]).ignore_label == 9


def test_folders_are_read_once_until_they_are_registered_again(tmp_path, catalogs, monkeypatch):
    touch(tmp_path, "i/a.png", "l/a.png")
    reads, load = [], folders.load_image_label_folder
    monkeypatch.setattr(folders, "load_image_label_folder", lambda *args, **_: reads.append(args) or load(*args))
    cfg = make_cfg(mine=entry(tmp_path))
    register_folders(cfg)
    require_folders(["mine", "mine"])
    get_dataset_records("mine")[0]["file_name"] = "changed"
    assert [Path(record["file_name"]).name for record in get_dataset_records("mine")] == ["a.png"]
    assert len(reads) == 1
    touch(tmp_path, "i/b.png", "l/b.png")
    register_folders(cfg)
    assert len(get_dataset_records("mine")) == 2 and len(reads) == 2


def test_other_entries_may_name_what_is_not_there(tmp_path, catalogs):
    cfg = make_cfg(mine=entry(tmp_path), other=entry(tmp_path, CLASSES="gone.txt"))
    register_folders(cfg, ["mine"])
    assert metadata_of(["mine"]).classes == ["a", "b"] and "other" not in DatasetCatalog


def test_a_name_that_is_taken(tmp_path, catalogs):
    for name in ("ade20k_sem_seg_train", "camvid_train"):
        DatasetCatalog.setdefault(name, list)
        with pytest.raises(ValueError, match=f"'{name}' already belongs to another data set"):
            register_folders(make_cfg(**{name: entry(tmp_path)}))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("names.txt", "road\n\n  traffic sign \n"),
        ("names.json", '["road", "traffic sign"]'),
        ("names.JSON", json.dumps({"classes": ["road", "traffic sign"], "ignore_label": 255})),
    ],
)
def test_class_files(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    assert _class_names(str(tmp_path / file), "K") == ["road", "traffic sign"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"IMAGES": "x"}, r"Unknown key DATASETS\.FOLDERS\.mine\.IMAGES\. Valid keys: IMAGE_DIR, LABEL_DIR, CLASSES"),
        ({"LABEL_DIR": ""}, r"DATASETS\.FOLDERS\.mine\.LABEL_DIR is missing\. Valid keys: .*COLORS"),
        ({"IMAGE_DIR": ["a"]}, r"DATASETS\.FOLDERS\.mine\.IMAGE_DIR must be the path of a folder; got \['a'\]"),
        ({"SPLIT": ["a"]}, r"DATASETS\.FOLDERS\.mine\.SPLIT must be the path of a file; got \['a'\]"),
        ({"LABEL_SUFFIX": 1}, r"mine\.LABEL_SUFFIX must be the end of the file names; got 1"),
        ({"CLASSES": 11}, r"mine\.CLASSES must be a list of names, or a file of them; got 11"),
        ({"COLORS": 3}, r"mine\.COLORS must hold 2 colours"),
        ({"CLASSES": []}, r"DATASETS\.FOLDERS\.mine\.CLASSES is missing"),
        (
            {"CLASSES": ["yes", False]},
            r"CLASSES must give .* all of them text; got \['yes', False\]\. YAML reads no, yes",
        ),
        ({"CLASSES": ["a", "b", "a"]}, r"mine\.CLASSES names a more than once"),
        ({"IGNORE_LABEL": 1}, r"mine\.IGNORE_LABEL must be .* outside the class indices 0\.\.1; got 1"),
        ({"IGNORE_LABEL": 0}, r"got 0\. If 0 is no class .* leave it out and set LABEL_MAP: \[255, 0, 1\]"),
        ({"IGNORE_LABEL": "none"}, r"mine\.IGNORE_LABEL must be a whole number.*got 'none'"),
        (
            {"LABEL_MAP": [255, 0, 2]},
            r"mine\.LABEL_MAP holds 2, neither .* class \(0\.\.1\) nor the ignore label \(255\)",
        ),
        ({"LABEL_MAP": [254, 0]}, r"mine\.LABEL_MAP holds 254, neither"),
        ({"LABEL_MAP": [0.0, 1]}, r"mine\.LABEL_MAP holds 0\.0, neither"),
        ({"LABEL_MAP": [[7.0, 0]]}, r"mine\.LABEL_MAP has a label for 7\.0, which is not a value"),
        ({"CLASSES": ["soil", ""]}, r"mine\.CLASSES must give .* none empty.* got \['soil', ''\]"),
        ({"LABEL_MAP": ["soil"]}, r"mine\.LABEL_MAP holds 'soil', neither"),
        ({"LABEL_MAP": "255, 0"}, r"mine\.LABEL_MAP must be a list of labels.* got '255, 0'"),
        ({"LABEL_MAP": []}, r"mine\.LABEL_MAP must be a list of labels"),
        ({"LABEL_MAP": [[7, 0], [8, 2]]}, r"mine\.LABEL_MAP holds 2, neither"),
        ({"LABEL_MAP": [[-1, 0]]}, r"mine\.LABEL_MAP has a label for -1, which .* of 0\.\.65535, one pair"),
        ({"LABEL_MAP": [[7, 0], [7, 1]]}, r"mine\.LABEL_MAP has two labels for a value\. Give each"),
        ({"LABEL_MAP": [[[1, 2, 3], 2]]}, r"mine\.LABEL_MAP holds 2, neither"),
        ({"LABEL_MAP": [[[1, 2, 256], 0]]}, r"mine\.LABEL_MAP has a label for \[1, 2, 256\], which is not a colour"),
        (
            {"LABEL_MAP": [[[1, 2, 3], 0], [7, 1]]},
            r"LABEL_MAP has a label for 7, which is not a colour .* of 0\.\.255, one",
        ),
        ({"LABEL_MAP": [[[1, 2, 3], 0], [[1, 2, 3], 1]]}, r"mine\.LABEL_MAP has two labels for a colour\. Give each"),
        ({"LABEL_MAP": [[7, 0], 1]}, r"mine\.LABEL_MAP holds \[7, 0\], neither"),
        ({"LABEL_MAP": {7: 0}}, r"mine\.LABEL_MAP must be a list of labels, .* or of pairs \[value, label\] or .*got"),
        ({"COLORS": [[0, 0, 0]]}, r"mine\.COLORS must hold 2 colours"),
        ({"COLORS": [[0, 0, 0], [0, 256, 0]]}, r"mine\.COLORS must hold 2 colours"),
        ({"COLORS": [1, 2]}, r"mine\.COLORS must hold 2 colours"),
    ],
)
def test_bad_keys(tmp_path, catalogs, keys, message):
    with pytest.raises(ValueError, match=message):
        register_folders(make_cfg(mine=entry(tmp_path, **keys)))
    assert "mine" not in DatasetCatalog


@pytest.mark.parametrize("name", ["a/b", "/tmp/a", "..", "a\\b"])
def test_names_that_are_no_folder(tmp_path, catalogs, name):
    with pytest.raises(ValueError, match=r"the name '.+' becomes that of a folder of results"):
        register_folders(make_cfg(**{name: entry(tmp_path)}))


def test_an_entry_without_keys(catalogs):
    with pytest.raises(ValueError, match=r"DATASETS\.FOLDERS\.mine must hold keys; got 'images'"):
        register_folders(make_cfg(mine="images"))


def test_bad_class_files(tmp_path, catalogs):
    with pytest.raises(FileNotFoundError, match=r"mine\.CLASSES: no file /.*/absent\.txt"):
        register_folders(make_cfg(mine=entry(tmp_path, CLASSES=str(tmp_path / "absent.txt"))))
    for text, message in (("{", "is not valid JSON"), ('{"names": []}', "must hold a list of names")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=rf"mine\.CLASSES: .*bad\.json {message}"):
            register_folders(make_cfg(mine=entry(tmp_path, CLASSES=str(tmp_path / "bad.json"))))


def test_the_example_of_the_readme(tmp_path, catalogs):
    """The yaml that datasets/README.md shows loads, and registers two data sets that fit together."""
    lines = (REPOSITORY / "datasets/README.md").read_text(encoding="utf-8").split("    DATASETS:\n")[1].splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("    "))
    text = "\n".join(["    DATASETS:", *lines[:end]])
    assert yaml.safe_load(text)
    config = tmp_path / "config.yaml"
    config.write_text(text)
    cfg = get_sgr_cfg()
    cfg.merge_from_file(str(config))
    register_folders(cfg)
    assert metadata_of([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]).classes == ["soil", "crop", "weed"]
    assert Path(MetadataCatalog.get(cfg.DATASETS.TEST[0]).image_root).parts[-2:] == ("images", "val")
