"""Finds the files to predict from the user's arguments, and names their outputs."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sgr_d2.engine.inference.image_input import VIDEO_SUFFIXES
from sgr_d2.files import walk_files

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


class Input(NamedTuple):
    """One file to predict.

    Attributes:
        path: the file.
        name: of its outputs, without suffix; may include folders.
    """

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(arguments: Sequence[str], *, exclude: Path) -> list[Input]:
    """Find the given files, all images and videos below folders, and all matches of glob patterns, in order.

    Args:
        arguments: files, folders, patterns ("shots/**/*.jpg").
        exclude: a folder to leave out (that of the outputs).

    Raises:
        FileNotFoundError: if an argument does not exist or match anything.
        ValueError: if two files would write the same outputs.
    """
    found: dict[Path, str] = {}
    for argument in arguments:
        for path, name in _expand(argument, exclude.resolve()):
            found.setdefault(Path(os.path.abspath(path)), name)  # a link to another input is an input of its own
    return _named(found)


def _expand(argument: str, exclude: Path) -> Iterator[tuple[Path, str]]:
    path = Path(argument).expanduser()
    if path.is_file():
        yield path, path.name
        return
    if path.is_dir():
        files = [file for file in _files_below(path) if exclude not in file.resolve().parents]
        if not files and any(True for _ in _files_below(path)):
            raise FileNotFoundError(
                f"{argument}: all images and videos in it are in {exclude}, the folder of the results. Choose another "
                "--output."
            )
        if not files:
            raise FileNotFoundError(
                f"{argument}: no image or video in this folder ({', '.join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))})."
            )
        yield from ((file, file.relative_to(path).as_posix()) for file in files)
        return
    matches = sorted(Path(match) for match in glob.glob(os.path.expanduser(argument), recursive=True))
    matches = [match for match in matches if match.is_file() and exclude not in match.resolve().parents]
    if not matches:
        raise FileNotFoundError(f"{argument}: no such file or folder, and as a pattern it matches no file.")
    common = os.path.commonpath([match.parent for match in matches])
    yield from ((match, Path(os.path.relpath(match, common)).as_posix()) for match in matches)


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in walk_files(folder) if path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))


def other_types(arguments: Sequence[str], *, exclude: Path) -> Counter:
    """{suffix: number} of the files below the folders among the arguments that are neither predicted nor results."""
    folders = [path for path in (Path(argument).expanduser() for argument in arguments) if path.is_dir()]
    files = (path for folder in folders for path in walk_files(folder))
    suffixes = (path.suffix.lower() for path in files if exclude.resolve() not in path.resolve().parents)
    return Counter(suffix or "no suffix" for suffix in suffixes if suffix not in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))


def _named(found: dict[Path, str]) -> list[Input]:
    """Name the inputs without suffix; it is kept if names would be equal without: a.jpg, a.png -> a_jpg, a_png.

    It is also kept for a video next to a folder of its name, since its frames get such a folder.
    """
    stems = [str(Path(name).with_suffix("")) for name in found.values()]
    times = Counter(stems)
    folders = {str(folder) for name in found.values() for folder in Path(name).parents}
    inputs: dict[str, Input] = {}
    for (path, name), stem in zip(found.items(), stems, strict=True):
        beside_folder = Path(name).suffix.lower() in VIDEO_SUFFIXES and stem in folders
        alone = times[stem] == 1 and not beside_folder
        unique = stem if alone else f"{stem}_{Path(name).suffix.lstrip('.')}"
        if unique in inputs:
            raise ValueError(
                f"{inputs[unique].path} and {path} would write the same outputs ({unique}). Name the folder above "
                "both instead, or predict them into different --output folders."
            )
        inputs[unique] = Input(path, unique)
    return list(inputs.values())
