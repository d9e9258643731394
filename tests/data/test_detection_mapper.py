import copy
import pickle

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.structures import BoxMode
from PIL import Image

from sgr_d2.config import get_sgr_cfg
from sgr_d2.data.components import ComponentLimits
from sgr_d2.data.datasets import register_all
from sgr_d2.data.detection_mapper import DetectionMapper
from sgr_d2.data.loader import seeded_randomness

CLASSES = ["box", "disc"]
SIZE = (30, 41)  # height, width


def polygon(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(left, top, right, bottom, category=0, **options):
    return {
        "bbox": [left, top, right - left, bottom - top],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": category,
        "segmentation": polygon(left, top, right, bottom),
        **options,
    }


@pytest.fixture
def record(tmp_path):
    """An image of noise with a large box, a small disc's box upon it, and a crowd."""
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return {
        "file_name": str(tmp_path / "image.png"),
        "image_id": 7,
        "height": SIZE[0],
        "width": SIZE[1],
        "annotations": [
            annotation(20.0, 10.0, 24.0, 15.0, 1),
            annotation(2.0, 4.0, 30.0, 24.0, 0),
            annotation(30.0, 0.0, 41.0, 30.0, 1, iscrowd=1),
        ],
    }


def make(**options):
    return DetectionMapper(
        **{"is_train": True, "augmentations": [], "classes": CLASSES, "limits": ComponentLimits(1), **options}
    )


def test_by_hand(record):
    before = copy.deepcopy(record)
    output = make()(record)
    assert record == before
    assert "annotations" not in output and output["image_id"] == 7
    assert (output["height"], output["width"]) == SIZE
    instances = output["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[20, 10, 24, 15], [2, 4, 30, 24]]
    assert instances.gt_classes.tolist() == [1, 0]
    assert instances.gt_masks.area().tolist() == [20, 560]
    # components: the largest first, the smaller one on top; the crowd is not labelled
    expected = np.zeros(SIZE, np.int32)
    expected[4:24, 2:30] = 1
    expected[10:15, 20:24] = 2
    assert output["components"].tolist() == expected.tolist()
    assert output["component_classes"].tolist() == [0, 1]
    assert (output["components_small"], output["components_cut"]) == (0, 0)


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
@pytest.mark.parametrize("seed", range(4))
def test_image_boxes_masks_and_components_move_together(record, mask_format, seed):
    augmentations = [T.ResizeShortestEdge((60, 75), 300, "choice"), T.RandomFlip()]
    with seeded_randomness(seed):
        output = make(augmentations=augmentations, mask_format=mask_format)(record)
    size = tuple(output["image"].shape[-2:])
    scale = size[0] / SIZE[0]
    instances = output["instances"]
    assert instances.image_size == size
    for i, number in enumerate((2, 1)):
        box = instances.gt_boxes.tensor[i]
        rows, columns = torch.nonzero(output["components"] == number, as_tuple=True)
        found = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (found - box).abs().max() <= 2
    assert (output["components"] > 0).sum() == pytest.approx(560 * scale**2, rel=0.05)


def test_crop_gives_the_boxes_of_what_is_left(record):
    augmentations = [T.CropTransform(0, 0, 22, 30)]
    instances = make(augmentations=augmentations, mask_format="bitmask")(record)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[20, 10, 22, 15], [2, 4, 22, 24]]
    assert instances.gt_masks.tensor.sum((1, 2)).tolist() == [10, 400]
    augmentations = [T.CropTransform(0, 0, 18, 30)]  # the small one is outside
    output = make(augmentations=augmentations, mask_format="bitmask")(record)
    assert output["instances"].gt_classes.tolist() == output["component_classes"].tolist() == [0]


def test_the_box_of_a_part_is_smaller_than_the_part_of_the_box(record):
    """An angle of which the crop keeps the horizontal bar."""
    corners = [2, 4, 30, 4, 30, 8, 6, 8, 6, 24, 2, 24]
    record["annotations"] = [annotation(2.0, 4.0, 30.0, 24.0) | {"segmentation": [[float(x) for x in corners]]}]
    options = {"augmentations": [T.CropTransform(10, 0, 25, 30)], "mask_format": "bitmask"}
    assert make(**options)(record)["instances"].gt_boxes.tensor.tolist() == [[0, 4, 20, 8]]
    # without masks nothing else is known
    assert make(masks=False, **options)(record)["instances"].gt_boxes.tensor.tolist() == [[0, 4, 20, 24]]


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_annotations_that_are_of_no_use_are_left_out(record, mask_format):
    good = record["annotations"][1]
    record["annotations"] = [
        good,
        good | {"segmentation": []},
        good | {"segmentation": [[]]},
        good | {"segmentation": [[1.0, 2.0, 3.0, 4.0]]},
        {key: value for key, value in good.items() if key != "segmentation"},
        annotation(5.0, 5.0, 5.0, 9.0),  # no area
        annotation(6.0, 6.0, 6.0, 6.0),
    ]
    output = make(mask_format=mask_format)(record)
    assert output["instances"].gt_boxes.tensor.tolist() == [[2, 4, 30, 24]]
    assert output["component_classes"].tolist() == [0]
    # a detector of boxes uses those without a mask, too
    output = make(masks=False, mask_format=mask_format)(record)
    assert len(output["instances"]) == 5 and not output["instances"].has("gt_masks")
    assert output["component_classes"].tolist() == [0]


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
@pytest.mark.parametrize("annotations", [[], [annotation(1.0, 1.0, 5.0, 5.0, iscrowd=1)], None])
def test_images_without_annotations(record, annotations, mask_format):
    record["annotations"] = annotations
    if annotations is None:
        del record["annotations"]
    output = make(mask_format=mask_format)(record)
    assert len(output["instances"]) == len(output["instances"].gt_masks) == 0
    assert not output["components"].any() and output["component_classes"].tolist() == []


def test_small_and_too_many(record):
    output = make(limits=ComponentLimits(21))(record)
    assert (output["component_classes"].tolist(), output["components_small"]) == ([0], 1)
    assert (output["components"][10:15, 20:24] == 0).all()
    output = make(limits=ComponentLimits(1, 1))(record)
    assert (output["component_classes"].tolist(), output["components_cut"]) == ([0], 1)


def test_pixels_of_what_is_too_small_can_be_outside(record):
    output = make(limits=ComponentLimits(21, left_out="outside"))(record)
    assert (output["components"][10:15, 20:24] == 2).all() and output["component_classes"].tolist() == [0]


def test_from_config():
    register_all()
    cfg = get_sgr_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("tiny_coco_train",), ()
    cfg.MODEL.MASK_ON, cfg.INPUT.MASK_FORMAT, cfg.INPUT.FORMAT = False, "bitmask", "RGB"
    cfg.INPUT.COMPONENTS.MIN_AREA, cfg.INPUT.COMPONENTS.LEFT_OUT = 7, "outside"
    cfg.MODEL.SGR.ENABLED, cfg.MODEL.SGR.NUM_TOKENS = True, 9
    mapper = DetectionMapper(cfg, is_train=True)
    assert (mapper.masks, mapper.mask_format, mapper.image_format, len(mapper.classes)) == (False, "bitmask", "RGB", 80)
    assert mapper.components and mapper.limits == ComponentLimits(7, 9, "outside")
    assert not DetectionMapper(cfg, is_train=True, components=False).components
    cfg.INPUT.COMPONENTS.LEFT_OUT = "nowhere"
    with pytest.raises(ValueError, match=r"INPUT.COMPONENTS.LEFT_OUT.*nowhere"):
        DetectionMapper(cfg, is_train=True)


def test_run_length_masks(record):
    mask = np.zeros(SIZE, np.uint8)
    mask[4:24, 2:30] = 1
    code = coco_mask.encode(np.asfortranarray(mask))
    record["annotations"] = [record["annotations"][1] | {"segmentation": code}]
    output = make(mask_format="bitmask", augmentations=[T.HFlipTransform(SIZE[1])])(record)
    assert output["instances"].gt_masks.tensor[0].tolist() == (mask[:, ::-1] > 0).tolist()
    assert output["components"].tolist() == mask[:, ::-1].tolist()
    with pytest.raises(ValueError, match=r"image\.png.*INPUT.MASK_FORMAT must be bitmask"):
        make()(record)
    assert make(masks=False)(record)["component_classes"].tolist() == [0]
    record["annotations"][0]["segmentation"] = coco_mask.encode(np.ones((10, 12), np.uint8, order="F"))
    with pytest.raises(ValueError, match=r"image\.png: A mask has 12x10 pixels .* its image 41x30"):
        make(mask_format="bitmask")(record)


def test_categories_outside_the_metadata(record):
    record["annotations"][0]["category_id"] = 2
    with pytest.raises(ValueError, match=r"image\.png has an annotation of category 2.*2 classes"):
        make()(record)


def test_image_of_another_size_or_missing(record):
    with pytest.raises(SizeMismatchError, match=r"image\.png has 41x30 .*are for 42x30"):
        make()(record | {"width": 42})
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        make()(record | {"file_name": "nowhere.png"})
    with pytest.raises(ValueError, match=r"MASK_FORMAT must be polygon or bitmask; got 'rle'"):
        make(mask_format="rle")


def test_at_test_the_image_alone(record):
    output = make(is_train=False, augmentations=[T.ResizeShortestEdge(60, 999)])(record)
    assert output["image"].shape == (3, 60, 82)
    assert not {"instances", "components", "annotations"} & set(output)


def test_without_components(record):
    assert "components" not in make(components=False)(record)


def test_workers_can_be_spawned(record):
    mapper = pickle.loads(pickle.dumps(make()))
    assert mapper(record)["component_classes"].tolist() == [0, 1]
