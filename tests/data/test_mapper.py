import pickle

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.data.detection_utils import SizeMismatchError
from PIL import Image

import sgr_d2.modeling  # noqa: F401  # registers the models, which say what labels they take
from sgr_d2.data.components import ComponentLimits, label_components
from sgr_d2.data.datasets import register_folders
from sgr_d2.data.loader import seeded_randomness
from sgr_d2.data.mapper import SemanticMapper
from sgr_d2.data.reading import label_dtype


def make_mapper(limits=ComponentLimits(min_area=4), **options):
    return SemanticMapper(**{"is_train": True, "augmentations": [], "num_classes": 3, "limits": limits, **options})


def assert_consistent(output, mapper):
    """The targets fit the image and are those of the augmented labels."""
    labels = output["sem_seg"].numpy()
    assert output["image"].dtype == torch.uint8
    assert output["image"].is_contiguous()
    assert output["image"].shape == (3, *labels.shape)
    assert output["component_classes"].dtype == torch.int64
    # the smallest types that hold them: they travel between processes
    small = label_dtype(mapper.num_classes, mapper.ignore_label) == np.uint8
    assert output["sem_seg"].dtype == (torch.uint8 if small else torch.int32)
    assert output["components"].dtype == torch.int16
    expected = label_components(labels, ignore_label=mapper.ignore_label, **vars(mapper.limits))
    assert output["components"].tolist() == expected.ids.tolist()
    assert output["component_classes"].tolist() == expected.classes.tolist()
    assert (output["components_small"], output["components_cut"]) == expected[2:]


def test_without_augmentation(write_pair, scene):
    record = write_pair("a", scene)
    mapper = make_mapper(ComponentLimits(4, 4))
    output = mapper(dict(record, image_set="left"))
    assert_consistent(output, mapper)
    assert output["image"].tolist() == np.asarray(Image.open(record["file_name"])).transpose(2, 0, 1).tolist()
    assert output["sem_seg"].tolist() == scene.tolist()
    # ground, two halves of the large box, the small box, the pole: five, of which four are kept
    assert output["component_classes"].tolist() == [0, 1, 1, 1]
    assert (output["components_small"], output["components_cut"]) == (0, 1)
    assert (output["height"], output["width"]) == (37, 53)
    assert {key: output[key] for key in record} == record
    assert output["image_set"] == "left"


def test_labels_of_other_values_are_mapped(write_pair, scene):
    record = write_pair("a", scene + np.uint8(1)) | {"label_map": [255, 0, 1, 2]}
    assert make_mapper()(record)["sem_seg"].tolist() == scene.tolist()


def test_the_record_is_left_as_it_is(write_pair, scene):
    record = write_pair("a", scene)
    before = dict(record)
    make_mapper()(record)
    assert record == before


def test_image_and_labels_go_through_the_same_augmentation(write_pair, scene):
    augmentations = [T.RandomCrop("absolute", (21, 30)), T.RandomFlip()]
    mapper = make_mapper(augmentations=augmentations)
    record = write_pair("a", scene)
    for seed in range(8):
        with seeded_randomness(seed):
            output = mapper(record)
        assert_consistent(output, mapper)
        assert output["image"].shape == (3, 21, 30)
        assert (output["height"], output["width"]) == (37, 53)
        red = (output["sem_seg"].long() * 40) % 256  # what write_pair paints
        assert output["image"][0].tolist() == red.tolist()


def test_from_config(folder_cfg, write_pair, scene):
    folder_cfg.MODEL.SGR.ENABLED, folder_cfg.INPUT.COMPONENTS.MAX_COMPONENTS = True, 3
    folder_cfg.INPUT.COMPONENTS.LEFT_OUT = "outside"
    mapper = SemanticMapper(folder_cfg, is_train=True)
    assert (mapper.num_classes, mapper.ignore_label) == (3, 255)
    assert mapper.limits == ComponentLimits(4, 3, "outside")
    folder_cfg.MODEL.SGR.NUM_TOKENS = 2  # the losses have no use for more components than tokens
    assert SemanticMapper(folder_cfg, is_train=True).limits.max_components == 2
    record = write_pair("a", scene)
    for seed in range(6):
        with seeded_randomness(seed):
            output = mapper(record)
        assert_consistent(output, mapper)
        assert output["image"].shape[1] <= 32
        assert output["image"].shape[2] <= 40


def test_a_baseline_pays_for_no_components(folder_cfg, write_pair, scene):
    folder_cfg.MODEL.SGR.ENABLED = False
    output = SemanticMapper(folder_cfg, is_train=True)(write_pair("a", scene))
    assert "sem_seg" in output and not [key for key in output if key.startswith("component")]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("LEFT_OUT", "outsde", r"INPUT\.COMPONENTS\.LEFT_OUT = 'outsde': choose from \['ignored', 'outside'\]"),
        ("MIN_AREA", -1, r"INPUT\.COMPONENTS\.MIN_AREA and MAX_COMPONENTS must be 0 or more; got -1 and"),
    ],
)
def test_wrong_component_options_are_found_before_the_first_image(folder_cfg, key, value, message):
    folder_cfg.INPUT.COMPONENTS[key] = value
    with pytest.raises(ValueError, match=message):
        SemanticMapper(folder_cfg, is_train=True)


def test_the_crop_knows_the_ignore_label_of_the_data_set(folder_cfg, write_pair):
    labels = np.zeros((20, 40), np.uint8)
    labels[:, 20:] = 1
    labels[:16] = 7  # ignored: it fills four fifths of every crop and does not count
    record, (name,) = write_pair("seven", labels), folder_cfg.DATASETS.TRAIN
    folder_cfg.DATASETS.FOLDERS[f"{name}_seven"] = folder_cfg.DATASETS.FOLDERS[name].clone()
    folder_cfg.DATASETS.FOLDERS[f"{name}_seven"].IGNORE_LABEL = 7
    register_folders(folder_cfg)
    folder_cfg.DATASETS.TRAIN = folder_cfg.DATASETS.TEST = (f"{name}_seven",)
    folder_cfg.INPUT.MIN_SIZE_TRAIN, folder_cfg.INPUT.CROP.SIZE = (20, 20), [20, 20]
    mapper = SemanticMapper(folder_cfg, is_train=True)
    for seed in range(30):
        with seeded_randomness(seed):
            found = mapper(record)["sem_seg"].numpy()
        counts = np.bincount(found[found != 7], minlength=2)
        assert counts.max() < 0.8 * counts.sum()


@pytest.mark.parametrize("is_train", [True, False])
def test_channel_order_follows_the_format(folder_cfg, write_pair, scene, is_train):
    record, found = write_pair("a", scene), {}
    for order in ("RGB", "BGR"):
        folder_cfg.INPUT.FORMAT = order
        with seeded_randomness(5):
            found[order] = SemanticMapper(folder_cfg, is_train=is_train)(record)["image"]
    assert found["BGR"].tolist() == found["RGB"].flip(0).tolist()


def test_in_test_mode_only_the_image(write_pair, scene):
    record = write_pair("a", scene)
    mapper = SemanticMapper(is_train=False, augmentations=[T.ResizeShortestEdge(74, 1000)])
    output = mapper(dict(record, height=1, width=1))
    assert output.keys() == record.keys() | {"image", "height", "width"}
    assert output["image"].shape == (3, 74, 106)
    assert (output["height"], output["width"]) == (37, 53)
    assert mapper({"file_name": record["file_name"]})["image"].shape == (3, 74, 106)


@pytest.mark.parametrize("labels", [np.full((9, 5), 255, np.uint8), np.full((1, 1), 2, np.uint8)])
def test_all_ignored_and_one_colour(write_pair, labels):
    output = make_mapper(ComponentLimits(0))(write_pair("a", labels))
    count = int((labels != 255).any())
    assert output["component_classes"].tolist() == [2] * count
    assert output["components"].tolist() == np.where(labels == 255, 0, 1).tolist()


@pytest.mark.parametrize(("kept", "dtype"), [(2**15 - 2, torch.int16), (2**15 - 1, torch.int32)])
def test_the_number_of_what_is_left_out_fits_as_well(write_pair, kept, dtype):
    """It is one more than the last of the components that are kept, here of 183 x 183."""
    labels = np.full((366, 366), 255, np.uint8)
    labels[::2, ::2] = 1
    output = make_mapper(ComponentLimits(0, kept, "outside"))(write_pair("a", labels))
    assert output["components"].dtype == dtype
    assert (output["components"].min(), output["components"].max()) == (0, kept + 1)


@pytest.mark.parametrize("channels", [None, 4])
def test_gray_and_rgba_images(write_pair, scene, channels):
    shape = scene.shape if channels is None else (*scene.shape, channels)
    mapper = make_mapper()
    output = mapper(write_pair("a", scene, np.full(shape, 90, np.uint8)))
    assert_consistent(output, mapper)
    assert (output["image"] == 90).all()


@pytest.mark.parametrize("size", [20, 50])
def test_wide_labels_are_resized_like_narrow_ones(write_pair, scene, size):
    """A map with 65535 for ignored pixels must come out as the 8-bit one does."""
    augmentations = [T.ResizeShortestEdge(size, 1000), T.RandomFlip(1.0), T.RandomCrop("absolute", (15, 17))]
    wide = np.where(scene == 255, 65535, scene.astype(np.uint16) + 500 * (scene == 2)).astype(np.uint16)
    narrow, image = write_pair("narrow", scene), np.zeros((*scene.shape, 3), np.uint8)
    with seeded_randomness(3):
        expected = make_mapper(augmentations=augmentations)(narrow)["sem_seg"].int()
    mapper = make_mapper(augmentations=augmentations, num_classes=600, ignore_label=65535)
    with seeded_randomness(3):
        output = mapper(write_pair("wide", wide, image))
    assert_consistent(output, mapper)
    expected[expected == 2] = 502
    expected[expected == 255] = 65535
    assert output["sem_seg"].tolist() == expected.tolist()


def test_sizes_that_differ(write_pair, scene):
    record = write_pair("a", scene, np.zeros((37, 52, 3), np.uint8))
    with pytest.raises(
        SizeMismatchError, match=r"images/a\.png has 52x37 .*labels/a\.png has 53x37; they must agree\.$"
    ):
        make_mapper()(record)


@pytest.mark.parametrize(
    ("orientation", "hint"), [(1, r"Is one of them rotated\?"), (6, "turned upright by its EXIF orientation")]
)
def test_sizes_that_are_swapped(write_pair, scene, orientation, hint):
    rows, columns = scene.shape
    record = write_pair("a", scene, np.zeros((columns, rows, 3), np.uint8))
    with Image.open(record["file_name"]) as image:
        stored = image.transpose(Image.Transpose.ROTATE_90) if orientation == 6 else image.copy()
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(record["file_name"], exif=exif)
    with pytest.raises(SizeMismatchError, match=rf"images/a\.png has 37x53 .*labels/a\.png has 53x37.*{hint}"):
        make_mapper()(record)


def test_wrong_labels_and_missing_files(write_pair, scene):
    record = write_pair("a", scene)
    with pytest.raises(ValueError, match=r"labels/a\.png holds 2, neither a class \(0\.\.1\)"):
        make_mapper(num_classes=2)(record)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        make_mapper()({**record, "file_name": "nowhere.png"})
    with pytest.raises(ValueError, match=r"images/a\.png has no sem_seg_file_name"):
        make_mapper()({"file_name": record["file_name"]})


def test_workers_can_be_spawned(folder_cfg, write_pair, scene):
    folder_cfg.MODEL.SGR.ENABLED = True
    mapper = pickle.loads(pickle.dumps(SemanticMapper(folder_cfg, is_train=True)))
    assert_consistent(mapper(write_pair("a", scene)), mapper)
