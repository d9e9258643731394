"""The user's own modules, named in IMPORTS: they register parts of models and may add keys to the config."""

import importlib
import sys
from ast import literal_eval
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import IO, Any

from detectron2.config import CfgNode

from sgr_d2.config import get_sgr_cfg
from sgr_d2.yaml_mistakes import check_yaml


class _ConfigFile(CfgNode):
    """Opens a config file, and each of its bases, only if `check_yaml` finds no mistake."""

    @classmethod
    def _open_cfg(cls, filename: str) -> IO[str]:
        with super()._open_cfg(filename) as file:
            text = file.read()
        check_yaml(text, filename)
        return StringIO(text)


def config_with(names: Sequence[str]) -> CfgNode:
    """Import the modules and return the default config with any keys that their ``add_config(cfg)`` adds.

    Raises:
        ValueError: if a module cannot be found, or ``names`` is not a list of names.
    """
    cfg = get_sgr_cfg()
    for name in _checked(names):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"IMPORTS: {name} cannot be imported ({error}). Install it, or put its folder on PYTHONPATH."
            ) from error
        if hasattr(module, "add_config"):
            module.add_config(cfg)
    return cfg


def keys_of(config_file: str) -> dict[str, Any]:
    """The keys and values of a config file with its bases, nested.

    Raises:
        ValueError: if the file is empty or has no keys, or it or a base has a key twice.
    """
    advice = "the file, or one of _BASE_, holds no config: write keys and values, as in configs/."
    try:
        content = _ConfigFile.load_yaml_with_base(config_file, allow_unsafe=True)
    except (AttributeError, TypeError) as error:
        raise ValueError(advice) from error
    if not isinstance(content, dict):
        raise ValueError(advice)
    return content


def imports_of(content: Mapping[str, Any], opts: Sequence[str] = ()) -> list[str]:
    """The value of IMPORTS in KEY VALUE options, which take precedence, or in the keys of a config file.

    Raises:
        ValueError: if it is not a list of names.
    """
    given = imports_in(opts)
    return _checked(content.get("IMPORTS", [])) if given is None else given


def imports_in(opts: Sequence[str]) -> list[str] | None:
    """The value of IMPORTS in KEY VALUE options; None if it is not among them."""
    values = dict(zip(opts[::2], opts[1::2], strict=False))
    if "IMPORTS" not in values:
        return None
    value = values["IMPORTS"]
    try:
        return _checked(literal_eval(value) if isinstance(value, str) else value)
    except (SyntaxError, ValueError):
        return _checked(value)


def require_imported(names: Sequence[str]) -> None:
    """Check the names from a checkpoint, which may be a stranger's: nothing is imported because a file asks for it.

    Raises:
        ValueError: if a module has not been imported by the program itself.
    """
    absent = [name for name in _checked(names) if name not in sys.modules]
    if absent:
        raise ValueError(
            f"The config in the checkpoint has IMPORTS: {', '.join(absent)}, which would run code, so it is not "
            f'imported automatically. If you trust it, give IMPORTS "{list(names)}" (by --opts, or opts=), or '
            "import it in your program."
        )


def _checked(names: Any) -> list[str]:
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'IMPORTS = {names!r}: give a list of module names, such as ["my_package.my_module"].')
    return list(names)
