"""Results of an evaluation as a JSON file and as a text table."""

import math
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tabulate import tabulate

from sgr_d2.evaluation.error_kinds import ERROR_KINDS
from sgr_d2.evaluation.token_semantics import TOKEN_FIGURES
from sgr_d2.files import write_json

_SUMMARY = ("mIoU", "fwIoU", "mACC", "pACC")
_CITYSCAPES = ("IoU", "iIoU", "IoU_sup", "iIoU_sup")
_WITH_TABLE = ("sem_seg", "cityscapes", "token_semantics", "error_kinds")
_CLASSES_PER_ROW = 3

Results = Mapping[str, Mapping[str, float]]


def metrics_path(output_dir: str | os.PathLike, dataset_name: str) -> Path:
    """The file for the metrics of a data set: ``<output_dir>/evaluation/<dataset_name>/metrics.json``."""
    return Path(output_dir) / "evaluation" / dataset_name / "metrics.json"


def write_metrics(results: Results, path: str | os.PathLike) -> None:
    """Write ``{task: {metric: number}}`` as JSON, NaN as null; creates folders, and replaces the file atomically.

    Raises:
        ValueError: if a metric is infinite or not a number.
    """
    tasks = {
        task: {name: _json_number(f"{task}/{name}", value) for name, value in metrics.items()}
        for task, metrics in results.items()
    }
    write_json(tasks, Path(path), indent=2, allow_nan=False)


def format_table(results: Results, class_names: Sequence[str]) -> str:
    """Return the results as text: segmentation summary, token semantics, IoU and errors per class, other metrics.

    Args:
        results: of the evaluators: "sem_seg" and "cityscapes" in percent, "token_semantics" in nats; any may be absent.
        class_names: the classes, in the order of the table.
    """
    parts = []
    sem_seg = results.get("sem_seg")
    tokens = results.get("token_semantics")
    if sem_seg:
        parts.append(_summary_table(sem_seg))
    if official := results.get("cityscapes"):
        row = ["official", *(number_text(official, name, 2) for name in _CITYSCAPES)]
        parts.append(tabulate([row], headers=["cityscapes", *_CITYSCAPES], **_STYLE))
    if tokens:
        parts.append(_token_table(tokens))
    if sem_seg:
        parts.append(_class_table(sem_seg, class_names))
    if errors := results.get("error_kinds"):
        parts.append(_error_table(errors, class_names))
    if others := {task: metrics for task, metrics in results.items() if task not in _WITH_TABLE and metrics}:
        parts.append(_table_of_others(others))
    return "\n\n".join(parts)


_STYLE: dict[str, Any] = {"tablefmt": "pipe", "stralign": "right", "disable_numparse": True}


def _summary_table(sem_seg: Mapping[str, float]) -> str:
    figures = {name: number_text(sem_seg, name, 2) for name in _SUMMARY}
    if "num_images" in sem_seg:
        figures["images"] = str(sem_seg["num_images"])
    return tabulate([list(figures.values())], headers=list(figures), **_STYLE)


def _token_table(tokens: Mapping[str, float]) -> str:
    rows = [
        [name, number_text(tokens, name, 4), number_text(tokens, f"{name}_normalized", 4)] for name in TOKEN_FIGURES
    ]
    rows += [[name, number_text(tokens, name, 4), ""] for name in ("active_rate", "overlap")]
    return tabulate(rows, headers=["tokens", "nats", "normalized"], **_STYLE)


def _class_table(sem_seg: Mapping[str, float], class_names: Sequence[str]) -> str:
    columns = min(_CLASSES_PER_ROW, len(class_names))
    entries = [[name, number_text(sem_seg, f"IoU-{name}", 2)] for name in class_names]
    rows = [list(chain(*entries[first : first + columns])) for first in range(0, len(entries), max(1, columns))]
    return tabulate(rows, headers=["class", "IoU"] * columns, **_STYLE)


def _error_table(errors: Mapping[str, float], class_names: Sequence[str]) -> str:
    rows = [[name, *(number_text(errors, f"{kind}-{name}", 2) for kind in ERROR_KINDS)] for name in class_names]
    rows.append(["mean", *(number_text(errors, kind, 2) for kind in ERROR_KINDS)])
    rows.append(["% of pixels", *(number_text(errors, f"pixels-{kind}", 2) for kind in ERROR_KINDS)])
    return tabulate(rows, headers=["IoU lost by", *ERROR_KINDS], **_STYLE)


def _table_of_others(results: Results) -> str:
    rows = [[f"{task}/{name}", _plain(metrics, name)] for task, metrics in results.items() for name in metrics]
    return tabulate(rows, headers=["metric", "value"], **_STYLE)


def _plain(metrics: Mapping[str, float], name: str) -> str:
    return str(metrics[name]) if isinstance(metrics[name], int) else number_text(metrics, name, 4)


def number_text(metrics: Mapping[str, float], name: str, digits: int) -> str:
    """The figure ``name`` with ``digits`` decimals; "n/a" if it is absent or undefined."""
    value = metrics.get(name, math.nan)
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"


def _json_number(name: str, value: Any) -> float | int | None:
    if isinstance(value, int):
        return value
    number = float(value)
    if math.isinf(number):
        raise ValueError(f"metric {name} is {number}; a metric must be finite, or NaN if it is undefined")
    return None if math.isnan(number) else number
