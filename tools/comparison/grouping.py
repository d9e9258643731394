"""Groups runs of the same settings, except for the seed, into variants; the others are compared with the first."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.outcome import measured
from experiments.plan import Plan, Run, Variant
from experiments.resolved import BEFORE_THE_KEY, NOT_COMPARED, detectron2_defaults, differences, flat
from experiments.summary import Collected

from sgr_d2.config import get_sgr_cfg
from sgr_d2.evaluation import TOKEN_FIGURES
from sgr_d2.messages import first_few

from .reading import FoundRun

# The metrics to show, in this order; those of single classes have their own tables.
METRICS = (
    *("sem_seg/mIoU", "sem_seg/fwIoU", "sem_seg/mACC", "sem_seg/pACC", "cityscapes/IoU", "bbox/AP", "segm/AP"),
    *(f"token_semantics/{name}" for name in (*TOKEN_FIGURES, "active_rate", "overlap")),
)
MAX_DIFFERENCES = 12
# Settings that two models to be compared should share: length, batch and data.
COMMON = ("SOLVER.MAX_ITER", "SOLVER.IMS_PER_BATCH", "DATASETS.")


def compare(runs: Sequence[FoundRun], metrics: Sequence[str] = ()) -> Collected:
    """Collect runs in the form that tools/run_experiment.py tabulates; seeds of other variants count as planned.

    Args:
        metrics: "task/name" or "data set/task/name"; by default those of ``METRICS`` that the runs have.

    Raises:
        ValueError: if two runs have the same settings and seed, no run has metrics, or none has one of ``metrics``.
    """
    groups = _groups(runs)
    names = _names(groups)
    seeds = sorted({run.seed for run in runs})
    every = [complete(group[0].settings) for group in groups]
    base = every[0]
    variants, results, states = [], {}, {}
    for name, group, settings in zip(names, groups, every, strict=True):
        found = {run.seed: run for run in group}
        changed = differences(_with_sets(base, settings), _with_sets(settings, base))
        more = [f"and {len(changed) - MAX_DIFFERENCES} more"] if len(changed) > MAX_DIFFERENCES else []
        note = "; ".join([f"`{line}`" for line in changed[:MAX_DIFFERENCES]] + more)
        planned = [Run(name, seed, "", {}) for seed in seeds]
        variants.append(Variant(name, planned, [] if name == names[0] else [names[0]], note))
        for run in planned:
            one = found.get(run.seed)
            if one is not None and one.result is not None:
                results[run.name] = one.result
            states[run.name] = _state(one)
    plan = Plan("comparison", f"{names[0]} and others" if names[1:] else names[0], variants, names[0], [])
    plan.metrics.extend(_metrics(results, metrics))
    warnings = [
        _other_data(dict(zip(names, every, strict=True))),
        _no_common_seed(dict(zip(names, groups, strict=True))),
    ]
    return Collected(plan, results, states, ". ".join(filter(None, warnings)))


def _no_common_seed(groups: Mapping[str, Sequence[FoundRun]]) -> str:
    """A sentence with the variants that have finished no seed of the first variant; "" if there are none."""
    seeds = {name: sorted(run.seed for run in group if run.result is not None) for name, group in groups.items()}
    (first, base), *others = seeds.items()
    apart = {name: own for name, own in others if own and base and not set(own) & set(base)}
    if not apart:
        return ""
    listed = ", ".join(f"{name} ({first_few(own)})" for name, own in apart.items())
    return f"No difference to {first} (seeds {first_few(base)}) can be given, as it is paired by seed, for {listed}"


def _other_data(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """A sentence with the settings of ``COMMON`` that not all variants have in common; "" if there are none."""
    keys = sorted({key for each in settings.values() for key in each if key.startswith(COMMON)})
    parts = []
    for key in keys:
        users: dict[str, list[str]] = {}
        for name, each in settings.items():
            users.setdefault(json.dumps(each.get(key), ensure_ascii=False), []).append(name)
        if len(users) > 1:
            parts.append(
                f"`{key}`: " + ", ".join(f"{_short(value)} ({first_few(of, 3)})" for value, of in users.items())
            )
    if not parts:
        return ""
    listed = "; ".join([*parts[:MAX_DIFFERENCES], *(["..."] if len(parts) > MAX_DIFFERENCES else [])])
    return f"These runs differ in length, batch or data, so that a difference may come from that: {listed}"


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings completed with defaults and `BEFORE_THE_KEY`, without those that are not compared."""
    every = flat(get_sgr_cfg()) | BEFORE_THE_KEY | detectron2_defaults() | dict(settings)
    return json.loads(json.dumps({key: value for key, value in every.items() if key not in {*NOT_COMPARED, "SEED"}}))


def _with_sets(settings: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Add every "key (data set)" that only ``other`` has, with the value of the key itself."""
    return {key: settings.get(key.partition(" (")[0]) for key in other if key.endswith(")")} | dict(settings)


def _groups(runs: Sequence[FoundRun]) -> list[list[FoundRun]]:
    groups: dict[str, list[FoundRun]] = {}
    for run in runs:
        group = groups.setdefault(json.dumps(complete(run.settings), sort_keys=True), [])
        same = next((other for other in group if other.seed == run.seed), None)
        if same is not None:
            raise ValueError(f"{same.path} and {run.path}: the same settings and SEED {run.seed}; name one of them.")
        group.append(run)
    return list(groups.values())


def _names(groups: list[list[FoundRun]]) -> list[str]:
    """One name per group: that of its first run, with a number if it is taken."""
    names: list[str] = []
    for group in groups:
        name = group[0].name
        number = 1
        while name in names:
            number += 1
            name = f"{group[0].name}-{number}"
        names.append(name)
    return names


def _state(run: FoundRun | None) -> tuple[str, str]:
    if run is None:
        return "missing", ""
    return ("done", "") if run.result is not None else ("incomplete", run.problem)


def _metrics(results: Mapping[str, dict[str, Any]], wanted: Sequence[str]) -> list[str]:
    """The metrics to tabulate, with the name of the data set if there are several."""
    sets = data_sets(results)
    if not sets:
        raise ValueError("None of the runs has metrics of a finished evaluation: there is nothing to compare.")
    found = measured(results)
    if wanted:
        for metric in wanted:
            if not any(name in (metric, f"{name.split('/')[0]}/{metric}") for name in found):
                known = sorted(name for name in found if "IoU-" not in name and "ACC-" not in name)
                raise ValueError(f"--metrics {metric}: no run has it; there are {', '.join(known)}.")
        # "task/metric" stands for that of every data set: figures of two data sets must not be mixed
        names = [
            [metric] if metric in found or len(sets) == 1 else [f"{s}/{metric}" for s in sets] for metric in wanted
        ]
        return [name for group in names for name in group if len(sets) == 1 or name in found]
    short = len(sets) == 1
    names = [(s, metric) for s in sets for metric in METRICS if f"{s}/{metric}" in found]
    return [metric if short else f"{s}/{metric}" for s, metric in names]


def data_sets(results: Mapping[str, dict[str, Any]]) -> list[str]:
    """Names of all data sets that were evaluated."""
    return sorted({name for result in results.values() for name in result["metrics"]})
