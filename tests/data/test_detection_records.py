"""Which records a detector is trained on, and what is said of the others."""

import pycocotools.mask as rle
import pytest
from toy_detectors import make_records

from sgr_d2.data.detection_records import any_mask, trainable_records


@pytest.fixture
def records(tmp_path):
    """Six images of 72x96 pixels with two objects each; the third has none."""
    return make_records(tmp_path, 6)


def trainable(records, *, masks=True, mask_format="polygon", keep_empty=False):
    return trainable_records(records, "toys", masks=masks, mask_format=mask_format, keep_empty=keep_empty)


def test_objects_without_a_mask_are_told(records, caplog):
    for record in records[:2]:
        del record["annotations"][0]["segmentation"]
    records[1]["annotations"][1]["segmentation"] = []
    del records[2]["annotations"]  # an image without objects may lack the key
    with caplog.at_level("INFO", logger="sgr_d2"):
        assert trainable(records) == [records[0], *records[3:]]
    assert f"toys: 3 objects have no mask (first in {records[0]['file_name']})" in caplog.text
    assert "learns to take 1 of them" in caplog.text  # the other two are in an image that is left out
    assert "2 of 6 images, without an object to learn, are left out" in caplog.text
    caplog.clear()
    assert trainable(records, keep_empty=True) == records and "learns to take 3 of them" in caplog.text
    caplog.clear()
    assert trainable(records, masks=False) == [*records[:2], *records[3:]]
    assert "have no mask" not in caplog.text


def test_a_run_length_mask_is_found_before_the_training(records):
    annotation = records[5]["annotations"][1]
    annotation["segmentation"] = rle.merge(rle.frPyObjects(annotation["segmentation"], 72, 96))
    with pytest.raises(ValueError, match=r"005\.png has a run-length encoded mask; INPUT.MASK_FORMAT must be bitmask"):
        trainable(records)
    assert len(trainable(records, mask_format="bitmask")) == len(trainable(records, masks=False)) == 5


def test_nothing_to_learn_is_an_error(records):
    for record in records:
        for annotation in record.get("annotations", ()):
            annotation["segmentation"] = None
    assert not any_mask(records)
    with pytest.raises(ValueError, match=r"MODEL.MASK_ON is True, but no annotation of toys has a mask"):
        trainable(records)
    for record in records:
        record["annotations"] = [a | {"iscrowd": 1} for a in record["annotations"]]
    with pytest.raises(ValueError, match=r"toys: no image has an annotation"):
        trainable(records)
