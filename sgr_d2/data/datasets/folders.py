"""Your own data: a folder of images and a folder of label maps, registered by a config."""

import json
import os
from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from sgr_d2.data.datasets.catalog import DEFAULT_IGNORE_LABEL, describe_root, register_semantic
from sgr_d2.data.datasets.pairs import load_image_label_folder
from sgr_d2.data.label_values import Color, LabelMap, holds_colors
from sgr_d2.files import read_text

_REQUIRED_KEYS = ("IMAGE_DIR", "LABEL_DIR", "CLASSES")
_OPTIONAL_KEYS = ("IMAGE_SUFFIX", "LABEL_SUFFIX", "SPLIT", "IGNORE_LABEL", "LABEL_MAP", "COLORS")


def load_split(image_dir: Path, label_dir: Path, *, name: str, script: str) -> list[dict[str, Any]]:
    """``load_image_label_folder`` for a data set under the root; errors name the script in ``datasets`` to run."""
    check_folders(name, script, image_dir, label_dir)
    remedy = f"Run python datasets/{script} again: it makes what is missing, and lists what is wrong."
    return load_image_label_folder(image_dir, label_dir, name=name, remedy=remedy)


def check_folders(name: str, script: str, *folders: Path) -> None:
    """Raise FileNotFoundError if a folder of a data set that a script in ``datasets`` prepares is missing."""
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{name}: no folder {folder.absolute()}. {describe_root()} Download the data and run python "
                f"datasets/{script}, as datasets/README.md describes, or set the variable to the folder that holds the "
                "data sets."
            )


def register_folders(cfg: CfgNode, names: Collection[str] | None = None) -> None:
    """Register the entries of ``DATASETS.FOLDERS``, a node of {name: {IMAGE_DIR, LABEL_DIR, CLASSES, ...}}.

    CLASSES is a list of names or the path of a file: a JSON list, JSON {"classes": [...]}, or one name per line.
    Optional are IMAGE_SUFFIX and LABEL_SUFFIX (with which the file names end), SPLIT (a file that lists the images to
    use), IGNORE_LABEL (255), LABEL_MAP (a list whose item v is the label of value v in the files; or pairs [v, label];
    or, for files that hold colours, pairs [[R, G, B], label]) and COLORS (a list of [R, G, B], by default those of
    LABEL_MAP). Relative paths start at the working directory; ``~`` and environment variables are expanded. Folders and
    split are read once, when the data set is first used; registering it again makes its next use read them anew.

    Args:
        cfg: with DATASETS.FOLDERS.
        names: of the entries to register; None for all.

    Raises:
        FileNotFoundError: if the file of class names does not exist.
        ValueError: if an entry has an unknown, missing or invalid key, or a name that cannot be that of a folder.
    """
    folders = cfg.DATASETS.FOLDERS
    for name, entry in folders.items() if names is None else [(name, folders[name]) for name in names]:
        key = f"DATASETS.FOLDERS.{name}"
        if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\"):
            raise ValueError(f"{key}: the name {name!r} becomes that of a folder of results; it cannot hold / or \\.")
        _check_keys(entry, key)
        classes = _class_names(entry["CLASSES"], f"{key}.CLASSES")
        ignore_label = _ignore_label(entry.get("IGNORE_LABEL", DEFAULT_IGNORE_LABEL), len(classes), key)
        label_map = _label_map(entry.get("LABEL_MAP"), len(classes), ignore_label, f"{key}.LABEL_MAP")
        colors = _colors(entry.get("COLORS"), len(classes), f"{key}.COLORS")
        image_dir, label_dir = _expand(entry["IMAGE_DIR"]), _expand(entry["LABEL_DIR"])
        which = {
            "split": _expand(entry["SPLIT"]) if "SPLIT" in entry else None,
            "image_suffix": entry.get("IMAGE_SUFFIX", ""),
            "label_suffix": entry.get("LABEL_SUFFIX", ""),
        }
        register_semantic(
            name,
            _read_once(partial(load_image_label_folder, image_dir, label_dir, name=name, label_map=label_map, **which)),
            owner="folders",
            classes=classes,
            colors=colors or _colors_of(label_map, len(classes)),
            ignore_label=ignore_label,
            image_root=image_dir,
            sem_seg_root=label_dir,
            extra={"label_map": label_map, **which},  # in the metadata, so that a change replaces the entry
        )


def _read_once(load: Callable[[], list[dict[str, Any]]]) -> Callable[[], list[dict[str, Any]]]:
    """Keep what ``load`` returns, unless it fails; each call gets dicts of its own."""
    kept = cache(load)
    return lambda: [dict(record) for record in kept()]


def _check_keys(entry: Any, key: str) -> None:
    valid = f"Valid keys: {', '.join(_REQUIRED_KEYS)} (required), {', '.join(_OPTIONAL_KEYS)}."
    if not isinstance(entry, dict):
        raise ValueError(f"{key} must hold keys; got {entry!r}. {valid}")
    for unknown in sorted(entry.keys() - {*_REQUIRED_KEYS, *_OPTIONAL_KEYS}):
        raise ValueError(f"Unknown key {key}.{unknown}. {valid}")
    for required in _REQUIRED_KEYS:
        if not entry.get(required):
            raise ValueError(f"{key}.{required} is missing. {valid}")
    for path, kind in (("IMAGE_DIR", "folder"), ("LABEL_DIR", "folder"), ("SPLIT", "file")):
        if path in entry and not isinstance(entry[path], str):
            raise ValueError(f"{key}.{path} must be the path of a {kind}; got {entry[path]!r}.")
    for suffix in ("IMAGE_SUFFIX", "LABEL_SUFFIX"):
        if not isinstance(entry.get(suffix, ""), str):
            raise ValueError(f"{key}.{suffix} must be the end of the file names; got {entry[suffix]!r}.")


def _class_names(value: Any, key: str) -> list[str]:
    names = _read_class_file(_expand(value), key) if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        raise ValueError(f"{key} must be a list of names, or a file of them; got {value!r}.")
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(
            f"{key} must give at least one class name, none empty, all of them text; got {names!r}. YAML reads no, "
            "yes, on, off, null and numbers as other types, unless they are in quotes."
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{key} names {', '.join(repeated)} more than once.")
    return list(names)


def _read_class_file(path: Path, key: str) -> list[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{key}: no file {path.absolute()}; give a list of names or a file of them.")
    text = read_text(path, key)
    if path.suffix.lower() != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{key}: {path} is not valid JSON: {error}.") from error
    names = content.get("classes") if isinstance(content, dict) else content
    if not isinstance(names, list):
        raise ValueError(f'{key}: {path} must hold a list of names or {{"classes": [...]}}.')
    return names


def _colors(value: Any, count: int, key: str) -> list[tuple[int, ...]] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != count or not all(_is_color(color) for color in value):
        raise ValueError(f"{key} must hold {count} colours [R, G, B] of 0..255, one per class; got {value!r}.")
    return [tuple(color) for color in value]


def _is_color(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(x in range(256) for x in value)


def _is_index(value: Any, count: int) -> bool:
    return isinstance(value, int) and 0 <= value < count


def _ignore_label(value: Any, count: int, key: str) -> int:
    if not isinstance(value, int) or 0 <= value < count:
        hint = "If the values of the files are not class indices, map them with LABEL_MAP."
        if value == 0:
            shifted = [DEFAULT_IGNORE_LABEL, *range(count)]
            hint = f"If 0 is no class and the classes begin at 1, leave it out and set LABEL_MAP: {shifted}."
        raise ValueError(
            f"{key}.IGNORE_LABEL must be a whole number outside the class indices 0..{count - 1}; got {value!r}. {hint}"
        )
    return value


def _label_map(value: Any, count: int, ignore_label: int, key: str) -> LabelMap | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(
            f"{key} must be a list of labels, one for each value of the files from 0 on, or of pairs [value, label] or "
            f"[[R, G, B], label]; got {dict(value) if isinstance(value, dict) else value!r}."
        )
    in_pairs = all(isinstance(item, list | tuple) and len(item) == 2 for item in value)
    label_map = _from_pairs(value, key) if in_pairs else list(value)
    labels = label_map.values() if isinstance(label_map, dict) else label_map
    wrong = [label for label in labels if label != ignore_label and not _is_index(label, count)]
    if wrong:
        raise ValueError(
            f"{key} holds {wrong[0]!r}, neither the index of a class (0..{count - 1}) nor the ignore label "
            f"({ignore_label})."
        )
    return label_map


def _from_pairs(pairs: Sequence[Sequence[Any]], key: str) -> dict[int, int] | dict[Color, int]:
    in_colors = any(isinstance(value, list | tuple) for value, _ in pairs)
    what, item = ("colour, [R, G, B] of 0..255,", "colour") if in_colors else (f"value, of 0..{2**16 - 1},", "value")
    advice = f"Give each {what} one pair [{item}, label]."
    for value, _ in pairs:
        if not (_is_color(value) if in_colors else _is_index(value, 2**16)):
            raise ValueError(f"{key} has a label for {value!r}, which is not a {item} of label files. {advice}")
    label_map = {tuple(value) if in_colors else value: label for value, label in pairs}
    if len(label_map) < len(pairs):
        raise ValueError(f"{key} has two labels for a {item}. {advice}")
    return label_map


def _colors_of(label_map: LabelMap | None, count: int) -> list[Color] | None:
    """The first colour of each class in ``label_map``, if it maps colours and every class has one."""
    if not holds_colors(label_map):
        return None
    first = {label: color for color, label in reversed(label_map.items())}
    return [first[label] for label in range(count)] if all(label in first for label in range(count)) else None


def _expand(path: str) -> Path:
    return Path(os.path.expandvars(path)).expanduser()
