"""Metrics of a plan that are misspelt, told before anything is trained, and those that no finished run has."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgr_d2.engine.hooks import misspelt_metric
from sgr_d2.engine.tasks import task_of
from sgr_d2.messages import did_you_mean

from .outcome import measured
from .plan import Plan

# Of models with SGR alone: that the runs of other models lack them is no mistake.
TOKENS = "token_semantics/"


def check_metrics(path: Path, plan: Plan, configs: Mapping[str, dict[str, Any]]) -> None:
    """Check the names of the metrics of a plan before its runs.

    Args:
        path: of the plan, for the message.
        plan: its content.
        configs: the ``resolve`` of each run by name.

    Raises:
        ValueError: if one seems to be a misspelt metric of ours. It may be of your own evaluators.
    """
    sets = dict.fromkeys(tuple(config.get("DATASETS.TEST", ())) for config in configs.values())
    classes = {names: task_of(names).metadata_of(names).classes for names in sets if names}
    for metric in _metrics_of(plan):
        meant = [misspelt_metric(metric, names, each) for names, each in classes.items()]
        if meant and all(meant):
            raise ValueError(f"{path}: metrics: {metric} is not measured. Did you mean {meant[0]}?")


def unmeasured(plan: Plan, results: Mapping[str, dict[str, Any]]) -> list[str]:
    """A sentence for each metric that no finished run has; not for token metrics if none has any of these."""
    names = measured(results)
    known = names | {name.split("/", 1)[1] for name in names}
    has_tokens = any(name.startswith(TOKENS) for name in known)
    absent = [metric for metric in _metrics_of(plan) if metric not in known and (has_tokens or TOKENS not in metric)]
    return [f"No finished run has {metric}.{did_you_mean(metric, sorted(known))}" for metric in absent if known]


def _metrics_of(plan: Plan) -> list[str]:
    """The metrics of tables and pictures, each once."""
    return list(dict.fromkeys([*plan.metrics, *(metric for profile in plan.profiles for metric in profile.metrics)]))
