"""Draws where the IoU of each class is lost, as stacked bars."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .fonts import fonts_for
from .plain_text import plain

# Correct pixels, then the kinds of errors; Okabe and Ito's colours, which colour-blind readers can distinguish.
_RIGHT = "#D9D9D9"
_COLORS = ("#D55E00", "#0072B2", "#E69F00", "#CC79A7")


def draw_error_kinds(
    figures: Mapping[str, float], kinds: Sequence[str], classes: Sequence[str], title: str, out_png: str | Path
) -> None:
    """Draw one bar of 100 % for each class that has labels, and one for the mean.

    Args:
        figures: of `sgr_d2.evaluation.ErrorKindsEvaluator`: ``KIND-CLASS`` and ``KIND`` in percent.
        kinds: their names, from left to right.
        classes: their names, from top to bottom.
        title: of the picture.
        out_png: where to write it; its folder is created.
    """
    shown = [name for name in classes if not math.isnan(figures[f"{kinds[0]}-{name}"])]
    rows = [[figures[f"{kind}-{name}"] for kind in kinds] for name in shown] + [[figures[kind] for kind in kinds]]
    with fonts_for(title, *shown):
        figure = _figure(rows, kinds, shown, title)
        Path(out_png).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out_png)


def _figure(rows: list[list[float]], kinds: Sequence[str], shown: Sequence[str], title: str) -> Figure:
    lost = np.array(rows)  # (classes + 1, kinds); NaN draws nothing
    figure = Figure(figsize=(8, 1.3 + 0.26 * len(lost)), dpi=110, layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(lost))
    left = 100 - lost.sum(1)
    axes.barh(places, left, color=_RIGHT, height=0.74, label="IoU")
    for kind, color, values in zip(kinds, _COLORS, lost.T, strict=True):
        axes.barh(places, values, left=left, color=color, height=0.74, label=kind)
        left = left + values
    axes.set_yticks(places, [*map(plain, shown), "mean"], fontsize=9, color="#333333")
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the union of prediction and truth", fontsize=9, color="#333333")
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(plain(title), fontsize=11, fontweight="bold")
    figure.legend(loc="outside lower center", ncols=1 + len(kinds), fontsize=9, frameon=False)
    return figure
