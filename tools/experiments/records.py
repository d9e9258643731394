"""The files of a run, its state, and the lock that keeps other runners off it.

<results>/<variant>/seed0.json              the result, small: settings, metrics, costs. Ours are in the repository
<work>/<variant>/seed0/                     OUTPUT_DIR of the run: config, log, metrics, checkpoints while it runs
<work>/<variant>/seed0/{run,failure}.json   its progress, and its failure
"""

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .plan import ROOT, Run
from .resolved import differences

# How often a lock is tried, and the pause between attempts in seconds.
LOOKS, PAUSE = 5, 0.05
# How `write_json` writes these files.
LAYOUT = {"indent": 1, "allow_nan": False}
NOT_BEGUN = "not begun"


@dataclass(frozen=True)
class Folders:
    """The two folders of a plan."""

    results: Path
    work: Path

    def result(self, run: Run) -> Path:
        return self.results / run.variant / f"seed{run.seed}.json"

    def output(self, run: Run) -> Path:
        return self.work / run.variant / f"seed{run.seed}"

    def progress(self, run: Run) -> Path:
        """Progress and costs of a run that was started: {"config", "seconds", "attempts", ...}."""
        return self.output(run) / "run.json"

    def failure(self, run: Run) -> Path:
        """{"exit_code", "reason", "log"} of the last attempt, if it failed."""
        return self.output(run) / "failure.json"


def folders_of(plan: Path, output: Path | None = None, work: Path | None = None) -> Folders:
    """The folders given, or their defaults; those of a plan of experiments/ hold our results (see docs/experiments.md).

    There is one work folder for each folder of results, so that none takes over, or waits for, the runs of another.
    """
    if output is not None:
        return Folders(output, work or Path("output/experiments") / output.resolve().name)
    if plan.resolve().parent == ROOT / "experiments":
        return Folders(Path("results") / plan.stem, work or Path("output/experiments") / plan.stem)
    return Folders(Path("output/experiments_results") / plan.stem, work or Path("output/experiments_work") / plan.stem)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file, None if there is no file.

    Raises:
        ValueError: if the file contains something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error}). Delete it to repeat the run.") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: holds {type(data).__name__}, not an object. Delete it to repeat the run.")
    return data


def take_lock(folders: Folders, run: Run) -> int | None:
    """The file descriptor that holds the lock of a run, None if another process has it.

    The lock lasts until the last process with the descriptor ends: training inherits it, so that a run whose runner was
    killed is not started a second time.
    """
    folders.output(run).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folders.output(run) / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    for _ in range(LOOKS):  # `is_locked` in another process holds it for an instant
        if _lock(descriptor):
            return descriptor
        time.sleep(PAUSE)
    os.close(descriptor)
    return None


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of the run whose output is ``folder``; nothing is written."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def gpus_in_use(folders: Folders) -> list[str]:
    """The GPU of every run in progress below the work folder, by any runner."""
    found = []
    for path in folders.work.glob("*/seed*/run.json"):
        progress = read_json(path) or {}
        if progress.get("open") and progress.get("gpu") and is_locked(path.parent):
            found.append(progress["gpu"])
    return found


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def state_of(folders: Folders, run: Run, wanted: dict[str, Any]) -> tuple[str, str]:
    """ "done", "changed", "running", "failed", "interrupted" or `NOT_BEGUN`, and details.

    ``wanted`` is the run's ``resolve``.
    """
    result = read_json(folders.result(run))
    changed = differences(result.get("config", {}), wanted) if result else []
    if result and not changed:
        return "done", ""
    if is_locked(folders.output(run)):
        return "running", ""
    if changed:
        return "changed", "; ".join(changed)
    failure = read_json(folders.failure(run))
    if failure is not None:
        last = failure["log"][-1] if failure["log"] else "no output"
        return "failed", f"exit code {failure['exit_code']}: {last}"
    progress = read_json(folders.progress(run))
    if progress is None:
        return NOT_BEGUN, ""
    changed = differences(progress["config"], wanted)
    return ("changed", "; ".join(changed)) if changed else ("interrupted", "")
