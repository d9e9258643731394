"""Pictures of a plan: one dot per seed with mean and interval for every variant, and metrics along an axis."""

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgr_d2.visualization.plain_text import plain

from .plan import Profile, Sweep
from .statistics import estimate
from .summary import MARK, Collected

# Okabe and Ito's colours, and four more: one per seed.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
COLORS += ("#8C6D00", "#5E3C99", "#000000", "#999999")
DARK, LIGHT = "#333333", "#bbbbbb"


def draw(collected: Collected, folder: Path) -> list[str]:
    """Draw all pictures with results into ``folder``; returns the names of the files."""
    plan = collected.plan
    names = []
    if any(collected.values(variant, plan.metrics[0]) for variant in plan.variants):
        names.append(f"{plan.metrics[0].replace('/', '_')}.png")
        draw_dots(collected, plan.metrics[0], folder / names[-1])
    for sweep in plan.sweeps:
        variants = [collected.variant(name) for points in sweep.series.values() for name in points]
        if any(collected.values(variant, plan.metrics[0]) for variant in variants):
            names.append(f"sweep_{sweep.name}.png")
            draw_sweep(collected, sweep, plan.metrics[0], folder / names[-1])
    for profile in plan.profiles:
        if lines_of(collected, profile):
            names.append(f"profile_{profile.name}.png")
            draw_profile(collected, profile, folder / names[-1])
    return names


def draw_dots(collected: Collected, metric: str, path: Path) -> None:
    """One line for each variant that was started, from the top in the order of the plan."""
    variants = collected.begun()
    figure = Figure(figsize=(8, 1.2 + 0.34 * len(variants)), dpi=110, layout="constrained")
    axes = figure.subplots()
    colors = seed_colors(collected)
    for row, variant in enumerate(variants):
        values = collected.values(variant, metric)
        for seed, value in values.items():
            axes.plot(value, row - 0.14, "o", color=colors[seed], markersize=5, alpha=0.9)
        if values:
            draw_mean_and_interval(axes, row + 0.14, list(values.values()))
        else:
            axes.text(0.5, row, "missing", transform=axes.get_yaxis_transform(), ha="center", va="center", color=LIGHT)
    base = collected.values(collected.variant(collected.plan.baseline), metric)
    if base:
        axes.axvline(estimate(list(base.values())).mean, color=LIGHT, linestyle="--", linewidth=1, zorder=0)
    others = collected.other_seeds()
    names = [f"{plain(v.name)}{f' {MARK}' if v.name in others else ''}" for v in variants]
    axes.set_yticks(range(len(variants)), names, fontsize=9)
    axes.set_ylim(len(variants) - 0.4, -0.6)
    meaning = "a dot per seed; line: mean and 95 % interval, cut at the edge"
    if base:
        meaning += f"; dashed: {collected.plan.baseline}" + (f"; {MARK}: other seeds than its" if others else "")
    figure.supxlabel(f"{metric}: {meaning}", fontsize=9)
    _keep_in_view(axes, [v for variant in variants for v in collected.values(variant, metric).values()])
    _legend(axes, colors)
    save_figure(figure, axes, path)


def draw_sweep(collected: Collected, sweep: Sweep, metric: str, path: Path) -> None:
    """The metric against the number of the sweep: one dot per seed, a line through the means; dashed: the baseline."""
    figure = Figure(figsize=(6, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    for color, (name, points) in zip(cycle(COLORS), sweep.series.items(), strict=False):
        _draw_line(axes, [(x, _values(collected, variant, metric)) for variant, x in points.items()], color, name)
    base = _values(collected, collected.plan.baseline, metric)
    if base and len(sweep.series) == 1:
        mean = estimate(base).mean
        axes.axhline(mean, color=LIGHT, linestyle="--", linewidth=1, zorder=0, label=collected.plan.baseline)
    if sweep.log and sweep.places[0] > 0:
        axes.set_xscale("log")
    axes.set(xlabel=sweep.label, ylabel=metric)
    _finish_lines(axes, sweep.places)
    save_figure(figure, axes, path)


def draw_profile(collected: Collected, profile: Profile, path: Path) -> None:
    """Several metrics along an axis, for each variant with results one dot per seed and a line through the means."""
    lines = lines_of(collected, profile)
    figure = Figure(figsize=(8, max(3.6, 0.6 + 0.2 * len(lines))), dpi=110, layout="constrained")
    axes = figure.subplots()
    for color, (variant, name) in zip(cycle(COLORS), lines.items(), strict=False):
        points = [(x, _values(collected, variant, metric)) for metric, x in profile.metrics.items()]
        _draw_line(axes, points, color, name)
    axes.set(xlabel=profile.label, ylabel=profile.value)
    _set_places(axes, sorted(profile.metrics.values()))
    figure.legend(frameon=False, fontsize=8, loc="outside right center")
    save_figure(figure, axes, path)


def lines_of(collected: Collected, profile: Profile) -> dict[str, str]:
    """{variant: its name in the picture} for the variants that have a value."""
    return {
        variant: name
        for variant, name in profile.variants.items()
        if any(_values(collected, variant, metric) for metric in profile.metrics)
    }


def _values(collected: Collected, variant: str, metric: str) -> list[float]:
    return list(collected.values(collected.variant(variant), metric).values())


def _draw_line(axes: Axes, points: list[tuple[float, list[float]]], color: str, name: str) -> None:
    """``points`` are (x, one value per seed); points without values are left out."""
    for x, values in points:
        axes.plot([x] * len(values), values, "o", color=color, markersize=4, alpha=0.5)
    means = sorted((x, estimate(values).mean) for x, values in points if values)
    label = name if means else f"{name}: missing"
    axes.plot([x for x, _ in means], [mean for _, mean in means], color=color, linewidth=1.6, label=label)


def _set_places(axes: Axes, places: list[float]) -> None:
    axes.set_xticks(places, [f"{x:g}" for x in places])
    axes.minorticks_off()


def _finish_lines(axes: Axes, places: list[float]) -> None:
    _set_places(axes, places)
    axes.legend(frameon=False, fontsize=8, loc="best")


def seed_colors(collected: Collected) -> dict[int, str]:
    """{seed: colour} over all planned seeds."""
    seeds = sorted({run.seed for run in collected.plan.runs()})
    return {seed: COLORS[place % len(COLORS)] for place, seed in enumerate(seeds)}


def draw_mean_and_interval(axes: Axes, row: float, values: list[float]) -> None:
    figure = estimate(values)
    if figure.n > 1:
        axes.plot([figure.low, figure.high], [row, row], color=DARK, linewidth=1.3)
    axes.plot(figure.mean, row, "|", color=DARK, markersize=9, markeredgewidth=2)


def _keep_in_view(axes: Axes, values: Sequence[float]) -> None:
    """Show all dots; an interval of two seeds may be ten times as wide and is truncated at the edge."""
    if values:
        margin = max(0.6 * (max(values) - min(values)), 1e-3 * abs(max(values)), math.ulp(1.0))
        axes.set_xlim(min(values) - margin, max(values) + margin)


def _legend(axes: Axes, colors: dict[int, str]) -> None:
    handles = [axes.plot([], [], "o", color=color, markersize=5, label=f"seed {s}")[0] for s, color in colors.items()]
    axes.legend(handles=handles, frameon=False, fontsize=8, loc="best")


def save_figure(figure: Figure, axes: Axes, path: Path) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
