"""Results as JSON, and as Markdown made from it."""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from sgr_d2.collect_env import cpu_model

from .measure import Ratio
from .settings import Settings


@dataclass
class Report:
    """The results of a benchmark.

    Attributes:
        what: input, sizes and baseline in a sentence or two.
        rows: the table, one dict per row, all with the same keys.
        ratios: {name: Ratio}.
    """

    what: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    ratios: dict[str, Ratio] = field(default_factory=dict)


def describe_machine(settings: Settings) -> dict[str, Any]:
    """Processor, cores, versions, threads, device, and how busy the machine was."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if settings.device == "cuda" else "cpu",
        "precision": settings.amp or f"float32, products {torch.get_float32_matmul_precision()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": None if load is None else round(load, 2),
    }


def to_json(machine: Mapping[str, Any], settings: Settings, reports: Mapping[str, Report]) -> dict[str, Any]:
    """Everything as plain data; ``ratios`` maps a name to a number."""
    ratios = {name: ratio for report in reports.values() for name, ratio in report.ratios.items()}
    clock = "processor time" if settings.cpu_time else "elapsed time"
    return {
        "machine": dict(machine) | {"clock": clock, "rounds": settings.rounds, "quick": settings.quick},
        "results": {name: {"what": r.what, "rows": r.rows, "ratios": list(r.ratios)} for name, r in reports.items()},
        "ratios": {name: ratio.value for name, ratio in ratios.items()},
        "quartiles": {name: [ratio.low, ratio.high] for name, ratio in ratios.items()},
        "limits": {name: ratio.limit for name, ratio in ratios.items() if ratio.limit},
    }


def refuse_other_results(path: Path, names: Iterable[str]) -> None:
    """Raise FileExistsError if ``path`` has results of other benchmarks than ``names``, which would be lost."""
    if not path.is_file():
        return
    others = sorted(set(read_json(path, "--json")["results"]) - set(names))
    if others:
        raise FileExistsError(f"--json {path}: holds results of {', '.join(others)}. Give another file, or delete it.")


def read_json(path: Path, option: str = "--table") -> dict[str, Any]:
    """Read the file of --json.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, or it is of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{option} {path}: no such file. A run with --json FILE writes one.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{option} {path}: not a JSON file ({error}).") from error
    missing = {"machine", "results", "ratios"} - set(data if isinstance(data, dict) else ())
    if missing:
        raise ValueError(f"{option} {path}: lacks {', '.join(sorted(missing))}; give a file that --json wrote.")
    return data


def to_markdown(data: Mapping[str, Any]) -> str:
    """Tables for the result of `to_json`: a line on the machine, then the rows and ratios of each benchmark."""
    machine = ", ".join(f"{key} {value}" for key, value in data["machine"].items() if value is not None)
    parts = [f"Machine: {machine}."]
    for name, result in data["results"].items():
        parts.append(f"### {name}\n\n{result['what']}")
        rows = [{key: _text(value) for key, value in row.items()} for row in result["rows"]]
        parts.append(tabulate(rows, headers="keys", **_STYLE))
        parts.append(tabulate([_ratio_row(data, ratio) for ratio in result["ratios"]], headers="keys", **_STYLE))
    return "\n\n".join(parts)


_STYLE: dict[str, Any] = {"tablefmt": "github", "disable_numparse": True}


def _ratio_row(data: Mapping[str, Any], name: str) -> dict[str, str]:
    low, high = data.get("quartiles", {}).get(name, [data["ratios"][name]] * 2)
    ratio = Ratio(data["ratios"][name], low, high, data.get("limits", {}).get(name, ""))
    met = {True: "yes", False: "no", None: ""}[ratio.is_met()]
    spread = f"{low:.3f} to {high:.3f}" if low != high else ""
    return {"ratio": f"`{name}`", "value": f"{ratio.value:.3f}", "quartiles": spread, "asked": ratio.limit, "met": met}


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
