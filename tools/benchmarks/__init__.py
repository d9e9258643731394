"""The benchmarks by name. Each takes `Settings` and returns a `Report`; --list shows its docstring."""

from collections.abc import Callable

from .components import benchmark_components
from .detector import benchmark_detector
from .inference_memory import benchmark_inference_memory
from .mask2former import benchmark_mask2former
from .report import Report
from .settings import Settings
from .sgr_step import benchmark_sgr_step
from .sweep import benchmark_sweep
from .token_metrics import benchmark_token_metrics

BENCHMARKS: dict[str, Callable[[Settings], Report]] = {
    "components": benchmark_components,
    "mask2former": benchmark_mask2former,
    "sgr_step": benchmark_sgr_step,
    "token_metrics": benchmark_token_metrics,
    "sweep": benchmark_sweep,
    "detector": benchmark_detector,
    "inference_memory": benchmark_inference_memory,
}
