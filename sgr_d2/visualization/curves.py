"""Plots losses and one metric over the iterations of a run, from the lines that Detectron2's ``JSONWriter`` writes."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

logger = logging.getLogger(__name__)

# Okabe and Ito's colours, which colour-blind readers can distinguish; the total is black.
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C6D00")
_TOTAL_COLOR = "#222222"
_STYLE = {"fontsize": 10, "color": "#333333"}
# The smoothed line averages about this fraction of the points of a curve.
_SMOOTHING_SHARE = 0.06
# A curve with fewer points is drawn as it is, with a marker at each.
_MIN_SMOOTHED = 30

# Legends are below their axes, by this much of their font's size, which leaves room for the numbers and the label; a
# line of one has room for about so many characters.
_LEGEND_BELOW, _LEGEND_SIZE = 4.8, 9
_LEGEND_CHARACTERS = 72
# Inches that each line adds to the figure.
_LEGEND_LINE = 0.18

# Evaluators whose figures are percentages.
_PERCENT = ("sem_seg", "cityscapes", "context", "bbox", "segm")

Series = dict[str, tuple[np.ndarray, np.ndarray]]


def plot_curves(metrics_json: str | Path, out_png: str | Path, metric: str = "sem_seg/mIoU") -> None:
    """Draw the losses (left) and a metric (right) of a run.

    Args:
        metrics_json: Detectron2's ``metrics.json``. A resumed run appends to it: for an iteration that occurs twice the
            later value is used, and values of the interrupted run after that iteration are dropped.
        out_png: where to write the picture; its folder is created.
        metric: "task/name", drawn for every data set; "data set/task/name" for one of several.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if no line of the file is a JSON object.
    """
    series = read_series(metrics_json)
    figure = Figure(figsize=(11, 4), dpi=110, layout="constrained")
    losses, scores = figure.subplots(1, 2)
    _draw_losses(losses, series)
    _draw_scores(scores, series, metric)
    figure.set_figheight(4 + _LEGEND_LINE * max(_legend_lines(losses), _legend_lines(scores)))
    Path(out_png).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out_png)


def read_series(metrics_json: str | Path) -> Series:
    """Read every number of ``metrics.json``: {name: (iterations ascending, values)}; NaN values are kept."""
    found: dict[str, dict[int, float]] = {}
    for row in _rows_of(Path(metrics_json)):
        iteration = row.get("iteration")
        if not isinstance(iteration, int):
            continue
        for name, value in row.items():
            if name == "iteration" or not isinstance(value, int | float):
                continue
            points = found.setdefault(name, {})
            # Within one run the iterations of a name increase: a step back is a resume, which replaces what follows.
            while points and next(reversed(points)) >= iteration:
                points.popitem()
            points[iteration] = float(value)
    return {name: (np.array(list(points)), np.array(list(points.values()))) for name, points in found.items()}


def read_rows(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The lines of Detectron2's ``metrics.json``, and the numbers (from 1) of those that are not JSON objects.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    rows, broken = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            broken.append(number)
    return rows, broken


def _rows_of(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. A training run writes it as OUTPUT_DIR/metrics.json.")
    rows, broken = read_rows(path)
    if broken and not rows:
        raise ValueError(f"{path}: line {broken[0]} is not a JSON object; expected metrics.json of a training run.")
    if broken:  # a run that was killed leaves half a line
        logger.warning(
            "%s: skipped %d lines that are not JSON objects, the first is line %d", path, len(broken), broken[0]
        )
    return rows


def _draw_losses(axes: Axes, series: Series) -> None:
    names = [name for name in series if name == "total_loss" or name.startswith("loss_")]
    names.sort(key=lambda name: (name != "total_loss", name))
    colors = iter(_COLORS * (1 + len(names) // len(_COLORS)))
    positive = []
    for name in names:
        iterations, values = _finite(*series[name])
        total = name == "total_loss"
        label = "total" if total else name.removeprefix("loss_").replace("_", " ")
        _draw_line(axes, iterations, values, _TOTAL_COLOR if total else next(colors), label)
        positive.append(values)
    values = np.concatenate(positive) if positive else np.empty(0)
    if values.size and values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    _finish(axes, "Loss", "weighted loss", bool(values.size))


def _draw_scores(axes: Axes, series: Series, metric: str) -> None:
    names = sorted(name for name in series if name == metric or name.endswith(f"/{metric}"))
    shown = metric.removeprefix("sem_seg/")
    percent = metric.split("/")[-2:][0] in _PERCENT
    drawn = False
    steps = series.get("total_loss", (np.empty(0), None))[0]
    for name, color in zip(names, _COLORS * (1 + len(names) // len(_COLORS)), strict=False):
        iterations, values = _finite(*series[name])
        if not values.size:
            continue
        drawn = True
        # The value at iteration i is from after i + 1 steps, but that of a final evaluation is one iteration later.
        iterations = iterations - (~np.isin(iterations, steps) & np.isin(iterations - 1, steps))
        best = int(values.argmax())
        value = f"{values[best]:.1f} %" if percent else f"{values[best]:.4g}"
        which = name.removesuffix(metric).rstrip("/") or shown
        label = f"{which}: best {value} at iteration {iterations[best] + 1:,.0f}"
        _draw_line(axes, iterations, values, color, label)
        axes.plot(iterations[best] + 1, values[best], "o", color=color, markersize=7, markerfacecolor="white", zorder=4)
    _finish(axes, "Validation", f"{shown} (%)" if percent else shown, drawn)


def _draw_line(axes: Axes, iterations: np.ndarray, values: np.ndarray, color: str, label: str) -> None:
    if values.size < _MIN_SMOOTHED:
        axes.plot(iterations + 1, values, "-o", color=color, label=label, linewidth=1.6, markersize=3.5)
        return
    axes.plot(iterations + 1, values, color=color, alpha=0.22, linewidth=0.8)
    axes.plot(iterations + 1, _smoothed(values), color=color, label=label, linewidth=1.8)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Average over a window centred on each point, which shrinks symmetrically at both ends, so that nothing lags."""
    radius = max(1, round(_SMOOTHING_SHARE * len(values) / 2))
    index = np.arange(len(values))
    reach = np.minimum(radius, np.minimum(index, index[::-1]))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)


def _finite(iterations: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    finite = np.isfinite(values)
    return iterations[finite], values[finite]


def _finish(axes: Axes, title: str, ylabel: str, drawn: bool) -> None:
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel("iteration", **_STYLE)
    axes.set_ylabel(ylabel, **_STYLE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#aaaaaa")
    axes.tick_params(colors="#555555", labelsize=9)
    axes.grid(True, axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    if drawn:
        low, high = axes.get_xlim()
        if high - low < 2:  # a single point: matplotlib's margin would repeat its number on every tick
            axes.set_xlim(low - 1, high + 1)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        _draw_legend(axes)
    else:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no values yet", ha="center", va="center", transform=axes.transAxes, color="#888888")


def _draw_legend(axes: Axes) -> None:
    """Below the axes, where it covers no curve, in as many columns as there is room for."""
    style = {"frameon": False, "fontsize": _LEGEND_SIZE, "handlelength": 1.5, "columnspacing": 1.2}
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "borderaxespad": _LEGEND_BELOW}
    axes.legend(ncols=_columns(axes), **style, **below)


def _columns(axes: Axes) -> int:
    longest = max(len(label) for label in axes.get_legend_handles_labels()[1])
    return max(1, _LEGEND_CHARACTERS // (longest + 8))


def _legend_lines(axes: Axes) -> int:
    legend = axes.get_legend()
    return 0 if legend is None else -(-len(legend.get_texts()) // _columns(axes))
