"""A plan: which configs to train with which settings and seeds, read from a YAML file; see docs/experiments.md.

    title: SGR on CamVid                        heading of the summary
    config: configs/camvid/fpn.yaml             common to all variants
    opts: {SOLVER.MAX_ITER: 300}                common settings, as on the command line of train_net.py
    seeds: [0, 1, 2]
    baseline: baseline                          the variant that all others are compared with; default: the first one
    metrics: [sem_seg/mIoU, sem_seg/pACC]       of evaluation/<data set>/metrics.json; the first one is plotted;
                                                default: these two and the token figures S_C, S_I, D_C and D_I
    num_gpus: auto                              0, 1, or auto: 1 if there is a GPU
    variants:                                   in the order in which they are run
      - {name: baseline}
      - {name: sgr, config: configs/camvid/fpn_sgr.yaml, opts: {MODEL.SGR.NUM_TOKENS: 32}, seeds: [0], note: text}
    sweeps:                                     optional: a plot of the first metric against a number
      tokens: {label: "K, tokens", series: {SGR: {tokens_8: 8, sgr: 32}}, log: true}

    profiles:                                   optional: a plot of several metrics, one line per variant
      distance: {label: "distance, px", value: "right, %", metrics: {context/objects_0_60: 30}}
                                                with variants: {sgr: "name in the picture"}, only of these

``config``, ``opts`` and ``seeds`` of a variant override the common ones (``opts`` key by key). ``against: [a, b]``
names the variants with which it is compared, instead of the baseline.
"""

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from sgr_d2.messages import did_you_mean
from sgr_d2.yaml_mistakes import check_yaml

ROOT = Path(__file__).resolve().parents[2]
METRICS = ("sem_seg/mIoU", "sem_seg/pACC", *(f"token_semantics/{name}" for name in ("S_C", "S_I", "D_C", "D_I")))
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Run:
    """One training: a variant with a seed. ``opts`` are the settings without seed and output folder."""

    variant: str
    seed: int
    config: str
    opts: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.variant}/seed{self.seed}"

    def options(self, **more: Any) -> list[str]:
        """``KEY VALUE`` pairs for train_net.py; two underscores in a name of ``more`` stand for a dot."""
        settings = self.opts | {"SEED": self.seed} | {key.replace("__", "."): value for key, value in more.items()}
        return [str(part) for pair in settings.items() for part in pair]


@dataclass(frozen=True)
class Variant:
    """A row of the tables: its name, the planned runs, the variants it is compared with, a note for the reader."""

    name: str
    runs: list[Run]
    against: list[str] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class Sweep:
    """Variants along an axis; ``series`` is {name of the series: {variant: x}}."""

    name: str
    label: str
    series: dict[str, dict[str, float]]
    log: bool = False

    @property
    def places(self) -> list[float]:
        """All x in ascending order."""
        return sorted({x for points in self.series.values() for x in points.values()})


@dataclass(frozen=True)
class Profile:
    """Metrics along an axis: {metric: x}; ``value`` names what they all measure, ``variants`` {variant: its label}."""

    name: str
    label: str
    value: str
    metrics: dict[str, float]
    variants: dict[str, str]


@dataclass(frozen=True)
class Plan:
    """The content of a plan file; see the module docstring."""

    name: str
    title: str
    variants: list[Variant]
    baseline: str
    metrics: list[str]
    num_gpus: int | str = "auto"
    sweeps: list[Sweep] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)

    def runs(self, only: str = "*") -> list[Run]:
        """The runs, in order, whose name ("variant/seed0") or variant matches the pattern ``only``.

        Raises:
            ValueError: if there is none.
        """
        every = [run for variant in self.variants for run in variant.runs]
        found = [run for run in every if fnmatchcase(run.name, only) or fnmatchcase(run.variant, only)]
        if not found:
            raise ValueError(f"--only {only}: no run matches; there are {', '.join(run.name for run in every)}.")
        return found


def read_plan(path: Path) -> Plan:
    """Read and check a plan.

    Raises:
        FileNotFoundError: if the file, or a config that it names, does not exist.
        ValueError: if it is not a valid plan; the message names file and key.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such plan. Plans are YAML files, e.g. experiments/main.yaml.")
    try:
        text = path.read_text(encoding="utf-8")
        check_yaml(text, str(path))
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not a YAML file ({error}).") from error
    _check_keys(path, "the plan", data, {"variants", "seeds"}, _PLAN_KEYS)
    is_list = isinstance(data["variants"] or [], list)
    _check(path, f"variants: {data['variants']!r} must be a list like [{{name: a}}, {{name: b}}]", is_list)
    data = {"baseline": _first_name(data["variants"]), "metrics": list(METRICS)} | data
    data["baseline"] = str(data["baseline"])  # names that YAML reads as numbers
    variants = [_variant(path, data, entry) for entry in data["variants"] or []]
    names = [variant.name for variant in variants]
    _check(path, "variants: there are none", bool(names))
    _check(path, f"variants: a name occurs twice in {names}", len(set(map(str.lower, names))) == len(names))
    _check(path, f"baseline: {data['baseline']!r} is not one of the variants {names}", data["baseline"] in names)
    for variant in variants:
        unknown = sorted(set(variant.against) - set(names))
        _check(path, f"variant {variant.name}: against names unknown variants {unknown}", not unknown)
    metrics = data["metrics"]
    is_list = isinstance(metrics, list) and bool(metrics) and all(isinstance(m, str) and "/" in m for m in metrics)
    _check(path, f"metrics: {metrics!r} must be a list like [sem_seg/mIoU]", is_list)
    num_gpus = data.get("num_gpus", "auto")
    _check(path, f"num_gpus: {num_gpus!r} must be 0, 1 or auto", num_gpus in (0, 1, "auto"))
    return Plan(
        name=path.stem,
        title=str(data.get("title", path.stem)),
        variants=variants,
        baseline=data["baseline"],
        metrics=metrics,
        num_gpus=num_gpus,
        sweeps=[_sweep(path, name, entry, names) for name, entry in (data.get("sweeps") or {}).items()],
        profiles=[_profile(path, name, entry, names) for name, entry in (data.get("profiles") or {}).items()],
    )


_PLAN_KEYS = {"title", "config", "opts", "seeds", "baseline", "metrics", "num_gpus", "variants", "sweeps", "profiles"}
_RESERVED = {"SEED": "seeds belong under `seeds`", "OUTPUT_DIR": "the runner gives every run a folder"}


def _first_name(entries: list[Any] | None) -> Any:
    return entries[0].get("name") if entries and isinstance(entries[0], dict) else None


def _variant(path: Path, data: dict, entry: Any) -> Variant:
    _check_keys(path, "variants", entry, {"name"}, {"name", "config", "opts", "seeds", "against", "note"})
    name = str(entry["name"])
    _check(path, f"variants: the name {name!r} must consist of letters, digits and _ . + -", bool(NAME.fullmatch(name)))
    config = entry.get("config", data.get("config"))
    _check(path, f"variant {name}: neither the variant nor the plan names a config", isinstance(config, str))
    opts = {}
    for source in (data.get("opts") or {}, entry.get("opts") or {}):
        _check(path, f"variant {name}: opts must be a table of KEY: value, not {source!r}", isinstance(source, dict))
        opts |= source
    for key, reason in _RESERVED.items():
        _check(path, f"variant {name}: opts must not hold {key}: {reason}", key not in opts)
    seeds = entry.get("seeds", data["seeds"])
    right = isinstance(seeds, list) and bool(seeds) and all(type(seed) is int and seed >= 0 for seed in seeds)
    _check(path, f"variant {name}: seeds {seeds!r} must be different numbers", right and len(set(seeds)) == len(seeds))
    runs = [Run(name, seed, find_config(path, config), opts) for seed in seeds]
    against = entry.get("against", [] if name == data["baseline"] else [data["baseline"]])
    _check(path, f"variant {name}: against {against!r} must be a list of variants", isinstance(against, list))
    return Variant(name, runs, list(map(str, against)), str(entry.get("note", "")))


def find_config(plan: Path, config: str) -> str:
    """The config's path as given, relative to the working directory, or else to the project's folder."""
    for base in (Path(), ROOT):
        if (base / config).is_file():
            return str(base / config)
    raise FileNotFoundError(f"{plan}: config {config}: no such file here nor in the folder of train_net.py.")


def _sweep(path: Path, name: str, entry: Any, variants: list[str]) -> Sweep:
    _check_keys(path, f"sweep {name}", entry, {"label", "series"}, {"label", "series", "log"})
    series = entry["series"]
    _check(
        path,
        f"sweep {name}: series must be a table of tables, not {series!r}",
        bool(series) and isinstance(series, dict),
    )
    for points in series.values():
        _check(path, f"sweep {name}: a series must be a table of variant: number, not {points!r}", _is_axis(points))
        unknown = sorted(set(points) - set(variants))
        _check(path, f"sweep {name}: unknown variants {unknown}", not unknown)
    return Sweep(name, str(entry["label"]), series, bool(entry.get("log", False)))


def _profile(path: Path, name: str, entry: Any, names: list[str]) -> Profile:
    needed = {"label", "value", "metrics"}
    _check_keys(path, f"profile {name}", entry, needed, needed | {"variants"})
    metrics = entry["metrics"]
    _check(path, f"profile {name}: metrics must be a table of metric: number, not {metrics!r}", _is_axis(metrics))
    lines = entry.get("variants", {variant: variant for variant in names})
    right = isinstance(lines, dict) and bool(lines)
    _check(path, f"profile {name}: variants must be a table of variant: name in the picture, not {lines!r}", right)
    unknown = [variant for variant in lines if variant not in names]
    _check(path, f"profile {name}: there is no variant {', '.join(map(repr, unknown))}", not unknown)
    return Profile(name, str(entry["label"]), str(entry["value"]), metrics, {v: str(lines[v]) for v in lines})


def _is_axis(points: Any) -> bool:
    return isinstance(points, dict) and bool(points) and all(type(x) in (int, float) for x in points.values())


def _check_keys(path: Path, where: str, entry: Any, needed: set[str], known: set[str]) -> None:
    _check(path, f"{where}: {entry!r} must be a table with the keys {sorted(known)}", isinstance(entry, dict))
    missing, unknown = sorted(needed - set(entry)), sorted(map(str, set(entry) - known))
    problem = f"{where}: keys missing {missing}, unknown {unknown}; known are {sorted(known)}"
    _check(path, problem, not missing + unknown, "".join(did_you_mean(key, sorted(known)) for key in unknown))


def _check(path: Path, problem: str, is_right: bool, hint: str = "") -> None:
    if not is_right:
        raise ValueError(f"{path}: {problem}.{hint}")
