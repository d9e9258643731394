"""Finds the configs of the package by name: those of `configs/` in a clone, and copies of them in a wheel."""

import difflib
from pathlib import Path

_PACKAGE = Path(__file__).parent


def config_file(name: str) -> str:
    """Return the path of a config such as "camvid/fpn_sgr_effnet_lite0".

    Raises:
        ValueError: if there is none of this name; the message lists similar ones.
    """
    folders = (_PACKAGE / "configs", _PACKAGE.parent / "configs")  # of a wheel, of a clone
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    path = folder / f"{name.removesuffix('.yaml')}.yaml"
    if not path.is_file():
        names = [str(file.relative_to(folder).with_suffix("")) for file in sorted(folder.rglob("*.yaml"))]
        similar = difflib.get_close_matches(name, names) or names[:3]
        raise ValueError(f"config_file({name!r}): {folder} has no such config; it has {', '.join(similar)}, ...")
    return str(path)
