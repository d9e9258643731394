"""Reads runs from disk: folders of train_net.py, and results of tools/run_experiment.py."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from experiments.outcome import gather, training_rows
from experiments.plan import Run
from experiments.records import read_json
from experiments.resolved import flat, settings_of

from sgr_d2.config import get_sgr_cfg

TOTAL_TIME = re.compile(r"Total training time: (?:(\d+) days?, )?(\d+):(\d+):(\d+)")
SEED_IN_NAME = re.compile(r"[-_.]?seed[-_]?\d+$")


@dataclass(frozen=True)
class FoundRun:
    """
    Attributes:
        path: the folder, or the file of the result.
        name: suggested name of the run, without its seed.
        seed: SEED of its config.
        settings: {key: value} where it differs from Detectron2's defaults, without SEED; see `evaluation_settings`.
        result: in the format of tools/run_experiment.py; None for a run without metrics.
        problem: why there is no result.
    """

    path: Path
    name: str
    seed: int
    settings: dict[str, Any]
    result: dict[str, Any] | None
    problem: str = ""


def find_runs(paths: Sequence[Path]) -> list[FoundRun]:
    """Find the runs that the paths are or contain, in order and without duplicates.

    Raises:
        FileNotFoundError: if a path does not exist.
        ValueError: if a path contains no run, or a file cannot be read.
    """
    found: dict[Path, FoundRun] = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such folder or file.")
        runs = [_read(place) for place in _places(path)]
        if not runs:
            raise ValueError(
                f"{path}: no run. Name the OUTPUT_DIR of a training (it holds config.yaml), a result of "
                "tools/run_experiment.py (seed0.json), or a folder of these."
            )
        found |= {run.path.resolve(): run for run in runs}
    return list(found.values())


def _places(path: Path) -> Iterator[Path]:
    """The path itself if it is a run, otherwise the runs below it."""
    if path.is_file() or ((path / "config.yaml").is_file() and path.parent.name != "evaluation"):
        yield path
        return
    for below in sorted(path.iterdir()):
        if below.is_dir() or re.fullmatch(r"seed\d+\.json", below.name):
            yield from _places(below)


def _read(path: Path) -> FoundRun:
    return _read_folder(path) if path.is_dir() else _read_result(path)


def _read_result(path: Path) -> FoundRun:
    result = read_json(path)
    missing = sorted({"variant", "seed", "config", "metrics"} - set(result))
    if missing:
        raise ValueError(f"{path}: not a result of tools/run_experiment.py, it lacks {', '.join(missing)}.")
    settings = {key: value for key, value in result["config"].items() if key != "SEED"}
    return FoundRun(path, result["variant"], result["seed"], settings, result)


def _read_folder(path: Path) -> FoundRun:
    config = _read_config(path / "config.yaml")
    seed = config.pop("SEED")
    settings = settings_of(config | evaluation_settings(path, config))
    name = SEED_IN_NAME.sub("", path.resolve().name) or path.resolve().parent.name
    problem = _unfinished(path, config)
    result = None
    if not problem:
        try:
            result = gather(Run(name, seed, path.name, {}), path, _progress(path, settings), ["sem_seg/mIoU"])
        except (FileNotFoundError, ValueError) as error:
            problem = str(error)
    return FoundRun(path, name, seed, settings, result, problem)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = flat(yaml.safe_load(path.read_text(encoding="utf-8")))
        config["SEED"]
    except (yaml.YAMLError, AttributeError, KeyError) as error:
        raise ValueError(f"{path}: not the config of a run ({error!r}).") from error
    return config


def evaluation_settings(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """{"key (data set)": value} where an evaluation (--eval-only) differs from ``config``, that of the training.

    Evaluating another checkpoint than the last one of the run counts as a difference.
    """
    trained, found = flat(get_sgr_cfg()) | dict(config), {}
    for file in sorted((path / "evaluation").glob("*/config.yaml")):
        used = _read_config(file)
        used["MODEL.WEIGHTS"] = _weights_of(used, trained["MODEL.WEIGHTS"])
        changed = [key for key in used if _decides_figures(key) and used[key] != trained.get(key)]
        found |= {f"{key} ({file.parent.name})": used[key] for key in changed}
    return found


def _decides_figures(key: str) -> bool:
    if key in ("TEST.BEST_METRIC", "TEST.EVAL_PERIOD", "TEST.NUM_PICTURES"):
        return False
    return key == "MODEL.WEIGHTS" or key.startswith("TEST.") or "_TEST" in key or ".TEST." in key


def _weights_of(used: Mapping[str, Any], initial: str) -> str:
    """MODEL.WEIGHTS of an evaluation; just the file name if it is in the run's folder, so that all seeds agree."""
    weights = Path(used["MODEL.WEIGHTS"])
    if used["MODEL.WEIGHTS"] == initial or weights.resolve().parent != Path(used["OUTPUT_DIR"]).resolve():
        return used["MODEL.WEIGHTS"]
    return initial if weights.name == "model_final.pth" else weights.name


def _unfinished(path: Path, config: dict[str, Any]) -> str:
    """Why a training is not finished; "" if it is, and for a mere evaluation."""
    rows = training_rows(path)
    done = max((row["iteration"] + 1 for row in rows if "total_loss" in row), default=None)
    steps = config.get("SOLVER.MAX_ITER")
    if done is None:
        return ""
    if done < steps:
        return f"stopped after {done} of {steps} steps"
    if any(
        row["iteration"] >= steps - 1 and any("/" in key and key[-3:] in ("IoU", "/AP") for key in row) for row in rows
    ):
        return ""
    files = list((path / "evaluation").glob("*/metrics.json"))
    written = (path / "metrics.json").stat().st_mtime
    later = any(file.stat().st_mtime > written for file in files)  # by --eval-only
    return "stopped before its last evaluation" if files and not later else ""


def _progress(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The progress recorded by tools/run_experiment.py; for other runs, what can be found in their log."""
    noted = read_json(path / "run.json")
    if noted is not None:
        return noted
    log = path / "log.txt"
    times = TOTAL_TIME.findall(log.read_text(encoding="utf-8", errors="replace")) if log.is_file() else []
    seconds = [int(d or 0) * 86400 + int(h) * 3600 + int(m) * 60 + int(s) for d, h, m, s in times]
    return {
        "seconds": sum(seconds) if seconds else None,
        "peak_memory_mib": None,
        "attempts": max(1, len(seconds)),
        "environment": {},
        "config": settings,
    }
