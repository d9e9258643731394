"""Differences between models over the results of several plans, paired by seed, as a table and a picture.

    title: What SGR gains
    metrics: [sem_seg/mIoU, sem_seg/pACC]       of the results; the first one is drawn
    rows:                                       from top to bottom; folders are relative to this file
      - {group: "Semantic FPN", label: "400 steps", baseline: main/fpn, model: main/fpn_sgr}

``group`` is optional: a heading above the row, for it and the rows below it.

A folder is that of a variant in the results of `tools/run_experiment.py`, with one file such as ``seed0.json`` per run.
The seeds that both folders have are compared. ``baseline`` and ``model`` may both be lists of as many folders, in pairs
with seeds of their own, whose differences are then taken together.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from sgr_d2.yaml_mistakes import check_yaml

from .outcome import metric_of
from .plots import COLORS, LIGHT, draw_mean_and_interval, save_figure
from .records import read_json
from .statistics import Estimate, estimate
from .summary import grid, span

KEYS, ROW_KEYS, OPTIONAL = {"title", "metrics", "rows"}, {"label", "baseline", "model"}, {"group"}


@dataclass(frozen=True)
class Row:
    """A comparison: ``baseline`` and ``model`` are {metric: {seed: value}}; ``group`` is its heading, or ""."""

    group: str
    label: str
    baseline: dict[str, dict[int, float]]
    model: dict[str, dict[int, float]]

    def seeds(self, metric: str) -> list[int]:
        return sorted(self.baseline[metric].keys() & self.model[metric].keys())

    def differences(self, metric: str) -> list[float]:
        return [self.model[metric][seed] - self.baseline[metric][seed] for seed in self.seeds(metric)]

    def estimate(self, metric: str) -> Estimate:
        return estimate(self.differences(metric))


@dataclass(frozen=True)
class Overview:
    title: str
    metrics: list[str]
    rows: list[Row]


def read_overview(path: Path, *, first: str | None = None) -> Overview:
    """Read the file and the results that it names.

    Args:
        path: of the file.
        first: the metric of the file to put first, which is the one that is drawn; None for their order there.

    Raises:
        FileNotFoundError: if there is no such file, or no result in a folder that it names.
        ValueError: if a key is missing or unknown, or a model and its baseline have no seed with the first metric in
            common.
    """
    try:
        text = path.read_text(encoding="utf-8")
        check_yaml(text, str(path))
        data = yaml.safe_load(text)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file. One of ours is results/overview.yaml.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not a YAML file ({error}).") from error
    _check_keys(str(path), data, KEYS)
    metrics, entries = data["metrics"], data["rows"]
    for key, value in (("metrics", metrics), ("rows", entries)):
        if not isinstance(value, list) or not value:
            raise ValueError(f"{path}: {key}: {value!r} must be a list that is not empty.")
    if not all(isinstance(metric, str) and "/" in metric for metric in metrics):
        raise ValueError(f"{path}: metrics: {metrics!r} must be names like sem_seg/mIoU.")
    if first is not None:
        if first not in metrics:
            raise ValueError(f"{path}: metrics: {metrics} do not contain {first}: add it.")
        metrics = [first, *(metric for metric in metrics if metric != first)]
    rows: list[Row] = []
    for entry in entries:
        rows.append(_row(path, entry, metrics, group=rows[-1].group if rows else ""))
    return Overview(str(data["title"]), metrics, rows)


def to_markdown(overview: Overview) -> str:
    """A table: means and all differences of the first metric over the compared seeds, mean differences of others."""
    first = overview.metrics[0]
    headers = ["variant", "seeds", f"{first}: baseline", "model", "difference [95 % interval]", "by seed"]
    headers += [f"{metric}: difference" for metric in overview.metrics[1:]]
    lines = []
    for row in overview.rows:
        seeds = row.seeds(first)
        means = [estimate([values[first][seed] for seed in seeds]).mean for values in (row.baseline, row.model)]
        by_seed = ", ".join(f"{value:+.2f}" for value in row.differences(first))
        others = [_figure(row.estimate(metric)) for metric in overview.metrics[1:]]
        lines.append(
            [
                f"{row.group}: {row.label}" if row.group else row.label,
                span(seeds),
                *(f"{mean:.2f}" for mean in means),
                _figure(row.estimate(first)),
                by_seed,
                *others,
            ]
        )
    return f"# {overview.title}\n\nDifferences are paired by seed.\n\n{grid(headers, lines)}\n"


def draw_overview(overview: Overview, path: Path) -> None:
    """A forest plot: a dot per seed, the mean and its interval (cut at the edge), and both as figures at the right."""
    metric = overview.metrics[0]
    lines = _lines(overview.rows)
    figure = Figure(figsize=(9, 1.0 + 0.3 * len(lines)), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=LIGHT, linewidth=1, zorder=0)
    for place, (_, row) in enumerate(lines):
        if row is not None:
            values = row.differences(metric)
            draw_mean_and_interval(axes, place, values)
            axes.plot(values, [place] * len(values), "o", color=COLORS[0], markersize=4.5, alpha=0.6)
    axes.set_xlim(_limits([row.differences(metric) for row in overview.rows]))
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_yticks(range(len(lines)), [text for text, _ in lines], fontsize=9)
    for tick, (_, row) in zip(axes.get_yticklabels(), lines, strict=True):
        tick.set_fontweight("normal" if row else "bold")
    figures = axes.secondary_yaxis("right")
    figures.set_yticks(range(len(lines)), [_with_number(row, metric) if row else "" for _, row in lines], fontsize=8)
    for both in (axes.yaxis, figures.yaxis):
        both.set_tick_params(length=0)
    figures.spines["right"].set_visible(False)
    caption = f"{metric} minus the baseline's: a dot per seed, mean and 95 % interval (number of seeds)"
    figure.supxlabel(caption, fontsize=9)
    save_figure(figure, axes, path)


def _lines(rows: list[Row]) -> list[tuple[str, Row | None]]:
    """The lines of the picture: rows with their labels, and a heading, without a row, where a group begins."""
    lines: list[tuple[str, Row | None]] = []
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            lines.append((group, None))
        lines.append((row.label, row))
    return lines


def _with_number(row: Row, metric: str) -> str:
    return f"{_figure(row.estimate(metric))} ({len(row.seeds(metric))})"


def _limits(differences: list[list[float]]) -> tuple[float, float]:
    """Limits for all dots and zero, with a margin for most intervals; those of two seeds may be ten times as wide."""
    every = [0.0, *(value for values in differences for value in values)]
    margin = max(0.3 * (max(every) - min(every)), math.ulp(1.0))
    return min(every) - margin, max(every) + margin


def _row(path: Path, entry: Any, metrics: list[str], group: str) -> Row:
    _check_keys(f"{path}: rows", entry, ROW_KEYS, OPTIONAL)
    where = f"{path}: row {entry['label']!r}"
    row = Row(str(entry.get("group", group)), str(entry["label"]), *({m: {} for m in metrics} for _ in range(2)))
    for folders in _pairs(where, entry["baseline"], entry["model"]):
        baseline, model = (_values(path.parent / folder, metrics) for folder in folders)
        for metric in metrics:
            common = baseline[metric].keys() & model[metric].keys()
            if twice := sorted(common & row.baseline[metric].keys()):
                raise ValueError(f"{where}: the seeds {twice} are in several pairs of folders; leave one out.")
            for joined, values in ((row.baseline, baseline), (row.model, model)):
                joined[metric].update({seed: values[metric][seed] for seed in common})
    if not row.seeds(metrics[0]):
        raise ValueError(
            f"{where}: {entry['baseline']} and {entry['model']} have no seed in common that has {metrics[0]}."
        )
    return row


def _pairs(where: str, baseline: Any, model: Any) -> list[tuple[str, str]]:
    """The folders to compare with each other; both may be lists."""
    lists = [value if isinstance(value, list) else [value] for value in (baseline, model)]
    if len(lists[0]) != len(lists[1]) or not all(isinstance(folder, str) for of in lists for folder in of):
        raise ValueError(f"{where}: baseline {baseline!r} and model {model!r} must be folders, or lists of as many.")
    return list(zip(*lists, strict=True))


def _values(folder: Path, metrics: list[str]) -> dict[str, dict[int, float]]:
    """{metric: {seed: value}} of the results in a folder."""
    results = [result for file in sorted(folder.glob("seed*.json")) if (result := read_json(file))]
    if not results:
        raise FileNotFoundError(f"{folder}: no result of tools/run_experiment.py (seed0.json or the like).")
    seeds = [result.get("seed") for result in results]
    if None in seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"{folder}: its results have the seeds {seeds}; keep one file per seed, with a seed in it.")
    found = {metric: {result["seed"]: metric_of(result, metric) for result in results} for metric in metrics}
    return {metric: {seed: v for seed, v in values.items() if v is not None} for metric, values in found.items()}


def _check_keys(where: str, entry: Any, keys: set[str], optional: set[str] = frozenset()) -> None:
    if not isinstance(entry, dict) or set(entry) - optional != keys:
        also = f", and {sorted(optional)} if you like" if optional else ""
        raise ValueError(f"{where}: {entry!r} must be a table with the keys {sorted(keys)}{also}.")


def _figure(figures: Estimate) -> str:
    if not figures.n:
        return ""
    interval = f" [{figures.low:+.2f}, {figures.high:+.2f}]" if figures.n > 1 else ""
    return f"{figures.mean:+.2f}{interval}"
