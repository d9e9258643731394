"""IoU per class: a table of means and paired differences, and a plot of the differences."""

from pathlib import Path

from experiments.outcome import measured
from experiments.plots import COLORS, DARK, LIGHT
from experiments.statistics import Estimate, estimate, paired_difference
from experiments.summary import MISSING, Collected, grid, interval, spread
from matplotlib.figure import Figure

from sgr_d2.visualization.fonts import fonts_for
from sgr_d2.visualization.plain_text import plain

from .grouping import data_sets

PREFIX = "sem_seg/IoU-"
# Of a class that the labels of an evaluation do not have, so that it has no IoU.
NO_LABELS = "no labels"


def class_metrics(collected: Collected, data_set: str) -> dict[str, str]:
    """{class: metric} of a data set, in the order of the classes; empty if no run has such metrics."""
    for result in collected.results.values():
        names = result["metrics"].get(data_set, {}).get("sem_seg", {})
        found = [name.removeprefix("IoU-") for name in names if name.startswith("IoU-")]
        if found:
            return {name: f"{data_set}/{PREFIX}{name}" for name in found}
    return {}


def class_tables(collected: Collected) -> str:
    """Markdown: one IoU table per data set, with columns of means and of differences for every variant."""
    parts = []
    for data_set in data_sets(collected.results):
        metrics = class_metrics(collected, data_set)
        if metrics:
            parts += [f"## IoU by class, {data_set}", _table(collected, metrics)]
    return "\n\n".join(parts)


def _table(collected: Collected, metrics: dict[str, str]) -> str:
    plan = collected.plan
    base, others = plan.variants[0], plan.variants[1:]
    headers = ["class", *(v.name for v in plan.variants), *(f"{v.name} minus {base.name}" for v in others)]
    runs = [{run.name: collected.results.get(run.name) for run in variant.runs} for variant in plan.variants]
    named = [measured({name: result for name, result in each.items() if result}) for each in runs]
    rows = []
    for name, metric in metrics.items():
        values = [collected.values(variant, metric) for variant in plan.variants]
        means = [estimate(list(each.values())) for each in values]
        differences = [paired_difference(each, values[0]) for each in values[1:]]
        none = [NO_LABELS if metric in each else MISSING for each in named]
        cells = [spread(figure) if figure.n else text for figure, text in zip(means, none, strict=True)]
        pairs = [NO_LABELS if cell == cells[0] == NO_LABELS else MISSING for cell in cells[1:]]
        cells += [interval(figure) if figure.n else text for figure, text in zip(differences, pairs, strict=True)]
        rows.append([f"`{name}`", *cells])
    return grid(headers, rows)


def draw_classes(collected: Collected, data_set: str, path: Path) -> bool:
    """Draw IoU differences to the first variant, one line per class, with intervals; False if there are no pairs."""
    metrics = class_metrics(collected, data_set)
    figures = class_differences(collected, metrics)
    if not figures:
        return False
    base = collected.plan.variants[0].name
    with fonts_for(*metrics, *figures, base):
        _figure(list(metrics), figures, base).savefig(path)
    return True


def _figure(classes: list[str], figures: dict[str, list[Estimate]], base: str) -> Figure:
    height = 1.2 + len(classes) * (0.14 + 0.14 * len(figures))
    figure = Figure(figsize=(8, min(height, 60)), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=LIGHT, linewidth=1, zorder=0)
    for place, (name, each) in enumerate(figures.items()):
        offset = (place - (len(figures) - 1) / 2) * 0.5 / len(figures)
        color = COLORS[place % len(COLORS)]
        _draw_differences(axes, each, offset, color)
        axes.plot([], [], "o", color=color, markersize=5, label=plain(name))
    axes.set_yticks(range(len(classes)), [*map(plain, classes)], fontsize=9)
    axes.set_ylim(len(classes) - 0.4, -0.6)
    edge = max(abs(f.mean) for each in figures.values() for f in each if f.n) * 1.8 or 1.0
    axes.set_xlim(-edge, edge)
    axes.set_xlabel(
        f"IoU minus that of {plain(base)}, paired by seed; line: 95 % interval, cut at the edge", fontsize=9
    )
    axes.legend(frameon=False, fontsize=8, loc="best")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def class_differences(collected: Collected, metrics: dict[str, str]) -> dict[str, list[Estimate]]:
    """{variant: differences to the first variant, one per class}, without variants that share no seed with it."""
    base, *others = collected.plan.variants
    figures = {
        variant.name: [
            paired_difference(collected.values(variant, metric), collected.values(base, metric))
            for metric in metrics.values()
        ]
        for variant in others
    }
    return {name: each for name, each in figures.items() if any(figure.n for figure in each)}


def _draw_differences(axes, figures: list[Estimate], offset: float, color: str) -> None:
    for row, figure in enumerate(figures):
        if figure.n > 1:
            axes.plot([figure.low, figure.high], [row + offset] * 2, color=color, linewidth=1.2, alpha=0.7)
        if figure.n:
            axes.plot(figure.mean, row + offset, "o", color=color, markersize=5, markeredgecolor=DARK)
