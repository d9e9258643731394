"""Measures times of alternating runs, ratios of paired times, and the peak of live tensor bytes."""

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from .settings import Settings


class Ratio(NamedTuple):
    """A ratio and, if it was measured in rounds, its quartiles over the rounds.

    Attributes:
        value: the median over the rounds, or the only value.
        low, high: quartiles.
        limit: the target, as text such as "<= 1.12"; "" for none.
    """

    value: float
    low: float
    high: float
    limit: str = ""

    def is_met(self) -> bool | None:
        """Whether ``value`` meets ``limit``; None without one."""
        if not self.limit:
            return None
        sign, number = self.limit.split()
        return self.value <= float(number) if sign == "<=" else self.value >= float(number)


def alternate(
    runs: Mapping[str, Callable[[int], object]],
    *,
    rounds: int,
    warmup: int = 2,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Time several runs in turn, A B C A B C ..., so that disturbances of the machine affect all of them equally.

    Args:
        runs: each is called with the number of the round, starting at 0 with the warm-up, to choose its input.
        rounds: number of timed rounds.
        warmup: number of untimed rounds before them.
        device: on "cuda" wait for every run to finish.
        clock: returns seconds.

    Returns:
        {name: (rounds,) milliseconds}.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(warmup + rounds):
        for name, run in runs.items():
            synchronize(device)
            start = clock()
            run(number)
            synchronize(device)
            if number >= warmup:
                times[name].append(1000 * (clock() - start))
    return {name: np.array(values) for name, values in times.items()}


def time_runs(runs: Mapping[str, Callable[[int], object]], rounds: int, settings: Settings) -> dict[str, np.ndarray]:
    """`alternate` with the options of the command line; ``rounds`` is the benchmark's own number."""
    return alternate(
        runs,
        rounds=settings.rounds_or(rounds),
        warmup=settings.warmup,
        device=settings.device,
        clock=settings.clock,
    )


def synchronize(device: str) -> None:
    """Wait for the GPU to finish."""
    if device == "cuda":
        torch.cuda.synchronize()


def paired_ratio(numerator: np.ndarray, denominator: np.ndarray, limit: str = "") -> Ratio:
    """The median of the per-round ratios of two alternating runs, with its quartiles."""
    low, middle, high = np.percentile(numerator / denominator, (25, 50, 75))
    return Ratio(float(middle), float(low), float(high), limit)


def loglog_slope(x: Iterable[float], y: Iterable[float]) -> float:
    """The exponent p of a cost y = c * x**p, by least squares over the upper half of the points (at least two).

    1 is linear; below 1, a part that does not depend on x still matters.
    """
    order = np.argsort(np.asarray(x, float))
    upper = order[len(order) // 2 :] if len(order) > 3 else order[-2:]
    return float(np.polyfit(np.log(np.asarray(x, float)[upper]), np.log(np.asarray(y, float)[upper]), 1)[0])


def live_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Total bytes of the storages of ``tensors``, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def peak_bytes(run: Callable[[], object], device: str = "cpu") -> int:
    """The maximum number of live tensor bytes during ``run``, beyond those alive before it.

    Counted in torch's allocator, so that repeated runs agree: the resident memory of the process would include what the
    C library retains. Memory that libraries allocate themselves is not counted.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    return _peak_of_trace(profiler)


def _peak_of_trace(profiler: profile) -> int:
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = (event for event in events if event.get("name") == "[memory]")
    return peak_of_changes((c["args"]["Addr"], c["args"]["Bytes"]) for c in sorted(changes, key=lambda c: c["ts"]))


def peak_of_changes(changes: Iterable[tuple[int, int]]) -> int:
    """The maximum sum of live bytes in a sequence of (address, bytes), with negative bytes if a block is freed.

    Blocks that existed before are left out: torch may report that they are freed, with an outdated size.
    """
    live: dict[int, int] = {}
    total = peak = 0
    for address, size in changes:
        if size < 0:
            total -= live.pop(address, 0)
            continue
        live[address] = size
        total += size
        peak = max(peak, total)
    return peak


def mib(count: float) -> float:
    """Convert bytes to MiB."""
    return count / 2**20


def median(times: np.ndarray) -> float:
    """The median, NaN for no times."""
    return float(np.median(times)) if len(times) else math.nan
