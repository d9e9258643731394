"""What a prediction makes of its arrays."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from sgr_d2.data.datasets import SemanticMetadata
from sgr_d2.engine.inference.prediction import Prediction

CLASSES = ["road", "sky", "tree"]
METADATA = SemanticMetadata(CLASSES, [(255, 0, 0), (0, 255, 0), (0, 0, 255)], 255)
IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def prediction(labels, regions=None, extent=None):
    labels = np.asarray(labels, np.uint8)
    regions = None if regions is None else np.asarray(regions, np.float32)
    tokens = None if regions is None else np.zeros((len(regions), 2), np.float32)
    extent = regions.shape[1:] if regions is not None and extent is None else extent
    return Prediction(labels, None, regions, tokens, extent, METADATA)


@pytest.fixture
def out():
    return prediction(np.arange(24).reshape(4, 6) % 3)


def test_an_overlay_takes_what_the_predictor_takes(out, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(IMAGE).save(path)
    expected = np.rint(0.7 * IMAGE.astype(np.float32) + 0.3 * out.color_map()).astype(np.uint8)
    for image in (IMAGE, path, str(path), Image.open(path), np.dstack([IMAGE, IMAGE[..., 0]])):
        assert np.array_equal(out.overlay(image, 0.3), expected)
    assert np.array_equal(out.overlay(IMAGE[..., ::-1], 0.3, channels="BGR"), expected)
    grey = IMAGE[..., 0]
    assert np.array_equal(out.overlay(grey, 0), np.dstack([grey] * 3))
    with pytest.raises(FileNotFoundError, match=r"No image file none\.png"):
        out.overlay("none.png")


def test_an_array_that_exif_did_not_turn(out, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(np.rot90(IMAGE)).save(path, exif=exif)
    assert np.array_equal(out.overlay(path, 0), IMAGE)
    array = np.asarray(Image.open(path))
    with pytest.raises(
        ValueError, match=r"image is \(6, 4, 3\), .* image \(4, 6, 3\)\. .*swapped.*EXIF.*exif_transpose"
    ):
        out.overlay(array)
    assert np.array_equal(out.overlay(np.asarray(ImageOps.exif_transpose(Image.open(path))), 0), IMAGE)
    with pytest.raises(ValueError, match=r"image is \(3, 6, 3\), the prediction is of an image \(4, 6, 3\)\.$"):
        out.overlay(IMAGE[:3])
