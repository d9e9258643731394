"""The cost of SGR and its losses against the number of tokens, components and pixels."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from detectron2.layers import ShapeSpec
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

from sgr_d2.modeling import SGR, SGRCriterion

from .measure import Ratio, loglog_slope, median, mib, peak_bytes, time_runs
from .report import Report
from .settings import Settings

BATCH, CHANNELS = 2, 96
STRIDES = {"p3": 8, "p4": 16, "p5": 32}
COLOR, LINE_COLOR = "#0072B2", "#999999"


class Point(NamedTuple):
    """K tokens, L components per image, image size in pixels."""

    tokens: int
    components: int
    height: int
    width: int

    @property
    def cells(self) -> int:
        """Cells of the token grid."""
        return (self.height // STRIDES["p3"]) * (self.width // STRIDES["p3"])


# {what varies: (axis title, attribute of a point, points)}.
SWEEPS = {
    "K": ("tokens K", "tokens", [Point(k, 16, 256, 320) for k in (16, 32, 64, 128, 256, 512)]),
    "L": ("components L", "components", [Point(512, c, 256, 320) for c in (1, 10, 25, 50, 100, 200, 300, 400, 500)]),
    "pixels": (
        "cells of the token grid",
        "cells",
        [Point(64, 32, h, w) for h, w in ((96, 128), (128, 192), (192, 256), (256, 352), (384, 512), (512, 704))],
    ),
}
QUICK_SWEEPS = {
    "K": (*SWEEPS["K"][:2], [Point(k, 4, 64, 64) for k in (4, 8, 16)]),
    "L": (*SWEEPS["L"][:2], [Point(16, c, 64, 64) for c in (1, 4, 16)]),
    "pixels": (*SWEEPS["pixels"][:2], [Point(4, 4, side, side) for side in (32, 64, 96)]),
}


def benchmark_sweep(settings: Settings) -> Report:
    """cost of SGR, its losses and their backward pass against tokens K, components L and pixels; --plot draws it"""
    report = Report(
        f"SGR (D = 128, 2 encoder layers) and both losses, forward and backward, on {BATCH} images of random features "
        f"with {CHANNELS} channels at strides 8, 16 and 32; components are Voronoi cells. `slope_*` is the exponent p "
        "of cost ~ x^p over the upper half of the points: 1 is linear, below 1 a fixed part still counts. Time: "
        "slope of the medians, quartiles over the rounds. R2 is that of the straight line through all points."
    )
    curves = {}
    for name, (title, attribute, points) in (QUICK_SWEEPS if settings.quick else SWEEPS).items():
        steps = {point: Step(point, settings.device) for point in points}
        times = time_runs(steps, 8, settings)
        peaks = [step.peak_bytes() for step in steps.values()]
        x = [getattr(point, attribute) for point in points]
        medians = [median(times[point]) for point in points]
        report.rows += [_row(name, *row) for row in zip(points, medians, peaks, strict=True)]
        report.ratios |= _slopes(name, x, np.stack([times[point] for point in points]), peaks)
        curves[title] = (x, medians)
    if settings.plot is not None:
        plot_curves(curves, settings.plot)
    return report


class Step:
    """SGR and its criterion at one point of a sweep; a call makes a forward and a backward pass."""

    def __init__(self, point: Point, device: str):
        generator = torch.Generator().manual_seed(0)
        shapes = {name: ShapeSpec(channels=CHANNELS, stride=stride) for name, stride in STRIDES.items()}
        torch.manual_seed(0)
        self.sgr = SGR(input_shape=shapes, num_tokens=point.tokens).to(device, memory_format=torch.channels_last)
        self.criterion = SGRCriterion()
        self.features = {
            name: torch.randn(BATCH, CHANNELS, point.height // stride, point.width // stride, generator=generator)
            .to(device, memory_format=torch.channels_last)
            .requires_grad_()
            for name, stride in STRIDES.items()
        }
        self.sizes = torch.tensor([[point.height, point.width]] * BATCH, device=device)
        maps = [voronoi_map(seed, point.components, point.height, point.width) for seed in range(BATCH)]
        self.components = torch.from_numpy(np.stack(maps)).to(device)
        self.classes = [torch.zeros(point.components, dtype=torch.int64)] * BATCH
        self.device = device

    def __call__(self, _: int) -> None:
        self.clear()
        output = self.sgr(self.features, self.sizes)
        losses = self.criterion(output, self.components, self.classes)
        refined = sum(output.features[name].mean() for name in STRIDES)
        (sum(losses.values()) + refined).backward()

    def clear(self) -> None:
        """Delete the gradients of the last call."""
        for tensor in (*self.sgr.parameters(), *self.features.values()):
            tensor.grad = None

    def peak_bytes(self) -> int:
        """The maximum number of live bytes during a call, beyond parameters and features."""
        self.clear()
        return peak_bytes(lambda: self(0), self.device)


def voronoi_map(seed: int, count: int, height: int, width: int) -> np.ndarray:
    """(height, width) int32 ids 1..count of the nearest of ``count`` distinct random pixels, largest area first."""
    rng = np.random.default_rng(seed)
    sites = np.stack(np.divmod(rng.choice(height * width, count, replace=False), width), axis=1)
    pixels = np.stack(np.mgrid[:height, :width], axis=-1).reshape(-1, 2)
    owner = cKDTree(sites).query(pixels)[1]
    rank = np.empty(count, np.int32)
    rank[np.argsort(-np.bincount(owner, minlength=count))] = np.arange(1, count + 1)
    return rank[owner].reshape(height, width)


def _row(name: str, point: Point, ms: float, peak: int) -> dict:
    return {
        "varied": name,
        "K": point.tokens,
        "L": point.components,
        "cells": point.cells,
        "ms": ms,
        "peak MiB": mib(peak),
    }


def _slopes(name: str, x: Sequence[int], times: np.ndarray, peaks: Sequence[int]) -> dict[str, Ratio]:
    """``times`` is (points, rounds)."""
    medians = np.median(times, axis=1)
    low, high = np.percentile([loglog_slope(x, column) for column in times.T], (25, 75))
    memory = loglog_slope(x, peaks)
    line = np.polyval(np.polyfit(x, medians, 1), x)
    r2 = 1 - float(np.square(medians - line).sum() / np.square(medians - medians.mean()).sum())
    return {
        f"slope_{name}": Ratio(loglog_slope(x, medians), float(low), float(high)),
        f"slope_{name}_memory": Ratio(memory, memory, memory),
        f"line_{name}_r2": Ratio(r2, r2, r2),
    }


def plot_curves(curves: dict[str, tuple[Sequence[int], Sequence[float]]], path: Path) -> None:
    """Draw the measured times and a straight line through them, one panel per sweep."""
    figure = Figure(figsize=(11, 3.4), dpi=110, layout="constrained")
    for axes, (title, (x, ms)) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        ends = np.array([0, max(x)])
        axes.plot(ends, np.polyval(np.polyfit(x, ms, 1), ends), color=LINE_COLOR, label="least-squares line")
        axes.plot(x, ms, "o", color=COLOR, label="measured")
        axes.set(xlabel=title, ylabel="ms, forward and backward", xlim=(0, None), ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
