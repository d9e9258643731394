import struct
import zlib

import cv2
import numpy as np
import pytest
from detectron2.data.detection_utils import read_image as detectron2_read_image
from PIL import Image

from sgr_d2.data.label_values import map_values, pack_colors
from sgr_d2.data.reading import is_turned, label_dtype, pil_to_array, read_image, read_label

GRAY = np.array([[0, 10, 200], [255, 7, 3]], np.uint8)
RGB = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
LABELS = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)


def save(path, image, **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)
    return path


def test_rgb_and_bgr(tmp_path):
    path = save(tmp_path / "a.png", RGB)
    assert read_image(path).tolist() == RGB.tolist()
    assert read_image(path, "BGR").tolist() == RGB[..., ::-1].tolist()
    assert read_image(path, "BGR").flags.c_contiguous


def test_other_modes_become_three_channels(tmp_path):
    as_rgb = np.repeat(GRAY[..., None], 3, axis=2)
    assert read_image(save(tmp_path / "gray.png", GRAY)).tolist() == as_rgb.tolist()
    palette = Image.fromarray(RGB).quantize(64)
    assert read_image(save(tmp_path / "palette.png", palette)).tolist() == np.asarray(palette.convert("RGB")).tolist()
    transparent = np.dstack([RGB, np.full(RGB.shape[:2], 3, np.uint8)])
    assert read_image(save(tmp_path / "rgba.png", transparent)).tolist() == RGB.tolist()
    binary = save(tmp_path / "binary.png", Image.fromarray(GRAY > 100))
    assert read_image(binary)[..., 0].tolist() == [[0, 0, 255], [255, 0, 0]]


def test_sixteen_bit_gray_keeps_its_range(tmp_path):
    values = np.array([[0, 255, 256], [32768, 65280, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        assert read_image(save(tmp_path / name, values))[..., 1].tolist() == [[0, 0, 1], [128, 255, 255]]
    too_wide = save(tmp_path / "wide.tif", Image.fromarray(np.array([[1 << 20]], np.int32)))
    with pytest.raises(ValueError, match=r"wide\.tif holds values of more than 16 bits"):
        read_image(too_wide)


def write_sixteen_bits(path, values):
    """Colours, which Pillow can read but not write."""
    cv2.imwrite(str(path), values)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4)])
def test_images_of_twelve_bits_in_sixteen_are_told(tmp_path, caplog, shape, suffix):
    values = np.linspace(256, 4095, np.prod(shape)).astype(np.uint16).reshape(shape)
    if shape[2:] == (4,):
        values[..., 3] = 65535  # opaque
    path = write_sixteen_bits(tmp_path / f"twelve{suffix}", values)
    assert 10 < read_image(path).max() < 16
    (text,) = caplog.messages
    assert f"Image {path} is almost black" in text and "image << 4" in text
    read_image(write_sixteen_bits(tmp_path / f"another{suffix}", values))
    assert len(caplog.messages) == 1  # once per folder
    folder = tmp_path / "b"
    folder.mkdir()
    with Image.open(write_sixteen_bits(folder / f"c{suffix}", values)) as opened:
        pil_to_array(opened, name=opened.filename)
    assert f"c{suffix} is almost black" in caplog.messages[1]


def test_sixteen_bit_images_of_the_full_range_and_dark_ones_of_eight_bits_are_not_told(tmp_path, caplog):
    values = np.linspace(0, 32 * 256, 35).astype(np.uint16).reshape(5, 7)
    read_image(write_sixteen_bits(tmp_path / "a.png", values))
    read_image(write_sixteen_bits(tmp_path / "b.png", np.dstack([values] * 3)))
    read_image(write_sixteen_bits(tmp_path / "c.png", np.zeros((5, 7), np.uint16)))
    read_image(save(tmp_path / "d.png", np.full((5, 7, 3), 10, np.uint8)))
    assert read_label(save(tmp_path / "e.png", values // 8192), num_classes=2, ignore_label=255).max() == 1
    assert not caplog.messages


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_as_in_detectron2(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    path = save(tmp_path / "a.png", RGB, exif=exif)
    assert read_image(path).tolist() == detectron2_read_image(str(path), "RGB").tolist()
    assert read_image(path).shape == ((5, 7, 3) if orientation < 5 else (7, 5, 3))
    with Image.open(path) as opened:  # a picture that the user has opened
        assert np.array_equal(pil_to_array(opened), read_image(path))


@pytest.mark.parametrize("orientation", range(11))
def test_only_valid_orientations_turn(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    path = save(tmp_path / "a.png", RGB, exif=exif)
    assert is_turned(path) == (not np.array_equal(read_image(path), RGB)) == (2 <= orientation <= 8)


@pytest.mark.parametrize("read", [read_image, lambda path: read_label(path, num_classes=3, ignore_label=255)])
def test_missing_and_damaged_files(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=r"No \w+ file .*absent\.png"):
        read(tmp_path / "absent.png")
    text = tmp_path / "text.png"
    text.write_text("no image")
    with pytest.raises(ValueError, match=r"Cannot read \w+ file .*text\.png.* replace it"):
        read(text)
    random = np.random.default_rng(0).integers(0, 3, (64, 64)).astype(np.uint8)
    whole = save(tmp_path / "whole.png", random).read_bytes()
    short = tmp_path / "short.png"
    short.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"Cannot read \w+ file .*short\.png.*damaged, truncated"):
        read(short)


def test_bad_formats(tmp_path):
    path = save(tmp_path / "a.png", GRAY)
    with pytest.raises(ValueError, match=r"INPUT\.FORMAT = 'YUV': choose from \['RGB', 'BGR'\]"):
        read_image(path, "YUV")
    with pytest.raises(ValueError, match=r"b\.tif holds floating-point values"):
        read_image(save(tmp_path / "b.tif", GRAY.astype(np.float32)))


def test_label_modes(tmp_path):
    palette = Image.fromarray(LABELS).convert("P")
    palette.putdata(LABELS.ravel().tolist())
    palette.putpalette([9, 9, 9] * 256)
    files = [
        save(tmp_path / "8.png", LABELS),
        save(tmp_path / "16.png", LABELS.astype(np.uint16)),
        save(tmp_path / "32.tif", LABELS.astype(np.int32)),
        save(tmp_path / "palette.png", palette),
    ]
    for path in files:
        labels = read_label(path, num_classes=3, ignore_label=255)
        assert labels.dtype == np.uint8
        assert labels.tolist() == LABELS.tolist()
    binary = save(tmp_path / "1.png", Image.fromarray(GRAY > 100))
    assert read_label(binary, num_classes=2, ignore_label=255).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert read_label(files[0], num_classes=3, ignore_label=255, dtype=np.int64).dtype == np.int64


def write_few_bits(path, values, bits):
    """A row of grey; Pillow cannot write 2 and 4 bits, so the file is written by hand."""
    packed = np.packbits(np.unpackbits(values[..., None], axis=-1)[..., 8 - bits :].reshape(1, -1), axis=-1)
    header = struct.pack(">IIBBBBB", values.size, 1, bits, 0, 0, 0, 0)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + packed.tobytes())), (b"IEND", b"")):
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return path


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_keeps_its_values(tmp_path, bits):
    """Pillow stretches 2 and 4 bits to 0..255."""
    values = np.arange(8, dtype=np.uint8)[None] % 2**bits
    path = write_few_bits(tmp_path / "few.png", values, bits)
    assert read_label(path, num_classes=16, ignore_label=255).tolist() == values.tolist()
    assert read_image(path)[..., 0].tolist() == (values * (255 // (2**bits - 1))).tolist()  # a photograph is stretched


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_colours_of_few_bits_of_grey(tmp_path, bits):
    """White is (255, 255, 255) in a file of any number of bits."""
    white = np.array([[0, 1, 0, 1]], np.uint8)
    path = write_few_bits(tmp_path / "few.png", white * (2**bits - 1), bits)
    label_map = {(0, 0, 0): 0, (255, 255, 255): 1}
    assert read_label(path, num_classes=2, ignore_label=255, label_map=label_map).tolist() == white.tolist()


def test_many_classes_need_sixteen_bits(tmp_path):
    labels = np.array([[0, 299, 65535]], np.uint16)
    read = read_label(save(tmp_path / "a.png", labels), num_classes=300, ignore_label=65535)
    assert read.dtype == np.uint16
    assert read.tolist() == labels.tolist()


def test_negative_ignore_label(tmp_path):
    labels = np.array([[0, -1, 1]], np.int32)
    path = save(tmp_path / "a.tif", labels)
    assert read_label(path, num_classes=2, ignore_label=-1).tolist() == labels.tolist()
    with pytest.raises(ValueError, match=r"holds -1, neither"):
        read_label(path, num_classes=2, ignore_label=255)


def test_label_dtype():
    assert label_dtype(256, 255) == np.uint8
    assert label_dtype(257, 255) == np.uint16
    assert label_dtype(2, 65535) == np.uint16
    assert label_dtype(2, -1) == np.int32


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[1, 2], [3, 3]], r"a\.png holds 3, neither a class \(0\.\.2\) nor the ignore label \(255\).*counted from 1"),
        (
            [[1, 2], [3, 255]],
            r"is 0 no class .*\? Then set LABEL_MAP: \[255, 0, 1, \.\.\.\] .*Does 3 mean 'not labelled'",
        ),
        ([[0, 1], [3, 3]], r"\(255\)\. Does 3 mean .*\? Then write 255 .* set IGNORE_LABEL: 3 .*add its name"),
        ([[0, 255], [255, 0]], None),
        ([[0, 1], [2, 200]], r"holds 200, .*'not labelled'"),
        ([[7, 26], [33, 24]], r"holds 7, 24, 26, 33, .*raw ids"),
    ],
)
def test_values_outside_the_classes(tmp_path, labels, message):
    path = save(tmp_path / "a.png", np.array(labels, np.uint8))
    if message is None:
        assert read_label(path, num_classes=3, ignore_label=255).tolist() == labels
        return
    with pytest.raises(ValueError, match=message):
        read_label(path, num_classes=3, ignore_label=255)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_a_label_map_says_what_the_values_mean(tmp_path, dtype):
    values = np.array([[0, 1, 2], [3, 4, 255]], dtype)
    options = {"label_map": [255, 0, 1, 1, 2], "ignore_label": 255}
    assert map_values(values, "a.png", **options).tolist() == [[255, 0, 1], [1, 2, 255]]
    path = save(tmp_path / "a.png", values.astype(np.uint8))
    labels = read_label(path, num_classes=3, **options)
    assert labels.dtype == np.uint8 and labels.tolist() == [[255, 0, 1], [1, 2, 255]]
    options["label_map"] = options["label_map"][:3]
    with pytest.raises(ValueError, match=r"a\.png holds 3, 4, for which LABEL_MAP has no label\."):
        read_label(path, num_classes=3, **options)
    assert map_values(values[:0], "a.png", **options).shape == (0, 3)


def test_ids_far_apart(tmp_path):
    values = np.array([[7, 11, 40000], [255, 7, 7]], np.uint16)
    options = {"label_map": {7: 1, 40000: 255, 11: 0}, "ignore_label": 255}
    path = save(tmp_path / "a.png", values)
    assert read_label(path, num_classes=2, **options).tolist() == [[1, 0, 255], [255, 1, 1]]
    del options["label_map"][11], options["label_map"][40000]
    with pytest.raises(ValueError, match=r"a\.png holds 11, 40000, for which LABEL_MAP has no label\."):
        read_label(path, num_classes=2, **options)


def test_negative_values_are_in_no_label_map():
    options = {"label_map": [0, 1], "ignore_label": -1}
    assert map_values(np.array([[-1, 1]], np.int32), "a.tif", **options).tolist() == [[-1, 1]]
    with pytest.raises(ValueError, match=r"a\.tif holds -2, for which"):
        map_values(np.array([[-2, 1]], np.int32), "a.tif", **options)


def test_camvid_as_published_is_not_to_be_shifted(tmp_path):
    """11 classes from 0 on, and 11 for "not labelled"."""
    path = save(tmp_path / "a.png", np.arange(12, dtype=np.uint8).reshape(3, 4))
    with pytest.raises(ValueError, match=r"holds 11, .*Does 11 mean 'not labelled'\? Then write 255 instead") as error:
        read_label(path, num_classes=11, ignore_label=255)
    assert "counted from 1" not in str(error.value)
    assert read_label(path, num_classes=11, ignore_label=11).max() == 11  # IGNORE_LABEL: 11


def test_a_mask_of_0_and_255_and_many_values(tmp_path):
    mask = save(tmp_path / "mask.png", np.array([[0, 255]], np.uint8))
    with pytest.raises(ValueError, match=r"holds 255, .* 0 and 255 only, like a mask"):
        read_label(mask, num_classes=2, ignore_label=254)
    photo = save(tmp_path / "photo.png", np.arange(100, dtype=np.uint8).reshape(10, 10))
    with pytest.raises(ValueError, match=r"holds 2, 3, 4, 5, 6, 7, 8, 9, \.\.\., neither"):
        read_label(photo, num_classes=2, ignore_label=254)


SKY, ROAD, VOID = (0, 0, 255), (128, 64, 128), (0, 0, 0)
COLORS = np.array([[SKY, ROAD, VOID], [ROAD, ROAD, SKY]], np.uint8)


def test_colours_are_labels_by_their_map(tmp_path):
    options = {"num_classes": 2, "ignore_label": 255, "label_map": {ROAD: 1, SKY: 0, VOID: 255}}
    opaque = np.dstack([COLORS, np.full((2, 3), 7, np.uint8)])  # what is see-through has its colour, too
    palette = Image.fromarray(COLORS).convert("P", palette=Image.Palette.ADAPTIVE, colors=3)
    for name, image in {"rgb.png": COLORS, "rgba.png": opaque, "palette.png": palette, "rgb.tif": COLORS}.items():
        labels = read_label(save(tmp_path / name, image), **options)
        assert labels.dtype == np.uint8 and labels.tolist() == [[0, 1, 255], [1, 1, 0]], name
    empty = np.zeros((0, 3), np.int32)
    assert map_values(empty, "a.png", label_map=options["label_map"], ignore_label=255).shape == (0, 3)


def test_colours_without_a_label_are_named(tmp_path):
    """Blue is 255 as a number, and yet not the ignore label."""
    options = {"num_classes": 2, "ignore_label": 255, "label_map": {ROAD: 1}}
    path = save(tmp_path / "a.png", COLORS)
    with pytest.raises(ValueError, match=r"a\.png holds \[0, 0, 0\], \[0, 0, 255\] in 3 pixels, for which LABEL_MAP"):
        read_label(path, **options)


def test_every_colour_against_a_dictionary():
    image = np.random.default_rng(0).choice(np.array([0, 1, 128, 255], np.uint8), (37, 23, 3))
    label_map = {(red, 0, blue): (red + blue) % 7 for red in range(0, 256, 5) for blue in range(0, 256, 5)}
    label_map |= {tuple(color): index % 7 for index, color in enumerate(image.reshape(-1, 3).tolist())}
    labels = map_values(pack_colors(image), "a.png", label_map=label_map, ignore_label=255)
    assert labels.tolist() == [[label_map[tuple(color)] for color in row] for row in image.tolist()]


def test_colour_labels_are_refused(tmp_path):
    def read(image):
        return read_label(save(tmp_path / "a.png", image), num_classes=256, ignore_label=255)

    with pytest.raises(
        ValueError,
        match=r"a\.png is of mode RGB; .*single-channel.*colour picture of the classes, of 3 colours\. .*"
        r"LABEL_MAP: \[\[\[0, 0, 0\], \?\], \[\[0, 0, 255\], \?\], \[\[128, 64, 128\], \?\]\], with the index",
    ):
        read(COLORS)
    with pytest.raises(ValueError, match=r"mode RGB; .*holds \d+ colours, like photographs"):
        read(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8))
    equal = np.repeat(GRAY[..., None], 3, axis=2)
    with pytest.raises(ValueError, match=r"mode RGB; .*three channels are equal"):
        read(equal)
    with pytest.raises(ValueError, match=r"mode RGBA; .*three channels are equal"):
        read(np.dstack([equal, GRAY]))
    with pytest.raises(ValueError, match=r"mode LA; .*single-channel"):
        read(np.dstack([GRAY, GRAY]))
