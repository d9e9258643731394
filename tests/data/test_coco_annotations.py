"""Annotations that training takes and COCO's evaluation does not."""

import json

import pytest
from detectron2.data import MetadataCatalog

from sgr_d2.data.coco_annotations import check_coco_annotations

GOOD = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 4, 4], "area": 16.0, "iscrowd": 0}
SQUARE = [[2, 2, 6, 2, 6, 6, 2, 6]]


@pytest.fixture
def check(tmp_path):
    name = f"coco_annotations_{tmp_path.name}"

    def run(*annotations, masks=True):
        (tmp_path / "a.json").write_text(json.dumps({"images": [], "annotations": annotations}))
        check_coco_annotations(name, masks=masks)

    MetadataCatalog.get(name).set(json_file=str(tmp_path / "a.json"))
    yield run
    MetadataCatalog.remove(name)


def test_polygons_and_run_lengths_are_read(check):
    check()
    check(
        GOOD | {"segmentation": SQUARE},
        GOOD | {"segmentation": {"counts": [3, 2, 4], "size": [3, 3]}, "iscrowd": 1},
    )
    check(GOOD, masks=False)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"segmentation": []}, "no segmentation"),
        ({}, "no segmentation"),
        ({"segmentation": [[]]}, "fewer than three points"),
        ({"segmentation": [[1, 2, 3, 4]]}, "fewer than three points"),
        ({"segmentation": [*SQUARE, [1, 2, 3, 4, 5, 6, 7]]}, "odd number"),
    ],
)
def test_masks_that_cannot_be_read(check, change, fault):
    with pytest.raises(ValueError, match=rf"cannot read .*a\.json.*{fault}.*: annotation 7\. .*remove those without"):
        check(GOOD | {"segmentation": SQUARE}, GOOD | {"id": 7} | change)
    check(GOOD | {"id": 7} | change, masks=False)


@pytest.mark.parametrize("key", ["area", "iscrowd", "bbox", "category_id"])
def test_missing_keys(check, key):
    bad = [{k: v for k, v in GOOD.items() if k != key} | {"id": number} for number in range(7)]
    with pytest.raises(ValueError, match=rf"no {key}: annotation 0, 1, 2, 3, 4, \.\.\.\. Give every"):
        check(*bad, masks=False)


def test_without_a_file_there_is_nothing_to_check():
    check_coco_annotations("not_registered_as_coco", masks=True)
