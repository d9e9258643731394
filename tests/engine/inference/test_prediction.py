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
    for opacity in (2, -0.1, float("nan")):
        with pytest.raises(ValueError, match=rf"opacity = {opacity}: give a number from 0 .* to 1"):
            out.overlay(IMAGE, opacity)


@pytest.mark.parametrize("opacity", [0, 0.3, 0.5, 0.75, 1])
def test_an_overlay_is_the_rounded_mean_to_one_level(opacity):
    rng = np.random.default_rng(0)
    out, image = prediction(rng.integers(0, 3, (50, 70))), rng.integers(0, 256, (50, 70, 3), np.uint8)
    expected = (1 - opacity) * image + opacity * out.color_map()
    found = out.overlay(image, opacity)
    assert found.dtype == np.uint8 and np.abs(found - expected).max() <= (1 if opacity % 0.25 else 0.5)


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


def test_the_classes_of_a_token_by_hand():
    """Cells of 2x2 pixels: the first region has 1.0 on sky and 0.5 half on road, half on tree."""
    labels = [[1, 1, 0, 2], [1, 1, 0, 2]]
    out = prediction(labels, [[[1, 0.5]], [[0, 1]], [[0, 0]]])
    assert out.token_classes(0) == {
        "sky": pytest.approx(4 / 6),
        "road": pytest.approx(1 / 6),
        "tree": pytest.approx(1 / 6),
    }
    assert list(out.token_classes(0)) == ["sky", "road", "tree"]
    assert out.token_classes(1) == {"road": 0.5, "tree": 0.5}
    assert out.token_classes(2) == {}
    for token in (3, -1):
        with pytest.raises(IndexError, match=r"tokens 0\.\.2"):
            out.token_classes(token)


def test_cells_beyond_the_image_do_not_count():
    out = prediction([[1, 0]], [[[1, 1, 9]]], extent=(1, 2))
    assert out.token_classes(0) == {"road": 0.5, "sky": 0.5}


def test_the_classes_of_a_token_against_a_slow_reference():
    rng = np.random.default_rng(0)
    out = prediction(rng.integers(0, 3, (13, 11)), rng.random((4, 5, 4)), extent=(4.3, 3.7))
    for token, region in enumerate(out.regions):
        masses = dict.fromkeys(CLASSES, 0.0)
        for y, x in np.ndindex(13, 11):
            row, column = int((y + 0.5) / 13 * 4.3), int((x + 0.5) / 11 * 3.7)
            masses[CLASSES[out.labels[y, x]]] += region[row, column]
        expected = {name: mass / sum(masses.values()) for name, mass in masses.items()}
        assert out.token_classes(token) == pytest.approx(expected)
        assert list(out.token_classes(token)) == sorted(expected, key=expected.get, reverse=True)


def test_without_sgr_there_are_no_tokens(out):
    with pytest.raises(ValueError, match="no SGR"):
        out.token_classes(0)
