"""Other values for keys of a config, and errors that explain what is wrong with a key or a value."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from detectron2.config import CfgNode

from sgr_d2.messages import did_you_mean

# yacs' message about a value that is not of the type of the default
_WRONG_TYPE = re.compile(
    r"Type mismatch \(<class '(?P<type>.+?)'> vs\. <class '.+?'>\) with values \(.* vs\. (?P<given>.*)\) for .*"
    r"key: (?P<key>\S+)",
    re.DOTALL,
)
_LIST = """give a list; on a command line: KEY "('value',)", of numbers: KEY "(480, 640)\""""
_WANTED = {
    "bool": "write True or False",
    "int": "give a whole number",
    "float": "give a number",
    "str": "give text",
    "list": _LIST,
    "tuple": _LIST,
    "detectron2.config.config.CfgNode": "it holds keys of its own, KEY.NAME; give values to those",
}


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


def check_sections(cfg: CfgNode, content: Mapping[str, Any], prefix: str = "") -> None:
    """Raise ValueError if a key of a config file that holds keys of its own is given a value, or nothing."""
    for key, value in content.items():
        node = cfg.get(key)
        if not isinstance(node, CfgNode):
            continue
        if not isinstance(value, Mapping):
            raise ValueError(
                f"{prefix}{key} = {value}: it holds keys of its own. Write them below it, indented, or leave it out."
            )
        check_sections(node, value, f"{prefix}{key}.")


def explained(error: Exception, cfg: CfgNode, source: str) -> KeyError | ValueError:
    """The error with its source and, for an unknown key, similar keys, or for a value of a wrong type, what to write;
    a KeyError stays a KeyError.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    if match := re.search(r"Non-existent (?:config )?key: ([\w.]+)", text):
        hint = did_you_mean(match[1], list(_keys(cfg)), most=3)
        return KeyError(f"{source}: there is no config key {match[1]}.{hint} Keys of your own need IMPORTS.")
    if match := _WRONG_TYPE.match(text):
        text = f"{match['key']} = {match['given']}: {_WANTED.get(match['type'], 'it is of another type')}."
    if not text.startswith(source):  # what is wrong with the text of a file is told with its name
        text = f"{source}: {text}"
    return (KeyError if isinstance(error, KeyError) else ValueError)(text)


def _keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    """The names of all keys, also of those that hold keys of their own."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{key}.")
