"""The settings of all benchmarks from the command line."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"


class Settings(NamedTuple):
    """
    Attributes:
        device: "cpu" or "cuda".
        rounds: number of timed rounds, None for each benchmark's own.
        quick: toy sizes and two rounds, to check that a benchmark runs; the numbers mean nothing.
        cpu_time: measure the processor time of this process instead of elapsed time.
        plot: picture of the sweep to write, None for no picture.
        amp: "float16" or "bfloat16" for training steps in mixed precision, None for float32.
    """

    device: str = "cpu"
    rounds: int | None = None
    quick: bool = False
    cpu_time: bool = False
    plot: Path | None = None
    amp: str | None = None

    def rounds_or(self, default: int) -> int:
        """The number of timed rounds, for a benchmark with ``default`` of its own."""
        return self.rounds or (2 if self.quick else default)

    @property
    def warmup(self) -> int:
        """Number of untimed rounds before them."""
        return 1 if self.quick else 2

    @property
    def clock(self) -> Callable[[], float]:
        """The clock to use, which returns seconds."""
        return time.process_time if self.cpu_time else time.perf_counter
