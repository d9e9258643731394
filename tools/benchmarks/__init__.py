"""The benchmarks by name. Each takes `Settings` and returns a `Report`; its docstring is its line in --list."""

from collections.abc import Callable

from .components import benchmark_components
from .report import Report
from .settings import Settings
from .sgr_step import benchmark_sgr_step
from .sweep import benchmark_sweep
from .token_metrics import benchmark_token_metrics

BENCHMARKS: dict[str, Callable[[Settings], Report]] = {
    "components": benchmark_components,
    "sgr_step": benchmark_sgr_step,
    "token_metrics": benchmark_token_metrics,
    "sweep": benchmark_sweep,
}
