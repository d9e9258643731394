"""The settings of a run, in a form small enough to keep, and their differences from those wanted now."""

import hashlib
import json
from functools import cache
from typing import Any

from detectron2.config import CfgNode, get_cfg

from sgr_d2.config import get_sgr_cfg
from sgr_d2.engine import load_config
from sgr_d2.engine.machine import fit_to_machine

from .plan import Run

# They change where and how fast a run is made, but not its results.
NOT_COMPARED = {
    "OUTPUT_DIR",
    "MODEL.DEVICE",
    "SOLVER.CHECKPOINT_PERIOD",
    "DATALOADER.NUM_WORKERS",
    "TEST.NUM_PICTURES",
    "VIS_PERIOD",
}

# What the code did before a key existed, if that is not the key's default. Add a key here if its default changes.
BEFORE_THE_KEY = {
    "MODEL.SGR.NORM": "LN",
    "MODEL.SGR.LOSS_GRADIENT": 1.0,
    "MODEL.SGR.REGION_LAYERS": 0,
    "MODEL.SGR.FUSION_RELATIVE": False,
}

# The keys of SGR that its peers read, too (`sgr_d2.modeling.peers`).
KEYS_OF_PEERS = {f"MODEL.SGR.{key}" for key in ("IN_FEATURES", "POSITION", "NORM", "FUSION_RELATIVE")}


def flat(node: CfgNode, prefix: str = "") -> dict[str, Any]:
    """{"A.B.C": value} of a config; tuples become lists, as in JSON."""
    result: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = list(value) if isinstance(value, tuple) else value
    return result


@cache
def detectron2_defaults() -> dict[str, Any]:
    """Detectron2's own defaults, which records leave out."""
    return flat(get_cfg())


def resolve(run: Run, *, cpu: bool = False) -> dict[str, Any]:
    """The settings with which one process makes a run: those that are not Detectron2's defaults, and all of sgr_d2's.

    Args:
        run: of a plan.
        cpu: use no GPU even if there is one.

    Raises:
        FileNotFoundError, KeyError, ValueError: from the config, with the name of the run in front of the message.
    """
    try:
        settings = _resolve(run.config, tuple(str(part) for pair in run.opts.items() for part in pair), cpu)
    except KeyError as error:
        raise KeyError(f"{run.name}: {error.args[0]}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{run.name}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{run.name}: {error}") from error
    return dict(sorted((settings | {"SEED": run.seed}).items()))


@cache
def _resolve(config_file: str, opts: tuple[str, ...], cpu: bool) -> dict[str, Any]:
    """The settings without the seed, which does not affect them: read once for all runs of a variant."""
    cfg = load_config(config_file, list(opts))
    return settings_of(flat(fit_to_machine(cfg, config_file, opts, world_size=1, cpu=cpu)))


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a ``flat`` config that is recorded: it differs from Detectron2's defaults and is compared."""
    usual = detectron2_defaults()
    found = {key: value for key, value in sorted(config.items()) if key not in usual or usual[key] != value}
    return json.loads(json.dumps({key: value for key, value in found.items() if key not in NOT_COMPARED}))


def hash_of(config: dict[str, Any]) -> str:
    """Twelve hexadecimal digits that identify the settings of ``resolve``."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def differences(made: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Differences between the settings that a run was made with and those wanted, one "KEY: old -> new" per key.

    A key that did not exist when the run was made only counts if its wanted value differs from the behaviour before:
    `BEFORE_THE_KEY`, or its default. Keys of SGR and of its components do not count between two models that do not read
    them.
    """
    usual, ours = detectron2_defaults(), flat(get_sgr_cfg()) | BEFORE_THE_KEY
    found = []
    for key in sorted(made.keys() | wanted.keys()):
        if not (_is_read(key, made) or _is_read(key, wanted)):
            continue
        old = made.get(key, usual.get(key, ours.get(key)))
        new = wanted.get(key, usual.get(key, "(no such key)"))
        if json.dumps(old) != json.dumps(new):
            found.append(f"{key}: {old} -> {new}")
    return found


def _is_read(key: str, settings: dict[str, Any]) -> bool:
    """Whether the model of these settings reads a key; keys outside of SGR always count."""
    if not key.startswith(("MODEL.SGR.", "INPUT.COMPONENTS.")) or settings.get("MODEL.SGR.ENABLED"):
        return True
    return settings.get("MODEL.META_ARCHITECTURE") == "PeerSegmentor" and key in KEYS_OF_PEERS
