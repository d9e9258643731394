"""Plans of what to convert: label maps, the rule for their values, and their published number."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sgr_d2.data.datasets.pairs import IMAGE_TYPES
from sgr_d2.messages import first_few

IGNORE_LABEL = 255


@dataclass(frozen=True)
class LabelTask:
    """The conversion of one label map.

    Attributes:
        source: the published file.
        target: the PNG to write, of class indices and 255.
        image: the photograph, of the same size as the label map.
        image_target: where to put a copy of the photograph (a hard link if the file system supports it), or None.
    """

    source: Path
    target: Path
    image: Path
    image_target: Path | None = None


@dataclass(frozen=True)
class Split:
    """The label maps of a split.

    Attributes:
        name: of the split.
        tasks: one per label map.
        published: number of label maps in the release.
        problems: what is wrong with the files, one line per file.
        left_out: number of label maps left out because a partial release lacks one of their files.
    """

    name: str
    tasks: list[LabelTask]
    published: int
    problems: list[str] = field(default_factory=list)
    left_out: int = 0


class LabelRule:
    """How the values of a published label map become class indices.

    Args:
        read: file -> (H, W) integers; a module-level function, or a partial of one, so that it can be pickled.
        meaning: the published values in words, for messages.
        indices: published value -> class index, or 255 for "not labelled". Any other value is an error.
        num_classes: number of classes.
        hints: invalid value -> what probably happened.
    """

    def __init__(
        self,
        *,
        read: Callable[[Path], np.ndarray],
        meaning: str,
        indices: Mapping[int, int],
        num_classes: int,
        hints: Mapping[int, str] | None = None,
    ) -> None:
        self.read = read
        self.meaning = meaning
        self.num_classes = num_classes
        self.hints = dict(hints or {})
        self._table = np.full(256, -1, np.int16)
        self._table[list(indices)] = list(indices.values())

    def labels_of(self, path: Path) -> np.ndarray:
        """Return the (H, W) uint8 class indices of a published file.

        Raises:
            ValueError: if it holds a value that the release does not have.
        """
        values = np.asarray(self.read(path))
        if not values.size:
            raise ValueError(f"{path}: the label map is empty.")
        whole = values.astype(np.int64)
        inside = (whole == values) & (whole >= 0) & (whole < len(self._table))
        labels = self._table[np.where(inside, whole, 0)]
        wrong = ~inside | (labels < 0)
        if wrong.any():
            raise ValueError(self._describe(path, np.unique(values[wrong])))
        return labels.astype(np.uint8)

    def _describe(self, path: Path, wrong: np.ndarray) -> str:
        shown = first_few([f"{value:g}" for value in wrong])
        hints = " ".join(text for value, text in self.hints.items() if value in wrong)
        return f"{path}: holds {shown}; the values of this release are {self.meaning}.{' ' if hints else ''}{hints}"


@dataclass(frozen=True)
class Plan:
    """A data set to prepare: its title, folder and splits, and the rule for its labels."""

    title: str
    folder: Path
    splits: list[Split]
    rule: LabelRule


def pair_up(
    name: str,
    published: int,
    images: Mapping[str, Path],
    sources: Mapping[str, Path],
    targets: Callable[[str], Path],
    image_targets: Callable[[str], Path | None] = lambda key: None,
    *,
    partial: bool = False,
) -> Split:
    """Return a split of all keys that have both an image and a label map; the others become problems.

    With ``partial``, label maps without an image are left out; images without a label map are still problems, since
    training rejects them.
    """
    lonely = sorted(sources.keys() - images.keys())
    problems = [f"{images[key]}: has no label map." for key in sorted(images.keys() - sources.keys())]
    problems += [] if partial else [f"{sources[key]}: has no image." for key in lonely]
    keys = sorted(images.keys() & sources.keys())
    tasks = [LabelTask(sources[key], targets(key), images[key], image_targets(key)) for key in keys]
    return Split(name, tasks, published, problems, len(lonely) if partial else 0)


def add_strays(split: Split, *folders: Path) -> Split:
    """Add a problem for every image in ``folders`` that no task creates: training would use it."""
    made = {path for task in split.tasks for path in (task.target, task.image_target)}
    found = {path for folder in folders for path in files_by_key(folder, "*", "").values()}
    strays = sorted(path for path in found - made if path.suffix.lower() in IMAGE_TYPES)
    split.problems.extend(f"{path}: is not made from the published files; move it away." for path in strays)
    return split


def files_by_key(folder: Path, pattern: str, suffix: str) -> dict[str, Path]:
    """Return the files in ``folder`` that match, except hidden ones, by their relative path without ``suffix``."""
    found = (path for path in folder.glob(pattern) if not path.name.startswith("."))
    return {path.relative_to(folder).as_posix().removesuffix(suffix): path for path in found}


def present_splits(names: Iterable[str], folders: Callable[[str], tuple[Path, ...]], partial: bool) -> list[str]:
    """Return the splits whose folders all exist.

    Raises:
        FileNotFoundError: if a folder is missing (with ``partial``: if there is no complete split).
    """
    present = []
    missing: list[Path] = []
    for name in names:
        absent = [folder for folder in folders(name) if not folder.is_dir()]
        missing += absent
        if not absent:
            present.append(name)
    if missing and not (partial and present):
        raise FileNotFoundError(
            f"No folder {missing[0].absolute()}. datasets/README.md shows the expected tree; --root names another "
            "place."
        )
    return present


def mirrored_splits(
    published: Mapping[str, int], images: Path, sources: Path, targets: Path, *, partial: bool
) -> list[Split]:
    """Return the splits whose images are ``images/SPLIT/KEY.jpg``, and whose label maps, ``sources/SPLIT/KEY.png``,
    become ``targets/SPLIT/KEY.png``; see `pair_up` and `present_splits`.

    Raises:
        FileNotFoundError: from `present_splits`.
    """

    def split_of(name: str) -> Split:
        split = pair_up(
            name,
            published[name],
            files_by_key(images / name, "*.jpg", ".jpg"),
            files_by_key(sources / name, "*.png", ".png"),
            lambda key: targets / name / f"{key}.png",
            partial=partial,
        )
        return add_strays(split, targets / name)

    present = present_splits(published, lambda name: (images / name, sources / name), partial)
    return [split_of(name) for name in present]
