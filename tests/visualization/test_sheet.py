import numpy as np
import pytest
import torch

from sgr_d2.structures import ComponentMap, ImageTokens
from sgr_d2.visualization.canvas import shortened, text_width
from sgr_d2.visualization.layout import GAP, MARGIN, TITLE_HEIGHT, LegendEntry, _break_lines, _entry_width
from sgr_d2.visualization.palette import IGNORE_COLOR, token_colors
from sgr_d2.visualization.regions import RegionSummary
from sgr_d2.visualization.sheet import PANEL_WIDTH, Classes, _region_title, class_legend, draw_sheet, region_cells

CLASSES = Classes(["sky", "car"], np.array([[200, 30, 30], [30, 30, 200]], dtype=np.uint8), 255)


def _scene(height, width, num_tokens=4, stride=8):
    rng = np.random.default_rng(height * 1000 + width)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    truth = np.zeros((height, width), dtype=np.uint8)
    truth[height // 2 :] = 1
    grid = (-(-height // stride), -(-width // stride))
    regions = torch.as_tensor(rng.random((num_tokens, *grid), dtype=np.float32))
    tokens = ImageTokens(regions, torch.zeros(num_tokens, 2), (height / stride, width / stride))
    components = ComponentMap(truth.astype(np.int32) + 1, np.array([0, 1]), 0, 0)
    return image, truth, tokens, components


def _panel(sheet, column):
    """The middle pixel of the top part of a panel of the first row."""
    return sheet[MARGIN + TITLE_HEIGHT + 20, MARGIN + column * (PANEL_WIDTH + GAP) + PANEL_WIDTH // 2].tolist()


@pytest.mark.parametrize("shape", [(1, 1), (13, 17), (33, 31), (90, 300), (300, 90), (2000, 1500), (1, 700)])
def test_every_size_gives_a_sheet_of_bounded_width(shape):
    image, truth, tokens, components = _scene(*shape)
    sheet = draw_sheet(image, truth, truth, CLASSES, tokens, components)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] <= 1282
    assert sheet.shape[0] <= 1600
    assert (sheet[: MARGIN - 4] == 255).all()
    assert (sheet[-MARGIN + 4 :] == 255).all()
    assert (sheet[:, -MARGIN + 4 :] == 255).all()


def test_top_row_shows_truth_and_prediction_in_class_colors():
    image, truth, tokens, components = _scene(64, 64)
    sheet = draw_sheet(image, truth, np.ones_like(truth), CLASSES, tokens, components)
    assert _panel(sheet, 1) == CLASSES.colors[0].tolist()
    assert _panel(sheet, 2) == CLASSES.colors[1].tolist()


def test_ignored_truth_is_shown_and_named():
    image, truth, tokens, _ = _scene(64, 64)
    truth[:] = 255
    no_components = ComponentMap(np.zeros(truth.shape, dtype=np.int32), np.empty(0, dtype=np.int64), 0, 0)
    sheet = draw_sheet(image, truth, np.zeros_like(truth), CLASSES, tokens, no_components)
    assert _panel(sheet, 1) == list(IGNORE_COLOR)
    entries = class_legend(truth, np.zeros_like(truth), CLASSES)
    assert [entry.name for entry in entries] == ["sky", "ignored"]


def test_without_tokens_three_columns_and_without_truth_two():
    image, truth, tokens, _ = _scene(60, 80)
    baseline = draw_sheet(image, truth, truth, CLASSES)
    alone = draw_sheet(image, None, truth, CLASSES)
    complete = draw_sheet(image, truth, truth, CLASSES, tokens)
    widths = [sheet.shape[1] for sheet in (alone, baseline, complete)]
    assert widths == [n * (PANEL_WIDTH + GAP) - GAP + 2 * MARGIN for n in (2, 3, 4)]
    assert baseline.shape[0] == alone.shape[0] < complete.shape[0]
    assert _panel(alone, 1) == CLASSES.colors[0].tolist()


def test_single_regions_come_largest_first_in_the_colors_of_their_tokens():
    image, truth, _, _ = _scene(64, 64)
    regions = torch.zeros(12, 8, 8)
    regions[7] = 1.0
    regions[3, :, :4] = 1.0
    tokens = ImageTokens(regions, torch.zeros(12, 2), (8.0, 8.0))
    sheet = draw_sheet(np.zeros_like(image), truth, truth, CLASSES, tokens)
    colors = token_colors(12)
    below = sheet[MARGIN + TITLE_HEIGHT + PANEL_WIDTH :]
    first = {tuple(color) for color in below[:, : 230 + MARGIN].reshape(-1, 3)}
    second = {tuple(color) for color in below[:, 260 + MARGIN : 480 + MARGIN].reshape(-1, 3)}
    assert tuple(colors[7]) in first - second  # the swatch
    assert tuple(colors[3]) in second - first
    covered = tuple(np.rint(0.85 * colors[7].astype(np.float32)).astype(int))  # over a black image
    assert covered in first - second
    only_one = draw_sheet(np.zeros_like(image), truth, truth, CLASSES, tokens, max_regions=1)
    assert tuple(colors[3]) not in {tuple(color) for color in only_one[-280:].reshape(-1, 3)}


def test_a_title_names_no_ignored_class_even_where_its_number_is_a_class():
    image, truth, _, _ = _scene(64, 64)
    truth[:60] = 0
    truth[60:] = 1
    tokens = ImageTokens(torch.ones(1, 8, 8), torch.zeros(1, 2), (8.0, 8.0))
    titles = [
        region_cells(image, truth, CLASSES._replace(ignore_label=label), tokens, 230, 5)[0].title for label in (255, 0)
    ]
    assert titles == ["token 0 · sky 94 %", "token 0 · car 100 %"]


def test_the_legend_breaks_into_lines_that_fit():
    entries = [LegendEntry(f"class number {i}", token_colors(1)[0]) for i in range(40)]
    lines = _break_lines(entries, 500)
    assert [entry for line in lines for entry in line] == entries
    assert all(sum(_entry_width(entry) for entry in line) <= 500 + 18 for line in lines)
    assert len(lines) > 5
    assert len(_break_lines(entries[:3], 500)) == 1
    assert _break_lines([], 500) == []
    (narrow,) = _break_lines([LegendEntry("a name wider than the sheet", token_colors(1)[0])], 100)
    assert narrow[0].name.endswith("…")


def test_a_title_keeps_its_share_when_the_class_name_is_long():
    summary = RegionSummary(token=17, cover=0.1, label=0, share=0.934)
    assert _region_title(summary, ["Car"], 200) == "token 17 · Car 93 %"
    long = _region_title(summary, ["a class with a very long name indeed"], 200)
    assert long.startswith("token 17 · a class")
    assert long.endswith("… 93 %")
    assert _region_title(summary._replace(label=None), ["Car"], 200) == "token 17"


def test_shortened_text_fits():
    assert shortened("short", 13, 500) == "short"
    for width in (40, 90, 150):
        assert text_width(shortened("a text that is far too long for this", 13, width), 13) <= width


def test_sizes_that_differ_are_named():
    image, truth, _, components = _scene(64, 64)
    with pytest.raises(ValueError, match=r"truth is \(64, 63\), the image \(64, 64\)"):
        draw_sheet(image, truth[:, 1:], truth, CLASSES)
    with pytest.raises(ValueError, match="prediction is"):
        draw_sheet(image, truth, truth[1:], CLASSES)
    with pytest.raises(ValueError, match=r"components\.ids is"):
        draw_sheet(image, truth, truth, CLASSES, None, components._replace(ids=components.ids[1:]))
    with pytest.raises(ValueError, match="image is float64"):
        draw_sheet(image / 255, truth, truth, CLASSES)
    with pytest.raises(ValueError, match="at least one pixel"):
        draw_sheet(image[:0], truth[:0], truth[:0], CLASSES)
