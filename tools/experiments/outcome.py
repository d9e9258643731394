"""The result of a finished run: metrics, costs and machine, gathered from the files of the training."""

import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

import sgr_d2
from sgr_d2.collect_env import cpu_model
from sgr_d2.engine.checkpoint.safe_unpickle import load_torch
from sgr_d2.modeling.peers import PEER_LOSS
from sgr_d2.modeling.sgr.criterion import SGR_LOSSES
from sgr_d2.visualization.curves import read_rows

from .plan import ROOT, Run
from .resolved import hash_of

AUXILIARY_LOSSES = (*SGR_LOSSES, PEER_LOSS)
BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "relative_position_index", "attn_mask")
BUFFERS += tuple(f"{kind}.{name}" for kind in ("region_predictor", "places") for name in ("centres", "radii"))


def gather(run: Run, output: Path, progress: dict[str, Any], metrics: list[str]) -> dict[str, Any]:
    """Gather the result of a run.

    Args:
        run: the finished run.
        output: its OUTPUT_DIR.
        progress: its ``run.json``; "seconds" and "peak_memory_mib" may be None, "environment" empty.
        metrics: of the plan; the first one is used for the curve.

    Raises:
        FileNotFoundError: if the training ended without an evaluation.
        ValueError: if its checkpoint cannot be read.
    """
    rows = training_rows(output)
    steps = [row["time"] for row in rows if "time" in row]
    return {
        "variant": run.variant,
        "seed": run.seed,
        "config_file": _below_root(run.config),
        "opts": run.opts,
        "config_hash": hash_of(progress["config"]),
        "metrics": read_metrics(output),
        "curve": _curve(rows, metrics[0]),
        "head_loss": _head_loss(rows),
        "seconds": None if progress["seconds"] is None else round(progress["seconds"], 1),
        "seconds_per_step": round(median(steps), 4) if steps else None,
        "peak_memory_mib": progress["peak_memory_mib"],
        "gpu_memory_mib": _gpu_memory(output / "log.txt"),
        "parameters": _parameters(output / "model_final.pth"),
        "attempts": progress["attempts"],
        "environment": progress["environment"],
        "config": progress["config"],
    }


def read_metrics(output: Path) -> dict[str, Any]:
    """{data set: {task: {metric: number or None}}} of the last evaluation."""
    files = sorted((output / "evaluation").glob("*/metrics.json"))
    if not files:
        raise FileNotFoundError(f"{output / 'evaluation'}: no metrics.json; is DATASETS.TEST empty?")
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in files}


def metric_of(result: dict[str, Any], name: str) -> float | None:
    """A metric "task/name" of the only data set (or the first of several), or "data set/task/name"."""
    *data_set, task, metric = name.split("/", 2) if name.count("/") > 1 else name.split("/")
    every = result["metrics"]
    chosen = every.get(data_set[0], {}) if data_set else next(iter(every.values()), {})
    return chosen.get(task, {}).get(metric)


def measured(results: Mapping[str, dict[str, Any]]) -> set[str]:
    """The metrics that any of the results has, "data set/task/name"."""
    return {
        f"{data_set}/{task}/{name}"
        for result in results.values()
        for data_set, tasks in result["metrics"].items()
        for task, figures in tasks.items()
        for name in figures
    }


def describe_machine(num_gpus: int, threads: int | None, *, gpu: int = 0) -> dict[str, Any]:
    """What a result may depend on, without anything that identifies the machine; ``gpu``: the index of the one used."""
    return {
        "device": torch.cuda.get_device_name(gpu) if num_gpus else cpu_model(),
        "cores": os.cpu_count(),
        "threads": threads,
        # AVX2, AVX512 ...: they change the order of sums, and so the run of a seed
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sgr_d2": sgr_d2.__version__,
        "revision": _revision(),
    }


def _revision() -> str:
    """Short hash of the commit, "-dirty" if files differ from it; "unknown" outside a repository."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


def training_rows(output: Path) -> list[dict[str, Any]]:
    """The lines of Detectron2's metrics.json; those that a killed run left incomplete are skipped."""
    path = output / "metrics.json"
    return read_rows(path)[0] if path.is_file() else []


def _curve(rows: list[dict[str, Any]], metric: str) -> list[list[float]]:
    """[[steps done, value]] of the evaluations during training; for a resumed run the later value of a step is used."""
    # The final evaluation is one iteration after the last step.
    last = max((row["iteration"] for row in rows if "total_loss" in row), default=0)
    found = {min(row["iteration"], last): row[metric] for row in rows if metric in row}
    return [[iteration + 1, value] for iteration, value in sorted(found.items()) if value == value]


def _head_loss(rows: list[dict[str, Any]]) -> float | None:
    """Mean of the head's losses over the last fifth of training. Its differences between runs of one seed, which see
    the same images, have little noise."""
    losses = []
    # for a step that was repeated after an interruption, the later row is used
    by_step = {row["iteration"]: row for row in rows if "total_loss" in row}
    for _, row in sorted(by_step.items()):
        # a model with one loss only logs the total; the log has medians, so the parts do not add up to it
        parts = [value for name, value in row.items() if name.startswith("loss_") and name not in AUXILIARY_LOSSES]
        losses.append(sum(parts) if parts else row["total_loss"])
    last = losses[-max(1, len(losses) // 5) :]
    return round(fmean(last), 5) if last and math.isfinite(fmean(last)) else None


def _gpu_memory(log: Path) -> int | None:
    """The largest "max_mem: 1234M" of the log, in MiB; None on the CPU."""
    if not log.is_file():
        return None
    words = log.read_text(encoding="utf-8", errors="replace").split()
    found = [after.rstrip("M") for word, after in pairwise(words) if word == "max_mem:"]
    return max((int(value) for value in found if value.isdigit()), default=None)


def _parameters(checkpoint: Path) -> int | None:
    """The number of learnt values: the checkpoint without statistics of norms, FrozenBN, and other buffers."""
    if not checkpoint.is_file():
        return None
    try:
        model = load_torch(str(checkpoint), mmap=True)["model"]
    except Exception as error:  # a damaged file raises RuntimeError, UnpicklingError, EOFError, KeyError ...
        raise ValueError(f"{checkpoint}: cannot be read as a checkpoint ({type(error).__name__}).") from error
    norms = {name.removesuffix("running_mean") for name in model if name.endswith("running_mean")}
    frozen = {norm for norm in norms if f"{norm}num_batches_tracked" not in model}
    learnt = (name for name in model if not name.endswith(BUFFERS) and f"{name.rpartition('.')[0]}." not in frozen)
    return sum(model[name].numel() for name in learnt)


def _below_root(path: str) -> str:
    """The path relative to the project, which is the same on every machine."""
    try:
        return Path(path).resolve().relative_to(ROOT).as_posix()
    except ValueError:
        return Path(path).name
