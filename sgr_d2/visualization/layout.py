"""The layout of a sheet: a row of large panels, the legend, rows of smaller panels. All sizes are in pixels."""

from typing import NamedTuple

import numpy as np

from sgr_d2.visualization.canvas import Canvas, shortened, text_width

MARGIN = 20
GAP = 14
# Minimum for images of any shape: titles need the room.
MIN_COLUMN_WIDTH = 220
TITLE_SIZE = 16
TEXT_SIZE = 13
SWATCH = 13
# From the left edge of a swatch to the text next to it.
INDENT = SWATCH + 6
TITLE_HEIGHT = 26
CAPTION_HEIGHT = 38
LEGEND_ROW_HEIGHT = 24
_LEGEND_SPACING = 18


class Cell(NamedTuple):
    """A panel (h, w, 3) with the texts above it; only small panels have a caption and a swatch."""

    panel: np.ndarray
    title: str
    caption: str = ""
    swatch: np.ndarray | None = None


class LegendEntry(NamedTuple):
    """The name of a class and its (3,) uint8 colour."""

    name: str
    color: np.ndarray


def columns_of(width: int) -> tuple[int, int]:
    """Return how many small panels fit side by side into ``width``, and how wide each may be."""
    number = max(1, (width + GAP) // (MIN_COLUMN_WIDTH + GAP))
    return number, (width + GAP) // number - GAP


def lay_out(large: list[Cell], legend: list[LegendEntry], small: list[Cell]) -> np.ndarray:
    """Draw a sheet: one row of large panels, the legend, and as many rows of small panels as needed.

    All panels of ``large`` have the same size, as have those of ``small``, which follows from ``columns_of`` the inner
    width.
    """
    column = column_width(large[0].panel.shape[1])
    inner = inner_width(len(large), column)
    lines = _break_lines(legend, inner)
    number, small_column = columns_of(inner)
    rows = [small[i : i + number] for i in range(0, len(small), number)]

    legend_top = MARGIN + TITLE_HEIGHT + large[0].panel.shape[0] + GAP
    small_top = legend_top + len(lines) * LEGEND_ROW_HEIGHT + GAP // 2
    row_height = CAPTION_HEIGHT + small[0].panel.shape[0] + GAP if small else 0
    height = small_top + len(rows) * row_height + MARGIN - (GAP if rows else GAP // 2)

    canvas = Canvas(inner + 2 * MARGIN, height)
    for i, cell in enumerate(large):
        _draw_large(canvas, cell, MARGIN + i * (column + GAP), column)
    for i, line in enumerate(lines):
        _draw_line(canvas, line, legend_top + i * LEGEND_ROW_HEIGHT)
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            _draw_small(canvas, cell, MARGIN + j * (small_column + GAP), small_top + i * row_height, small_column)
    return canvas.pixels()


def column_width(panel_width: int) -> int:
    """Return the width of a column for panels of the given width."""
    return max(panel_width, MIN_COLUMN_WIDTH)


def inner_width(number: int, column: int) -> int:
    """Return the width of ``number`` columns side by side."""
    return number * (column + GAP) - GAP


def _draw_large(canvas: Canvas, cell: Cell, left: int, width: int) -> None:
    canvas.text(cell.title, left, MARGIN, TITLE_SIZE, bold=True, max_width=width)
    canvas.paste(cell.panel, left, MARGIN + TITLE_HEIGHT)


def _draw_small(canvas: Canvas, cell: Cell, left: int, top: int, width: int) -> None:
    canvas.swatch(cell.swatch, left, top + 2, SWATCH)
    canvas.text(cell.title, left + INDENT, top, TEXT_SIZE, max_width=width - INDENT)
    canvas.text(cell.caption, left + INDENT, top + 17, TEXT_SIZE, muted=True, max_width=width - INDENT)
    canvas.paste(cell.panel, left, top + CAPTION_HEIGHT)


def _draw_line(canvas: Canvas, line: list[LegendEntry], top: int) -> None:
    left = MARGIN
    for entry in line:
        canvas.swatch(entry.color, left, top + 2, SWATCH)
        canvas.text(entry.name, left + INDENT, top, TEXT_SIZE)
        left += _entry_width(entry)


def _break_lines(legend: list[LegendEntry], width: int) -> list[list[LegendEntry]]:
    lines, used = [], width
    for entry in legend:
        entry = entry._replace(name=shortened(entry.name, TEXT_SIZE, width - INDENT))
        if used + _entry_width(entry) - _LEGEND_SPACING > width:
            lines.append([])
            used = 0
        lines[-1].append(entry)
        used += _entry_width(entry)
    return lines


def _entry_width(entry: LegendEntry) -> int:
    return INDENT + text_width(entry.name, TEXT_SIZE) + _LEGEND_SPACING
