"""Names in a config that must be among known ones; the error lists these."""

import difflib
from collections.abc import Iterable

from fvcore.common.registry import Registry


def check_features(key: str, names: Iterable[str], available: Iterable[str], owner: str) -> None:
    """Raise ValueError unless ``names``, the value of config key ``key``, are some features of ``owner``."""
    names, available = list(names), list(available)
    unknown = [name for name in names if name not in available]
    if unknown or not names:
        raise ValueError(
            f"{key} = {names}: {unknown or 'an empty list'} is not among the features of {owner}. "
            f"Choose from {available}."
        )


def check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    """Raise ValueError unless ``value``, that of config key ``key``, is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{key} = {value!r}: choose from {list(choices)}.")


def check_registered(key: str, name: str, registry: Registry) -> None:
    """Raise ValueError unless ``name``, the value of config key ``key``, is in a registry of Detectron2."""
    if name in registry:
        return
    choices = sorted(registered for registered, _ in registry)
    near = difflib.get_close_matches(name, choices, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{key} = {name!r} is not registered.{hint} Choose from {choices}.")
