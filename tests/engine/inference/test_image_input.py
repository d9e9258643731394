"""What is an image for the predictor, and what is said of all else."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from sgr_d2.data import reading
from sgr_d2.engine.inference.image_input import as_image

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
RGB = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


@pytest.mark.parametrize(
    ("image", "error", "text"),
    [
        (np.zeros((3, 4, 5), np.uint8), ValueError, r"got \(3, 4, 5\).*transpose"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"got \(0, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint16), ValueError, r"got \(0, 4, 3\)"),
        (np.zeros((4, 4, 2), np.uint8), ValueError, r"got \(4, 4, 2\)"),
        (None, TypeError, r"got builtins\.NoneType\.$"),
        ("missing.jpg", FileNotFoundError, r"missing\.jpg"),
    ],
)
def test_what_is_no_image_is_an_error_that_helps(image, error, text):
    with pytest.raises(error, match=text):
        as_image(image)


@pytest.mark.parametrize(
    ("array", "advice"),
    [
        (RGB / 255, lambda image: (image * 255).astype("uint8")),
        (RGB.astype(np.float32), lambda image: image.astype("uint8")),
        (RGB.astype(np.int64), lambda image: image.astype("uint8")),
        (RGB.astype(np.int32) * 256, lambda image: image.astype("uint16")),
        (RGB > 50, lambda image: image.astype("uint8") * 255),
    ],
)
def test_the_advice_for_other_dtypes_is_right_for_the_values(array, advice):
    with pytest.raises(ValueError, match=rf"must be uint8 or uint16; got {array.dtype}\.") as error:
        as_image(array)
    expression = str(error.value).split(": ")[-1].removesuffix(".")
    followed = eval(expression, {"image": array})
    assert np.array_equal(as_image(followed), as_image(advice(array)))
    assert as_image(followed).max() == (255 if array.dtype == bool else 104)


def test_what_no_conversion_helps_is_told_with_its_values():
    with pytest.raises(ValueError, match=r"Its values, -2 to 2, are not 0\.\.255: undo a normalisation"):
        as_image(np.linspace(-2, 2, 48).reshape(4, 4, 3))
    with pytest.raises(ValueError, match=r"got object\. Give values in 0\.\.255 as uint8\."):
        as_image(np.full((4, 4, 3), None))
    with pytest.raises(ValueError, match=r"got float64\. Give values"):
        as_image(np.zeros((0, 4, 3)))


PIXELS = torch.from_numpy(RGB)


@pytest.mark.parametrize(
    "tensor",
    [
        PIXELS,
        PIXELS.permute(2, 0, 1),
        PIXELS / 255,
        (PIXELS / 255).permute(2, 0, 1),
        PIXELS.float().requires_grad_(),
        PIXELS.bfloat16(),
        PIXELS[..., :1],
    ],
)
def test_the_advice_for_a_tensor_is_right_for_its_shape_and_values(tensor):
    with pytest.raises(TypeError, match=r"got torch\.Tensor \(\d, \d, \d\)\.") as error:
        as_image(tensor)
    first, _, rest = str(error.value).partition(" makes an array of it.")
    array = eval(first.split("image = ")[1], {"image": tensor})
    if rest:
        array = eval(rest.split(": ")[-1].removesuffix("."), {"image": array})
    expected = RGB[..., :1] if tensor.shape[-1] == 1 else RGB
    assert np.array_equal(as_image(array), np.broadcast_to(expected, RGB.shape))


def test_a_batch_in_a_tensor():
    with pytest.raises(TypeError, match=r"image = image\.permute\(0, 2, 3, 1\)\.numpy\(\) makes an array of it\.$"):
        as_image(torch.zeros(2, 3, 8, 9, dtype=torch.uint8))


def test_a_folder_a_pattern_and_a_video_are_told_how_to_be_predicted(tmp_path):
    stream = r"predictor\.stream\(sorted\(glob\.glob\('.*/\*\.jpg'\)\)\).*tools/predict\.py"
    with pytest.raises(ValueError, match=rf"^{tmp_path} is a folder, not an image\. .*{stream}"):
        as_image(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"^No image file .*/\*\.jpg; it looks like a pattern\. .*{stream}"):
        as_image(f"{tmp_path}/*.jpg")
    (tmp_path / "clip.MP4").write_bytes(b"frames")
    with pytest.raises(
        ValueError, match=r"clip\.MP4 is a video, not an image\. tools/predict\.py .*channels=\"BGR\"\)"
    ):
        as_image(tmp_path / "clip.MP4")
    with pytest.raises(FileNotFoundError, match=r"No image file .*clip\.mov\. Check the path\.$"):
        as_image(tmp_path / "clip.mov")


def test_a_file_may_be_named_like_a_pattern(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a[1].png")
    assert as_image(tmp_path / "a[1].png").shape == (3, 4, 3)


def test_a_broken_file_is_not_said_to_be_in_a_data_set(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.jpg: .*replace it, or leave it out\.$"):
        as_image(tmp_path / "broken.jpg")


def test_grey_images():
    assert np.array_equal(as_image(GREY), np.dstack([GREY] * 3))
    assert np.array_equal(as_image(GREY[..., None]), np.dstack([GREY] * 3))
    assert np.array_equal(as_image(Image.fromarray(GREY)), np.dstack([GREY] * 3))
    with pytest.raises(ValueError, match=r"channels must be one of RGB, BGR; got 'rgb'"):
        as_image(np.zeros((2, 2, 3), np.uint8), "rgb")


def test_sixteen_bits_are_divided_by_256_in_arrays_as_in_files(tmp_path):
    sixteen = GREY.astype(np.uint16) * 5000 + 255
    Image.fromarray(sixteen).save(tmp_path / "a.png")
    expected = np.dstack([sixteen >> 8] * 3)
    assert expected.max() > 200
    for image in (tmp_path / "a.png", Image.fromarray(sixteen), sixteen, sixteen[..., None], np.dstack([sixteen] * 3)):
        found = as_image(image)
        assert found.dtype == np.uint8 and np.array_equal(found, expected)
    colours = RGB.astype(np.uint16) * 600
    assert np.array_equal(as_image(colours, "BGR"), (colours >> 8)[..., ::-1])


def test_arrays_and_files_of_twelve_bits_are_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(reading, "_told_to_be_dark", set())
    dark = GREY.astype(np.uint16) * 300
    Image.fromarray(dark).save(tmp_path / "dark.png")
    as_image(tmp_path / "dark.png")
    with Image.open(tmp_path / "dark.png") as opened:
        as_image(opened)
    as_image(np.dstack([dark, dark, dark, np.full_like(dark, 65535)]))  # opaque
    as_image(dark)
    file, array = caplog.messages
    assert re.search(r"dark\.png is almost black: its largest value is at most 3300 of 65535\. .*image << 4", file)
    assert "Image (array) is almost black" in array
    assert np.array_equal(as_image(dark << 4)[..., 0], dark >> 4) and len(caplog.messages) == 2
