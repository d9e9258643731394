"""The time that the rest of a plan will take, from the runs that this call has made."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean


class Remaining:
    """Estimates from the mean time of a variant's runs, or of all runs for a variant without any."""

    def __init__(self, workers: int):
        self.workers = workers
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def add(self, variant: str, seconds: float) -> None:
        """Note what a run took."""
        self._seconds[variant].append(seconds)

    def seconds(self, waiting: Sequence[str], active: Mapping[str, Sequence[float]]) -> float:
        """The time for runs of the variants ``waiting``, beside those ``active``: {variant: [seconds so far]}."""
        begun = [max(0.0, self._of(variant) - so_far) for variant, each in active.items() for so_far in each]
        work = [*begun, *map(self._of, waiting)]
        if not work:
            return 0.0
        return max(sum(work) / self.workers, *work)

    def _of(self, variant: str) -> float:
        every = [value for values in self._seconds.values() for value in values]
        return fmean(self._seconds.get(variant) or every)


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3 h 20 min", "2 d 5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
