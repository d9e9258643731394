"""Makes the runs of a plan, several at a time, except those that are done or made by another runner."""

import os
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from .job import Job, Launch
from .outcome import metric_of
from .plan import Run
from .records import Folders, gpus_in_use, is_locked, read_json, take_lock
from .remaining import Remaining, duration
from .resolved import differences

POLL_SECONDS = 0.2


class Runner:
    """Makes runs; several runners may work on a plan at once."""

    def __init__(
        self, folders: Folders, launch: Launch, *, workers: int = 1, redo: bool = False, say: Callable[[str], None]
    ):
        """
        Args:
            folders: of results and work.
            launch: how runs are started.
            workers: number of runs at a time, at least 1.
            redo: repeat runs whose settings have changed.
            say: called with lines on the progress.
        """
        self.folders = folders
        self.launch = launch
        self.workers = workers
        self.redo = redo
        self.say = say
        self.active: list[Job] = []
        self.failed: list[str] = []
        self.remaining = Remaining(workers)

    def make(self, runs: list[Run], configs: dict[str, dict[str, Any]]) -> bool:
        """Make the runs in order; ``configs`` is the ``resolve`` of each by name. Returns True if none failed.

        An exception (Ctrl-C) only ends the runs that this runner has started.
        """
        waiting = list(runs)
        try:
            while waiting or self.active:
                while waiting and len(self.active) < self.workers:
                    run = waiting.pop(0)
                    self._begin(run, configs[run.name], f"{len(runs) - len(waiting)} of {len(runs)}")
                time.sleep(POLL_SECONDS if self.active else 0)
                self._collect(waiting, configs)
        finally:
            for job in self.active:  # all at once, so that even after a second Ctrl-C all have been asked to end
                job.ask_to_end()
            for job in self.active:
                job.end()
                self.say(f"ended {job.run.name}; it resumes from its last checkpoint when the plan is run again")
        return not self.failed

    def _begin(self, run: Run, config: dict[str, Any], place: str) -> None:
        lock = take_lock(self.folders, run)
        if lock is None:
            self.say(f"left {run.name}: another runner has it")
            return
        # Checked while holding the lock: another runner may have just finished the run.
        if not self._is_wanted(run, config):
            os.close(lock)
            return
        try:
            job = Job(run, config, self.folders, self.launch, lock, self._free_gpu())
        except BaseException:
            os.close(lock)
            raise
        self.active.append(job)
        again = f", attempt {job.progress['attempts']}" if job.progress["attempts"] > 1 else ""
        self.say(f"begin {run.name} ({place}{again}): log {job.output / 'stdout.txt'}")

    def _free_gpu(self) -> str:
        """The GPU with the fewest runs of this plan, by any runner; "" if there is none to choose."""
        busy = gpus_in_use(self.folders) if self.launch.gpus else []
        return min(self.launch.gpus, key=busy.count, default="")

    def _is_wanted(self, run: Run, config: dict[str, Any]) -> bool:
        result = read_json(self.folders.result(run))
        return result is None or (self.redo and bool(differences(result.get("config", {}), config)))

    def _collect(self, waiting: list[Run], configs: dict[str, dict[str, Any]]) -> None:
        for job in list(self.active):
            if job.poll() is None:
                continue
            self.active.remove(job)
            problem = job.finish()
            if problem:
                self.failed.append(job.run.name)
                self.say(f"FAILED {job.run.name}, {problem} (full log: {job.output / 'stdout.txt'})")
                continue
            result = read_json(self.folders.result(job.run)) or {}
            name = self.launch.metrics[0]
            value = metric_of(result, name)
            figure = "n/a" if value is None else f"{value:.3f}"
            seconds = result.get("seconds")
            took = "" if seconds is None else f" in {seconds:.0f} s"
            self.remaining.add(job.run.variant, time.monotonic() - job.begun if seconds is None else seconds)
            self.say(f"done {job.run.name}{took}: {name} {figure}{self._rest(waiting, configs)}")

    def _rest(self, waiting: list[Run], configs: dict[str, dict[str, Any]]) -> str:
        """How many runs are left, but for those of other runners, and the time they will take; "" if there are none."""
        wanted = [run for run in waiting if self._is_wanted(run, configs[run.name])]
        mine = [run.variant for run in wanted if not is_locked(self.folders.output(run))]
        active: dict[str, list[float]] = defaultdict(list)
        for job in self.active:
            active[job.run.variant].append(time.monotonic() - job.begun)
        number = len(mine) + len(self.active)
        return f"; {number} more: about {duration(self.remaining.seconds(mine, active))}" if number else ""
