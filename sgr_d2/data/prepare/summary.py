"""Summarises a preparation as text."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from tabulate import tabulate

from sgr_d2.data.prepare.plan import IGNORE_LABEL, Plan


@dataclass
class SplitReport:
    """Counts of one split.

    Attributes:
        name: of the split.
        published: number of label maps in the release.
        num_classes: number of classes.
        failures: one line for each file that is broken or has no partner.
        states: number of label maps by outcome.
        pixels: (256,) number of pixels of each label in all maps.
        left_out: number of label maps left out because a partial release lacks one of their files.
    """

    name: str
    published: int
    num_classes: int
    failures: list[str] = field(default_factory=list)
    states: Counter = field(default_factory=Counter)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(IGNORE_LABEL + 1, np.int64))
    left_out: int = 0

    def add(self, state: str, message: str, pixels: np.ndarray | None) -> None:
        """Add the outcome for one label map."""
        self.states[state] += 1
        if message:
            self.failures.append(message)
        if pixels is not None:
            self.pixels += pixels

    @property
    def num_ready(self) -> int:
        """Number of label maps that are now in place."""
        return self.states.total() - self.states["failed"]

    @property
    def unlabelled(self) -> float:
        """Fraction of the pixels that are not labelled; NaN without a pixel."""
        return self.pixels[IGNORE_LABEL] / self.pixels.sum() if self.pixels.any() else float("nan")


def is_complete(reports: list[SplitReport]) -> bool:
    """Whether every split has as many label maps as its release."""
    return all(report.num_ready == report.published for report in reports)


def format_summary(plan: Plan, reports: list[SplitReport]) -> str:
    """Return a table of the splits, the incomplete splits, and all failures."""
    rows = [
        [
            report.name,
            report.published,
            report.num_ready,
            report.states["written"],
            report.states["repaired"],
            report.states["replaced"],
            report.states["kept"],
            len(report.failures),
            f"{np.count_nonzero(report.pixels[: report.num_classes])} of {report.num_classes}",
            f"{100 * report.unlabelled:.1f} %",
        ]
        for report in reports
    ]
    headers = ["split", "published", "ready", *("written", "repaired", "replaced", "kept", "broken")]
    headers += ["classes", "unlabelled"]
    lines = [f"{plan.title} in {plan.folder}", tabulate(rows, headers=headers)]
    lines += [
        f"{report.name}: {report.num_ready} label maps are ready, the release has {report.published}."
        for report in reports
        if report.num_ready != report.published
    ]
    lines += [
        f"{report.name}: {report.left_out} label maps are left out: not all of their files are there."
        for report in reports
        if report.left_out
    ]
    failures = [failure for report in reports for failure in report.failures]
    if failures:
        lines += [f"{len(failures)} files are broken:", *(f"  {failure}" for failure in failures)]
    return "\n".join(lines)
