"""Other values for keys of a config, and errors that explain what is wrong with a key or a value."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from detectron2.config import CfgNode


def with_values(cfg: CfgNode, values: Mapping[str, Any]) -> CfgNode:
    """A frozen copy of a config with other values of some keys, {"MODEL.DEVICE": "cpu"}."""
    cfg = cfg.clone()
    cfg.defrost()
    for key, value in values.items():
        *path, name = key.split(".")
        reduce(getattr, path, cfg)[name] = value
    cfg.freeze()
    return cfg


def merge_options(cfg: CfgNode, opts: Sequence[str]) -> None:
    """Override keys of ``cfg`` by ["KEY", "value", ...].

    Raises:
        KeyError, ValueError: if a key is unknown (the message names similar ones), or a value is invalid or missing.
    """
    if flags := [str(opt) for opt in opts if str(opt).startswith("--")]:
        raise ValueError(f"command line: {' '.join(flags)} comes after KEY VALUE; put flags first.")
    if len(opts) % 2:
        raise ValueError(f"command line {' '.join(map(str, opts))}: give options in pairs, KEY VALUE KEY VALUE ...")
    try:
        cfg.merge_from_list(_with_floats(cfg, opts))
    except (AssertionError, KeyError, ValueError) as error:
        raise explained(error, cfg, f"command line {' '.join(map(str, opts))}") from error


def _with_floats(cfg: CfgNode, opts: Sequence[str]) -> list:
    """The options, with integers converted to floats for keys that hold a float: the config rejects 1 for 1.0."""
    opts = list(opts)
    for index, key in enumerate(opts[:-1:2]):
        node, value = cfg, opts[2 * index + 1]
        for name in str(key).split("."):
            node = node.get(name) if isinstance(node, CfgNode) else None
        if isinstance(node, float) and re.fullmatch(r"[+-]?\d+", str(value)):
            opts[2 * index + 1] = float(value)
    return opts


def explained(error: Exception, cfg: CfgNode, source: str) -> KeyError | ValueError:
    """The error with its source and, for an unknown key, similar keys; a KeyError stays a KeyError."""
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    match = re.search(r"Non-existent (?:config )?key: ([\w.]+)", text)
    if not match:
        if re.search(r"Type mismatch \(<class '(?:tuple|list)'> vs. <class '(?:str|int|float)'>\)", text):
            text += """. Give a list; on a command line: KEY "('value',)"."""
        return (KeyError if isinstance(error, KeyError) else ValueError)(f"{source}: {text}")
    near = difflib.get_close_matches(match[1], list(_keys(cfg)), n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return KeyError(f"{source}: there is no config key {match[1]}.{hint} Keys of your own need IMPORTS.")


def _keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
