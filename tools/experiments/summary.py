"""The results of a plan as Markdown: tables of metrics, differences from the baseline, costs, and single runs."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from .metrics import unmeasured
from .outcome import metric_of
from .plan import Plan, Run, Variant
from .records import NOT_BEGUN, Folders, read_json, state_of
from .statistics import Estimate, estimate, paired_difference, relative_difference

Result = dict[str, Any]
COSTS: dict[str, tuple[str, int]] = {
    "head_loss": ("head's loss", 4),
    "seconds_per_step": ("s per step", 3),
    "seconds": ("s in all", 0),
    "peak_memory_mib": ("memory, MiB", 0),
    "gpu_memory_mib": ("GPU memory, MiB", 0),
    "parameters": ("parameters", 0),
}
MISSING = "missing"
# Of variants with other seeds than the baseline's.
MARK = "†"


@dataclass(frozen=True)
class Collected:
    """The available results of a plan.

    Attributes:
        plan: the plan.
        results: {run name: result}, without those with other settings than the plan's.
        states: {run name: (state, detail)} of every planned run.
        warning: a sentence about what makes the metrics hard to compare, or "".
    """

    plan: Plan
    results: Mapping[str, Result]
    states: Mapping[str, tuple[str, str]]
    warning: str = ""

    def values(self, variant: Variant, metric: str) -> dict[int, float]:
        """{seed: value} of the available runs that have the metric."""
        found = {run.seed: metric_of(self.results[run.name], metric) for run in self._runs(variant)}
        return {seed: value for seed, value in found.items() if value is not None}

    def costs(self, variant: Variant, key: str) -> dict[int, float]:
        """{seed: value} of the available runs that have the cost, a key of `COSTS`."""
        found = {run.seed: self.results[run.name].get(key) for run in self._runs(variant)}
        return {seed: value for seed, value in found.items() if value is not None}

    def begun(self) -> list[Variant]:
        """The variants of which any run was started: those that the tables show."""
        return [v for v in self.plan.variants if any(self.states[run.name][0] != NOT_BEGUN for run in v.runs)]

    def seeds(self, variant: Variant) -> list[int]:
        """The seeds of the available runs, in ascending order."""
        return sorted(run.seed for run in self._runs(variant))

    def other_seeds(self) -> list[str]:
        """The variants whose available runs have other seeds than the baseline's: their means do not compare."""
        of_baseline = self.seeds(self.variant(self.plan.baseline))
        each = {variant.name: self.seeds(variant) for variant in self.plan.variants}
        return [name for name, seeds in each.items() if seeds and of_baseline and seeds != of_baseline]

    def variant(self, name: str) -> Variant:
        return next(variant for variant in self.plan.variants if variant.name == name)

    def _runs(self, variant: Variant) -> list[Run]:
        return [run for run in variant.runs if run.name in self.results]


def collect(plan: Plan, folders: Folders, configs: Mapping[str, dict[str, Any]]) -> Collected:
    """Read the results of a plan; ``configs`` is the ``resolve`` of each run by name."""
    states = {run.name: state_of(folders, run, configs[run.name]) for run in plan.runs()}
    results = {run.name: read_json(folders.result(run)) or {} for run in plan.runs() if states[run.name][0] == "done"}
    return Collected(plan, results, states)


def to_markdown(collected: Collected, pictures: list[str] | None = None) -> str:
    """The page: heading, state, ``pictures`` by their file names, tables."""
    plan = collected.plan
    parts = [f"# {plan.title}", _state(collected)]
    parts += [f"![{picture.removesuffix('.png')}]({picture})" for picture in pictures or []]
    parts += [
        "## Metrics",
        *([f"**{collected.warning}**"] if collected.warning else []),
        *(f"**{text}**" for text in unmeasured(plan, collected.results)),
        "Mean ± standard deviation over the seeds; n of the planned runs; (n) those that have a figure, where "
        "not all do." + _note_on_seeds(collected),
        _metric_table(collected),
    ]
    parts += [
        "## Differences",
        "Mean difference of runs with the same seed [95 % t-interval] (pairs). An interval that holds 0 shows nothing. "
        f"Ahead: pairs in which {plan.metrics[0]} is higher; head's loss: relative difference.",
        _difference_table(collected),
    ]
    parts += ["## Costs", "Means over the seeds; head's loss: over the last fifth of training.", _cost_table(collected)]
    parts += [f"## {plan.metrics[0]}, every run", _run_table(collected)]
    notes = [f"* `{variant.name}`: {variant.note}" for variant in collected.begun() if variant.note]
    parts += ["## Variants", "\n".join(notes)] if notes else []
    return "\n\n".join(parts) + "\n"


def _state(collected: Collected) -> str:
    total, done = len(collected.states), len(collected.results)
    lines = [f"{done} of {total} runs are done."]
    missing = [text for v in collected.plan.variants if (text := _not_begun(collected, v))]
    if missing:
        lines.append(f"* not begun: {', '.join(missing)}")
    for name, (state, detail) in collected.states.items():
        if state not in ("done", NOT_BEGUN):
            lines.append(f"* `{name}`: {state}{f' ({detail})' if detail else ''}")
    environments = [result["environment"] for result in collected.results.values() if result["environment"]]
    machine = "; ".join(
        f"{key} {', '.join(sorted({str(environment.get(key)) for environment in environments}))}"
        for key in ("device", "instructions", "threads", "torch", "revision")
    )
    return "\n".join(lines) + (f"\n\nMade with: {machine}." if environments else "")


def _not_begun(collected: Collected, variant: Variant) -> str:
    seeds = sorted(run.seed for run in variant.runs if collected.states[run.name][0] == NOT_BEGUN)
    return f"`{variant.name}` (seed{'s' if len(seeds) > 1 else ''} {span(seeds)})" if seeds else ""


def _note_on_seeds(collected: Collected) -> str:
    if not collected.other_seeds():
        return ""
    return f" **{MARK}: other seeds than those of `{collected.plan.baseline}`: compare the paired differences below.**"


def _metric_table(collected: Collected) -> str:
    """With a column of seeds if not all variants have those of the baseline."""
    plan, others = collected.plan, collected.other_seeds()

    def cells(variant: Variant) -> list[str]:
        n = sum(run.name in collected.results for run in variant.runs)
        figures = [estimate(list(collected.values(variant, metric).values())) for metric in plan.metrics]
        none = "n/a" if n else MISSING
        texts = [
            spread(figure) + (f" ({figure.n})" if figure.n < n else "") if figure.n else none for figure in figures
        ]
        seeds = f"{span(collected.seeds(variant))}{f' {MARK}' if variant.name in others else ''}"
        return [f"{n} of {len(variant.runs)}", *([seeds] if others else []), *texts]

    return _table(collected, ["n", *(["seeds"] if others else []), *plan.metrics], cells)


def _difference_table(collected: Collected) -> str:
    """One row for every pair of a variant and one with which it is compared."""
    rows = []
    begun = collected.begun()
    for variant in begun:
        for name in variant.against:
            if collected.variant(name) not in begun:
                continue
            cells = _differences(collected, variant, collected.variant(name))
            rows.append([f"`{variant.name}`", f"`{name}`", *cells])
    return grid(["variant", "minus", *collected.plan.metrics, "ahead", "head's loss, %"], rows)


def _differences(collected: Collected, variant: Variant, baseline: Variant) -> list[str]:
    there = [{run.seed for run in v.runs if run.name in collected.results} for v in (variant, baseline)]
    none = "n/a" if there[0] & there[1] else MISSING
    pairs = [(collected.values(variant, m), collected.values(baseline, m)) for m in collected.plan.metrics]
    losses = [collected.costs(v, "head_loss") for v in (variant, baseline)]
    figures = [*(paired_difference(*pair) for pair in pairs), relative_difference(*losses)]
    *metrics, loss = [interval(figure) if figure.n else none for figure in figures]
    return [*metrics, _ahead(*pairs[0]) or none, loss]


def _ahead(values: Mapping[int, float], baseline: Mapping[int, float]) -> str:
    common = values.keys() & baseline.keys()
    return f"{sum(values[seed] > baseline[seed] for seed in common)} of {len(common)}" if common else ""


def _cost_table(collected: Collected) -> str:
    keys = [key for key in COSTS if any(collected.costs(variant, key) for variant in collected.begun())]

    def cells(variant: Variant) -> list[str]:
        means = [(estimate(list(collected.costs(variant, key).values())).mean, COSTS[key][1]) for key in keys]
        return [MISSING if math.isnan(mean) else f"{mean:,.{digits}f}" for mean, digits in means]

    return _table(collected, [COSTS[key][0] for key in keys], cells)


def _run_table(collected: Collected) -> str:
    plan = collected.plan
    seeds = sorted({run.seed for run in plan.runs()})

    def cells(variant: Variant) -> list[str]:
        planned = {run.seed: run for run in variant.runs}
        values = collected.values(variant, plan.metrics[0])
        texts = []
        for seed in seeds:
            if seed not in planned:
                texts.append("")
            elif seed in values:
                texts.append(number(values[seed]))
            else:
                state = collected.states[planned[seed].name][0]
                texts.append("n/a" if state == "done" else state)
        return texts

    return _table(collected, [f"seed {seed}" for seed in seeds], cells)


def _table(collected: Collected, headers: list[str], cells: Callable[[Variant], list[str]]) -> str:
    return grid(["variant", *headers], [[f"`{variant.name}`", *cells(variant)] for variant in collected.begun()])


def grid(headers: list[str], rows: list[list[str]]) -> str:
    align = ["left" if header in ("variant", "minus", "class") else "right" for header in headers]
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True, colalign=align if rows else None)


def number(value: float) -> str:
    """Two decimals for numbers from 10 on, three for smaller ones."""
    return f"{value:.{2 if abs(value) >= 10 else 3}f}"


def span(seeds: list[int]) -> str:
    """Ascending seeds as text: [0, 1, 2, 5, 8, 9] -> "0 to 2, 5, 8, 9"."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def spread(figure: Estimate) -> str:
    digits = 2 if abs(figure.mean) >= 10 else 3
    return f"{figure.mean:.{digits}f}" + (f" ± {figure.sd:.{digits}f}" if figure.n > 1 else "")


def interval(figure: Estimate) -> str:
    text = f"{figure.mean:+.3f}"
    return f"{text} [{figure.low:+.3f}, {figure.high:+.3f}] ({figure.n})" if figure.n > 1 else f"{text} (1)"
