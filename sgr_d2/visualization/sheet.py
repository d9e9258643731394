"""The sheet for one image: image, truth, prediction, tokens; the classes; the largest regions one by one.

Shape legend: H x W image (pixels), C classes, K tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sgr_d2.labels import resize_nearest
from sgr_d2.structures import ComponentMap, ImageTokens
from sgr_d2.visualization.canvas import shortened, text_width
from sgr_d2.visualization.layout import (
    INDENT,
    TEXT_SIZE,
    Cell,
    LegendEntry,
    column_width,
    columns_of,
    inner_width,
    lay_out,
)
from sgr_d2.visualization.palette import IGNORE_COLOR, token_colors
from sgr_d2.visualization.panels import (
    label_panel,
    panel_size,
    region_panel,
    resize_image,
    token_panel,
)
from sgr_d2.visualization.regions import RegionMaps, RegionSummary

# The panels of the top row fit into this box, those of single regions into one of the width of their column.
PANEL_WIDTH = 300
PANEL_MAX_HEIGHT = 400
REGION_MAX_HEIGHT = 280
# The number of single regions that a sheet shows.
MAX_REGIONS = 10


class Classes(NamedTuple):
    """Names and colours of the classes.

    Attributes:
        names: C names.
        colors: (C, 3) uint8 RGB.
        ignore_label: the label of pixels that belong to no class.
    """

    names: Sequence[str]
    colors: np.ndarray
    ignore_label: int


def draw_sheet(
    image: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    classes: Classes,
    tokens: ImageTokens | None = None,
    components: ComponentMap | None = None,
    max_regions: int = MAX_REGIONS,
) -> np.ndarray:
    """Draw the model's results for one image.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) integer labels, or None if unknown.
        prediction: (H, W) integer labels.
        classes: names and colours.
        tokens: regions of the image; None for a model without SGR, to leave out everything about tokens.
        components: their contours are drawn over the tokens; None for no contours.
        max_regions: number of single regions to show, largest first.

    Returns:
        (H', W', 3) uint8 RGB; at most 1,282 pixels wide, however large the image.

    Raises:
        ValueError: if image, truth, prediction and components differ in size, or there is no pixel.
    """
    _check_sizes(image, truth, prediction, components)
    large = _large_cells(image, truth, prediction, classes, tokens, components)
    small = []
    if tokens is not None:
        _, width = columns_of(inner_width(len(large), column_width(large[0].panel.shape[1])))
        small = region_cells(image, truth, classes, tokens, width, max_regions)
    return lay_out(large, class_legend(truth, prediction, classes), small)


def _check_sizes(
    image: np.ndarray, truth: np.ndarray | None, prediction: np.ndarray, components: ComponentMap | None
) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"image is {image.dtype} {image.shape}; expected uint8 (H, W, 3) with at least one pixel.")
    ids = None if components is None else components.ids
    for name, labels in (("truth", truth), ("prediction", prediction), ("components.ids", ids)):
        if labels is not None and labels.shape != image.shape[:2]:
            raise ValueError(f"{name} is {labels.shape}, the image {image.shape[:2]}; resize one to the other first.")


def _large_cells(
    image: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    classes: Classes,
    tokens: ImageTokens | None,
    components: ComponentMap | None,
) -> list[Cell]:
    size = panel_size(*image.shape[:2], PANEL_MAX_HEIGHT, PANEL_WIDTH)
    small = resize_image(image, size)
    cells = [Cell(small, "Image")]
    for title, labels in (("Truth", truth), ("Prediction", prediction)):
        if labels is not None:
            cells.append(Cell(label_panel(labels, classes.colors, classes.ignore_label, size), title))
    if tokens is not None:
        maps = RegionMaps(tokens, size)
        ids = None if components is None else components.ids
        title = "Tokens" if components is None else "Tokens and components"
        cells.append(Cell(token_panel(small, maps, token_colors(len(maps)), ids), title))
    return cells


def region_cells(
    image: np.ndarray,
    truth: np.ndarray | None,
    classes: Classes,
    tokens: ImageTokens,
    width: int,
    number: int,
) -> list[Cell]:
    """The ``number`` largest regions, each over the image, with its token, main class and cover.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) integer labels, for the main classes; None if unknown.
        width: of a cell, pixels.
    """
    size = panel_size(*image.shape[:2], REGION_MAX_HEIGHT, width)
    small = resize_image(image, size)
    maps = RegionMaps(tokens, size)
    colors = token_colors(len(maps))
    labels = None
    if truth is not None:
        labels = resize_nearest(truth, size).astype(np.int64)
        labels = np.where(labels == classes.ignore_label, -1, labels)
    return [
        Cell(
            region_panel(small, maps.map_of(summary.token), colors[summary.token]),
            _region_title(summary, classes.names, width - INDENT),
            f"covers {100 * summary.cover:.1f} %",
            colors[summary.token],
        )
        for summary in maps.strongest(number, labels, len(classes.names))
    ]


def _region_title(summary: RegionSummary, names: Sequence[str], width: int) -> str:
    """ "token 17 · Car 93 %"; a long class name is truncated, the percentage never."""
    start = f"token {summary.token}"
    if summary.label is None:
        return start
    start, end = f"{start} · ", f" {100 * summary.share:.0f} %"
    return start + shortened(names[summary.label], TEXT_SIZE, width - text_width(start + end, TEXT_SIZE)) + end


def class_legend(truth: np.ndarray | None, prediction: np.ndarray, classes: Classes) -> list[LegendEntry]:
    """The classes that occur, in their order, followed by "ignored" if any pixel belongs to no class."""
    shown = [np.unique(labels) for labels in (truth, prediction) if labels is not None]
    values = set(np.concatenate(shown).tolist())
    known = [c for c in range(len(classes.names)) if c in values and c != classes.ignore_label]
    entries = [LegendEntry(classes.names[c], classes.colors[c]) for c in known]
    if values - set(known):
        entries.append(LegendEntry("ignored", np.array(IGNORE_COLOR)))
    return entries
