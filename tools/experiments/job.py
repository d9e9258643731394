"""One run as a process: starts or resumes it, waits, keeps its result, ends it."""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sgr_d2.engine.earlier_run import set_aside
from sgr_d2.files import write_json

from .outcome import describe_machine, gather
from .plan import ROOT, Run
from .records import LAYOUT, Folders, read_json
from .resolved import differences

logger = logging.getLogger(__name__)

TRAIN = [sys.executable, str(ROOT / "train_net.py")]
LOG_LINES = 20
# Seconds that a process has to end when it is asked to, before it is killed.
PATIENCE = 10.0
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
# ru_maxrss counts KiB on Linux, bytes on macOS.
MEMORY_UNIT = 2**20 if sys.platform == "darwin" else 2**10


@dataclass(frozen=True)
class Launch:
    """How runs are started.

    Attributes:
        command: the training program, called with the command line of train_net.py.
        num_gpus: 0 or 1.
        threads: of every run, on the CPU.
        keep: whether to keep the checkpoints of finished runs.
        metrics: of the plan.
        gpus: the GPUs to distribute runs over, by their names in CUDA_VISIBLE_DEVICES; empty for those a run sees.
    """

    num_gpus: int
    metrics: list[str]
    threads: int = 1
    keep: bool = False
    gpus: tuple[str, ...] = ()
    command: tuple[str, ...] = tuple(TRAIN)


class Job:
    """A run in progress. ``lock`` is the descriptor of ``take_lock``, closed by the job; ``gpu`` is of the launch."""

    def __init__(self, run: Run, config: dict[str, Any], folders: Folders, launch: Launch, lock: int, gpu: str = ""):
        self.run = run
        self.folders = folders
        self.launch = launch
        self.output = folders.output(run)
        self.lock = lock
        self.gpu = gpu
        self.progress = self._prepare(config)
        self.begun = time.monotonic()
        with open(self.output / "stdout.txt", "ab") as log:
            # In its own process group: Ctrl-C only reaches the runner, which then ends the whole group.
            self.process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,
                pass_fds=(lock,),
            )

    def _prepare(self, config: dict[str, Any]) -> dict[str, Any]:
        """Resume an interrupted run of the same settings, or start in an empty folder."""
        self.folders.failure(self.run).unlink(missing_ok=True)
        progress = read_json(self.folders.progress(self.run))
        if progress is None or differences(progress["config"], config):
            if (aside := set_aside(self.output)) is not None:  # kept by --keep, or with other settings
                logger.warning("%s held another run, which is now in %s.", self.output, aside)
            for name in ("stdout.txt", "run.json"):
                (self.output / name).unlink(missing_ok=True)
            progress = {"seconds": 0.0, "attempts": 0, "peak_memory_mib": 0}
        elif progress.get("open"):  # its runner died, so the costs of the rest of the run are unknown
            progress |= {"seconds": None, "peak_memory_mib": None}
        progress["config"] = config
        threads = None if self.launch.num_gpus else self.launch.threads
        index = self.launch.gpus.index(self.gpu) if self.gpu else 0
        progress["environment"] = describe_machine(self.launch.num_gpus, threads, gpu=index)
        progress["attempts"] += 1
        progress |= {"open": True, "gpu": self.gpu}
        write_json(progress, self.folders.progress(self.run), **LAYOUT)
        return progress

    def _command(self) -> list[str]:
        options = self.run.options(OUTPUT_DIR=self.output.as_posix())
        flags = ["--config-file", self.run.config, "--num-gpus", str(self.launch.num_gpus)]
        resume = ["--resume"] if (self.output / "last_checkpoint").is_file() else []
        return [*self.launch.command, *flags, *resume, *options]

    def _environment(self) -> dict[str, str]:
        environment = os.environ | {"NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
        if not self.launch.num_gpus:
            environment |= {"OMP_NUM_THREADS": str(self.launch.threads)}
        if self.gpu:
            environment |= {"CUDA_VISIBLE_DEVICES": self.gpu}
        return environment

    def poll(self) -> int | None:
        """The exit code once the process has ended and its progress is written; None until then."""
        if self.process.returncode is not None:
            return self.process.returncode
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.process.returncode = os.waitstatus_to_exitcode(status)
        # Linux includes the memory of the parent before the exec; it imports less than training does.
        peak = round(usage.ru_maxrss * MEMORY_UNIT / 2**20)
        if self.progress["seconds"] is not None:
            self.progress["seconds"] += time.monotonic() - self.begun
            self.progress["peak_memory_mib"] = max(self.progress["peak_memory_mib"], peak)
        self.progress["open"] = False
        write_json(self.progress, self.folders.progress(self.run), **LAYOUT)
        return self.process.returncode

    def finish(self) -> str:
        """Write the result or failure of an ended process and release the run; returns why it failed, or ""."""
        try:
            if self.process.returncode != 0:
                return self._failed(f"exit code {self.process.returncode}")
            try:
                result = gather(self.run, self.output, self.progress, self.launch.metrics)
            except (FileNotFoundError, ValueError) as error:
                return self._failed(str(error))
            write_json(result, self.folders.result(self.run), **LAYOUT)
            self.folders.progress(self.run).unlink()
            if not self.launch.keep:
                for checkpoint in self.output.glob("*.pth"):
                    checkpoint.unlink()
                (self.output / "last_checkpoint").unlink(missing_ok=True)
            return ""
        finally:
            os.close(self.lock)

    def _failed(self, reason: str) -> str:
        lines = last_lines(self.output / "stdout.txt", LOG_LINES)
        failure = {"exit_code": self.process.returncode, "reason": reason, "log": lines}
        write_json(failure, self.folders.failure(self.run), **LAYOUT)
        return f"{reason}: {lines[-1] if lines else 'no output'}"

    def ask_to_end(self) -> None:
        """Ask the process and all its children to end, without waiting; see `end`."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)

    def end(self) -> None:
        """End the process and its children, and release the run. Next time it resumes from its last checkpoint."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            limit = time.monotonic() + PATIENCE
            while self.poll() is None and time.monotonic() < limit:
                time.sleep(0.05)
        os.close(self.lock)


def last_lines(path: Path, count: int) -> list[str]:
    """The last non-empty lines of a text file, without terminal colours."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 100_000))
        text = ESCAPES.sub("", file.read().decode("utf-8", errors="replace"))
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]


def visible_gpus() -> tuple[str, ...]:
    """The GPUs visible to this process, by their names in CUDA_VISIBLE_DEVICES, which may be numbers or identifiers."""
    count = torch.cuda.device_count()
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(names[:count] if names else map(str, range(count)))
