"""Carries out a plan in several processes with a progress bar, writing only what is not there yet."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgr_d2.data.file_map import map_files
from sgr_d2.data.prepare.files import place_copy, remove_leftovers, write_label_png
from sgr_d2.data.prepare.plan import IGNORE_LABEL, LabelRule, LabelTask, Plan, Split
from sgr_d2.data.prepare.summary import SplitReport
from sgr_d2.data.reading import read_image, read_values

# What can happen to a file. What comes later here is told, if a label map and its image differ in it.
_STATES = ("kept", "written", "repaired", "replaced")


class Outcome(NamedTuple):
    """The outcome for one label map and its image.

    Attributes:
        state: "written", "kept" (identical files existed), "repaired" (a broken one did), "replaced" (another one did)
            or "failed".
        message: why it failed.
        pixels: (256,) number of pixels of each label; None if it failed.
    """

    state: str
    message: str = ""
    pixels: np.ndarray | None = None


def carry_out(plan: Plan, *, num_workers: int = 1, overwrite: bool = False, progress: bool = True) -> list[SplitReport]:
    """Convert every label map of ``plan``; a file that cannot be converted is reported without stopping the others.

    Args:
        plan: what to do.
        num_workers: number of processes; 1 to work in the calling one.
        overwrite: replace targets that differ from the result of their source, which are failures otherwise.
        progress: draw a progress bar on stderr.

    Returns:
        One report per split.
    """
    reports = []
    for split in plan.splits:
        for folder in _target_folders(split):
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
        step = partial(convert, rule=plan.rule, overwrite=overwrite)
        report = SplitReport(
            split.name, split.published, plan.rule.num_classes, list(split.problems), left_out=split.left_out
        )
        for outcome in map_files(step, split.tasks, num_workers=num_workers, title=split.name, progress=progress):
            report.add(outcome.state, outcome.message, outcome.pixels)
        reports.append(report)
    return reports


def _target_folders(split: Split) -> set[Path]:
    targets = (path for task in split.tasks for path in (task.target, task.image_target))
    return {path.parent for path in targets if path is not None}


def convert(task: LabelTask, *, rule: LabelRule, overwrite: bool = False) -> Outcome:
    """Convert one label map; an existing target is verified pixel by pixel."""
    try:
        labels = rule.labels_of(task.source)
        height, width = read_image(task.image).shape[:2]  # decoded: the header of a truncated file may be intact
        if labels.shape != (height, width):
            raise ValueError(
                f"{task.source}: the label map has {labels.shape[1]}x{labels.shape[0]} pixels (width x height), its "
                f"image {task.image} {width}x{height}."
            )
        copied = "kept"
        if task.image_target is not None:
            copied = place_copy(task.image, task.image_target, overwrite=overwrite)
        state = _state_of(task.target, labels, overwrite)
        if state != "kept":
            write_label_png(labels, task.target)
        pixels = np.bincount(labels.ravel(), minlength=IGNORE_LABEL + 1)
        return Outcome(max(state, copied, key=_STATES.index), pixels=pixels)
    except Exception as error:  # readers of damaged files may raise anything; the run continues and lists it
        text = str(error) or type(error).__name__
        return Outcome("failed", text if str(task.source) in text else f"{task.source}: {text}")


def _state_of(target: Path, labels: np.ndarray, overwrite: bool) -> str:
    if not target.exists():
        return "written"
    try:
        present = read_values(target)
    except ValueError:
        return "repaired"
    if np.array_equal(present, labels):
        return "kept"
    if overwrite:
        return "replaced"
    raise ValueError(f"{target}: exists and {_difference(present, labels)}. --overwrite replaces such files.")


def _difference(present: np.ndarray, labels: np.ndarray) -> str:
    if present.shape != labels.shape:
        return f"has {present.shape[1]}x{present.shape[0]} pixels instead of {labels.shape[1]}x{labels.shape[0]}"
    if np.array_equal(present, labels.astype(np.uint8) + np.uint8(1)):
        return "is one too high everywhere: 0 for 'not labelled' was never removed"
    share = 100 * np.mean(present != labels)
    return f"differs from the result of its source in {share:.3g} % of the pixels"
