"""What the command line sets for all benchmarks."""

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
        rounds: timed rounds, None for each benchmark's own number.
        quick: toy sizes and two rounds; shows that a benchmark runs, its numbers mean nothing.
        cpu_time: count the processor time of this process instead of the time that passes.
        plot: where the sweep draws its picture, None for no picture.
        amp: "float16" or "bfloat16" for training steps in mixed precision, None for float32.
    """

    device: str = "cpu"
    rounds: int | None = None
    quick: bool = False
    cpu_time: bool = False
    plot: Path | None = None
    amp: str | None = None

    def rounds_or(self, default: int) -> int:
        """The number of timed rounds of a benchmark that wants ``default`` of them."""
        return self.rounds or (2 if self.quick else default)

    @property
    def warmup(self) -> int:
        """Rounds before them that do not count."""
        return 1 if self.quick else 2

    @property
    def clock(self) -> Callable[[], float]:
        """Returns seconds."""
        return time.process_time if self.cpu_time else time.perf_counter
