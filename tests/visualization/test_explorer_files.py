"""What the explorer writes, read back as a page would."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from explorer_scenes import CLASSES, GRID, SIZE, scene_labels, scene_regions, write_explorer
from PIL import Image

from sgr_d2.structures import ImageTokens
from sgr_d2.visualization.explorer import ExploredImage, ExploredRun, ExplorerWriter, Photograph
from sgr_d2.visualization.explorer.encode import coarsen, label_url, matrix, quantize, sprite, write_script
from sgr_d2.visualization.explorer.token_sums import TokenSums, nearest


def picture(url: str) -> np.ndarray:
    head, data = url.split(",", 1)
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def content(path):
    text = path.read_text(encoding="utf-8")
    key, body = re.fullmatch(r'explorer\.receive\("([^"]+)",(.*)\);\n', text, re.S).groups()
    assert key in path.with_suffix("").as_posix()
    return json.loads(body)


def tile(sheet, columns, height, width, index):
    top, left = index // columns * height, index % columns * width
    return sheet[top : top + height, left : left + width, 0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_explorer(tmp_path_factory.mktemp("explorer"))


@pytest.mark.parametrize("shape", [(1, 3, 5), (7, 4, 9), (0, 2, 2)])
def test_a_sprite_holds_every_map(shape):
    maps = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    sheet = sprite(maps)
    pixels = picture(sheet.url)
    for index, expected in enumerate(maps):
        assert np.array_equal(tile(pixels, sheet.columns, *shape[1:], index), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_labels_survive_and_what_is_no_class_is_marked(dtype):
    labels = np.array([[0, 1, 2], [3, 255, 4]], dtype)
    values = picture(label_url(labels, num_classes=4, ignore_label=255)).astype(int)
    assert (values[..., 0] + 256 * values[..., 1]).tolist() == [[0, 1, 2], [3, 0xFFFF, 0xFFFF]]
    many = picture(label_url(np.array([[700, 300]], np.int32), num_classes=800, ignore_label=-1)).astype(int)
    assert (many[..., 0] + 256 * many[..., 1]).tolist() == [[700, 300]]


def test_coarser_cells_are_means_and_the_extent_shrinks_with_them():
    maps = np.arange(30, dtype=np.float32).reshape(1, 5, 6)
    small, extent = coarsen(maps, (4.5, 6.0), max_cells=3)
    assert small.shape == (1, 3, 3) and extent == (2.25, 3.0)
    assert small[0, 0, 0] == maps[0, :2, :2].mean()
    assert small[0, 2, 1] == maps[0, 4, 2:4].mean()  # the last row repeats itself outwards
    same, extent = coarsen(maps, (4.5, 6.0), max_cells=6)
    assert np.array_equal(same, maps) and extent == (4.5, 6.0)


def test_numbers_as_bytes():
    values = np.array([[0.0, 0.001], [0.5, 1.0]])
    coded = matrix(values)
    codes = np.frombuffer(base64.b64decode(coded["bytes"]), np.uint8).reshape(2, 2)
    np.testing.assert_allclose((codes / 255) ** 2 * coded["max"], values, atol=0.004)
    assert matrix(np.zeros((2, 2)))["max"] == 0
    assert quantize(np.array([-0.1, 0.5, 1.2]), levels=256).tolist() == [0, 128, 255]
    assert quantize(np.array([0.0, 0.3, 0.6, 1.0]), levels=4).tolist() == [0, 85, 170, 255]


def test_a_script_can_hold_any_text_and_no_nan(tmp_path):
    write_script(tmp_path / "a.js", "a", {"name": "</script>\u2028é", "x": float("nan"), "y": np.float32(0.1)})
    text = (tmp_path / "a.js").read_text(encoding="utf-8")
    assert "</script>" not in text and "\u2028" not in text
    assert content(tmp_path / "a.js") == {"name": "</script>\u2028é", "x": None, "y": 0.1}


def test_an_image_reads_back(folder):
    image = content(folder / "data/run0/0002.js")
    labels = scene_labels(2).astype(int)
    truth = picture(content(folder / "data/truth/0002.js")).astype(int)
    assert np.array_equal(np.where(labels == 255, 0xFFFF, labels), truth[..., 0] + 256 * truth[..., 1])
    assert image["grid"] == list(GRID) and image["extent"] == list(GRID)
    assert [entry[0] for entry in image["tokens"]] == [0, 1, 2]  # by cover; token 3 can be seen nowhere
    sheet = picture(image["regions"])
    for place, token in enumerate([0, 1, 2]):
        expected = quantize(scene_regions(2)[token])
        assert np.array_equal(tile(sheet, image["columns"], *GRID, place), expected)
    # left half: 4 x 6 cells of 8 x 8 pixels, less a row; the square takes 4 of its cells in image 2
    token, cover, label, share, active = image["tokens"][0]
    assert (token, label, active) == (0, 0, 1)
    assert cover == pytest.approx(0.45, abs=0.01)
    assert share == pytest.approx(1 - 2 * 2 * 64 / (32 * 47), rel=1e-4)
    assert content(folder / "data/run1/0002.js").keys() == {"prediction"}


def test_a_token_reads_back_over_all_images(folder):
    token = content(folder / "data/run0/token2.js")
    assert sorted(entry[0] for entry in token["images"]) == [0, 1, 2, 3]
    sheet = picture(token["regions"])
    for place, (image, _, label, share, rows, columns, *extent) in enumerate(token["images"]):
        assert (rows, columns) == GRID and extent == list(GRID)
        assert np.array_equal(
            tile(sheet, token["columns"], *token["tile"], place), quantize(scene_regions(image)[2], 32)
        )
        assert label == 2 and share == 1
    assert content(folder / "data/run0/token3.js")["images"] == []
    assert not (folder / "data/run1/token0.js").exists()


def test_a_thin_region_of_a_fine_grid_covers_what_it_covers(tmp_path):
    """One column of 300: sampled at fewer places it would be missed, or count several times."""
    regions = torch.zeros(1, 10, 300)
    regions[0, :, 151] = 1
    tokens = ImageTokens(regions, torch.zeros(1, 2), (10.0, 300.0))
    labels = np.zeros((20, 600), np.uint8)
    writer = ExplorerWriter(
        tmp_path, title="t", class_names=["a"], class_colors=[(1, 2, 3)], ignore_label=255, has_truth=True
    )
    writer.add_photo(Photograph("a.png", np.zeros((20, 600, 3), np.uint8), labels))
    run = writer.start_run()
    run.add(ExploredImage(labels, {}, tokens, np.ones((1, 1)), np.array([True])))
    run.finish(ExploredRun("r", {}, {}, ""))
    (entry,) = content(tmp_path / "data/run0/0000.js")["tokens"]
    assert entry[1] == pytest.approx(1 / 300, rel=0.05)


def test_the_index_holds_means_figures_and_names(folder):
    index = content(folder / "data/index.js")
    assert index["classes"] == CLASSES and index["classColors"][0] == [200, 0, 0] and index["hasTruth"]
    assert index["images"][1] == {"name": "scene_1.png", "size": [SIZE[1], SIZE[0]], "file": "0001", "truth": True}
    first, second = index["runs"]
    assert first["name"] == "first" and first["tokens"] == 4 and second["tokens"] == 0
    assert first["active"] == [1, 1, 1, 0] and first["means"] == [0, 1, 2, -1]
    assert np.sum(first["histogram"], axis=1) == pytest.approx([1, 1, 1, 0], abs=1e-4)
    assert first["purity"][2] == 1 and first["histogram"][2] == [0, 0, 1]
    assert first["images"][3]["mIoU"] == 60 and second["classIou"] == [80, 80, 75]
    codes = np.frombuffer(base64.b64decode(first["attention"]["bytes"]), np.uint8).reshape(2, 4, 4)
    np.testing.assert_allclose((codes[1, 0] / 255) ** 2 * first["attention"]["max"], [0.1, 0.6, 0.2, 0.1], atol=0.005)


def test_every_file_that_the_page_names_is_there_and_none_is_fetched(folder):
    page = (folder / "index.html").read_text(encoding="utf-8")
    for name in re.findall(r'(?:src|href)="([\w.]+)"', page):
        assert (folder / name).is_file(), name
    for path in [folder / "index.html", *folder.glob("*.js"), *folder.glob("*.css")]:
        found = set(re.findall(r"https?://[^\"'` )]+", path.read_text(encoding="utf-8")))
        assert found <= {"http://www.w3.org/2000/svg"}, path  # a name of SVG, never fetched


def test_nearest_tokens_are_those_of_like_direction():
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [5.0, 5.0]])
    found = nearest(vectors, np.array([True, True, True, False]))
    assert [k for k, _ in found[0]] == [1, 2] and found[3] == []
    assert found[0][0][1] > 0.9 > found[0][1][1]
    assert nearest(vectors, np.zeros(4, bool)) == [[], [], [], []]


def test_a_mean_counts_the_images_in_which_a_token_is_active():
    sums = TokenSums()
    for active, mass in (([True, True], [[3, 1], [0, 2]]), ([True, False], [[0, 4], [9, 0]])):
        tokens = ImageTokens(torch.zeros(2, 1, 1), torch.ones(2, 3), (1.0, 1.0))
        image = ExploredImage(np.zeros((1, 1)), {}, tokens, np.array(mass, float), np.array(active))
        sums.add(image, np.array([0.5, 0.1]))
    result = sums.content()
    assert result["histogram"].tolist() == [[0.375, 0.625], [0, 1]]
    assert result["active"].tolist() == [1, 0.5] and result["cover"].tolist() == [0.5, 0.1]
    assert "attention" not in result


def test_images_of_unequal_and_large_size(tmp_path):
    options = {"title": "t", "class_names": ["a"], "class_colors": [(1, 2, 3)], "ignore_label": 255}
    writer = ExplorerWriter(tmp_path, **options, has_truth=False)
    sizes = [(1200, 1000), (30, 90)]
    for size in sizes:
        writer.add_photo(Photograph("x", np.zeros((*size, 3), np.uint8), None))
    run = writer.start_run()
    for height, width in sizes:
        grid = (-(-height // 8), -(-width // 8))
        tokens = ImageTokens(torch.full((2, *grid), 0.5), torch.zeros(2, 4), (height / 8, width / 8))
        run.add(ExploredImage(np.zeros((height, width), np.uint8), {}, tokens, np.ones((2, 1)), np.ones(2, bool)))
    run.finish(ExploredRun("r", {}, {}))
    writer.finish()
    assert Image.open(tmp_path / "photos/0000.webp").size == (800, 960)
    assert Image.open(tmp_path / "photos/0001.webp").size == (90, 30)
    large, small = (content(tmp_path / f"data/run0/{name}.js") for name in ("0000", "0001"))
    assert large["grid"] == [75, 63] and large["extent"] == [75, 62.5]
    assert small["grid"] == [4, 12] and small["extent"] == [3.75, 11.25]
    assert [entry[4:6] for entry in content(tmp_path / "data/run0/token0.js")["images"]] == [[30, 25], [4, 12]]


def test_an_unfinished_explorer_is_an_error(tmp_path):
    options = {"title": "t", "class_names": ["a"], "class_colors": [(0, 0, 0)], "ignore_label": 255, "has_truth": True}
    with pytest.raises(ValueError, match=r"at least one image"):
        ExplorerWriter(tmp_path, **options).finish()
    writer = ExplorerWriter(tmp_path, **options)
    writer.add_photo(Photograph("x", np.zeros((4, 4, 3), np.uint8), None))
    writer.start_run()
    with pytest.raises(ValueError, match=r"every run must be finished"):
        writer.finish()
