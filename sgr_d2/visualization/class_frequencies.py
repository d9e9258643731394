"""Draws how often each class occurs, and how many components the images have."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from .fonts import fonts_for
from .plain_text import plain

# Bars per column; further classes go into the next one.
_ROWS = 60
_BAR_COLOR, _SMALL_COLOR, _CUT_COLOR = "#0072B2", "#E69F00", "#D55E00"
_TEXT = {"fontsize": 9, "color": "#333333"}


def plot_class_frequencies(
    *,
    title: str,
    classes: Sequence[str],
    pixels: np.ndarray,
    components: np.ndarray,
    min_area: int,
    max_components: int,
    out_png: str | Path,
) -> None:
    """Draw the classes by frequency, and a histogram of the components per image.

    Args:
        title: of the picture.
        classes: C names.
        pixels: (C,) number of labelled pixels of each class.
        components: (N, 3) numbers of components kept, too small, and cut, of N images; N may be 0.
        min_area, max_components: the limits that were applied.
        out_png: where to write the picture; its folder is created.
    """
    columns = -(-len(classes) // _ROWS)
    rows = -(-len(classes) // columns)
    height = max(3.2, 1.0 + 0.19 * rows)
    with fonts_for(title, *classes):
        figure = Figure(figsize=(4.4 * columns + 4.6, height), dpi=110, layout="constrained")
        figure.suptitle(plain(title), fontsize=12, fontweight="bold")
        axes = figure.subplots(1, columns + 1, squeeze=False, width_ratios=[1.0] * columns + [1.1])[0]
        _draw_classes(axes[:-1], classes, np.asarray(pixels), rows)
        _draw_components(axes[-1], np.asarray(components).reshape(-1, 3), min_area, max_components)
        Path(out_png).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out_png)


def _draw_classes(axes: Sequence[Axes], classes: Sequence[str], pixels: np.ndarray, rows: int) -> None:
    shares = 100 * pixels / max(1, pixels.sum())
    order = np.argsort(-shares, kind="stable")
    positive = shares[shares > 0]
    low = 10 ** np.floor(np.log10(positive.min() / 2)) if positive.size else 1e-3
    for column, part in enumerate(axes):
        shown = order[column * rows : (column + 1) * rows]
        places = np.arange(len(shown))
        part.barh(places, np.maximum(shares[shown], low), color=_BAR_COLOR, height=0.72)
        if positive.size:
            part.set_xscale("log")
            part.xaxis.set_major_locator(LogLocator(numticks=5))
            part.xaxis.set_minor_locator(NullLocator())
        part.set_xlim(low, 130)
        part.set_ylim(rows - 0.4, -0.6)
        labels = [_label(classes[index], shares[index]) for index in shown]
        part.set_yticks(places, labels)
        for tick, index in zip(part.get_yticklabels(), shown, strict=True):
            tick.set(fontsize=7.5, color="#333333" if shares[index] else _CUT_COLOR)
        part.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.7f}".rstrip("0").rstrip(".") + " %"))
        _tidy(part, "share of the labelled pixels", "x")


def _label(name: str, share: float) -> str:
    short = plain(name if len(name) <= 24 else name[:23] + "…")
    return short if share else f"{short} (never)"


def _draw_components(axes: Axes, components: np.ndarray, min_area: int, max_components: int) -> None:
    _tidy(axes, "components per image", "y")
    axes.set_title("Components, at full size", loc="left", fontsize=10)
    axes.set_box_aspect(0.75)
    axes.set_anchor("NW")
    if not len(components):
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no valid labels", ha="center", va="center", transform=axes.transAxes, color="#888888")
        return
    kept, small, cut = components.T
    upper = max(2, int((kept + small + cut).max()) + 1)
    bins = np.linspace(0, upper, min(40, upper) + 1)
    axes.hist(kept + small + cut, bins, histtype="step", color=_SMALL_COLOR, linewidth=1.6, label="all")
    axes.hist(kept, bins, color=_BAR_COLOR, alpha=0.85, label=f"kept (MIN_AREA {min_area})")
    if cut.any():
        axes.axvline(max_components, color=_CUT_COLOR, linewidth=1.2, label=f"MAX_COMPONENTS {max_components}")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_ylabel("images", **_TEXT)
    axes.legend(frameon=False, fontsize=8)


def _tidy(axes: Axes, xlabel: str, grid: str) -> None:
    axes.set_xlabel(xlabel, **_TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#aaaaaa")
    axes.tick_params(colors="#555555", labelsize=8)
    axes.grid(True, axis=grid, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
