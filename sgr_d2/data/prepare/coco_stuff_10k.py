"""COCO-Stuff 10K: label maps in MATLAB files, of which there are two releases.

v1.1: MATLAB 5 files; 0 is not labelled, 1-182 are COCO ids, of which 171 are in use. v1.0: MATLAB 7.3 files (HDF5);
1 is not labelled, 2-172 are the 171 classes. Both store the map under the key ``S`` and use the same folders and names,
so the release is recognised from the file itself. Published results mix the two releases.
"""

import functools
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from sgr_d2.data.datasets.coco_stuff import PUBLISHED_10K, coco_stuff_classes
from sgr_d2.data.prepare.plan import IGNORE_LABEL, LabelRule, LabelTask, Plan, Split, add_strays

_FORMATS = {"1.1": "MATLAB 5", "1.0": "MATLAB 7.3 (HDF5)"}
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MATLAB5_SIGNATURE = b"MATLAB 5.0 MAT-file"


def plan_coco_stuff_10k(root: Path, *, release: str | None = None, partial: bool = False) -> Plan:
    """Plan ``coco/coco_stuff_10k/{images,annotations}_detectron2/{train,test}`` under ``root``.

    Args:
        root: contains coco/coco_stuff_10k with images/, annotations/ and imageLists/ as published.
        release: "1.1" or "1.0" to require that release; None to accept either.
        partial: leave out a split without a list, unless neither has one, and listed files that do not exist.

    Raises:
        FileNotFoundError: if a folder or the list of a split is missing.
        ValueError: if a list is empty, no file is of either release, or they are not of ``release``.
        ImportError: if the files are of release 1.0 and h5py is not installed.
    """
    folder = root / "coco" / "coco_stuff_10k"
    for name in ("images", "annotations", "imageLists"):
        if not (folder / name).is_dir():
            raise FileNotFoundError(
                f"No folder {(folder / name).absolute()}. datasets/README.md shows the expected tree; --root names "
                "another place."
            )
    splits = [_split(folder, name) for name in _listed(folder, partial)]
    _report_shared(splits)
    found = _release_of([task.source for split in splits for task in split.tasks], folder)
    if release not in (None, found):
        raise ValueError(
            f"{folder / 'annotations'}: its files are of release {found} ({_FORMATS[found]}), not {release} "
            f"({_FORMATS[release]}). Leave --release out to use them as they are, or download release {release}."
        )
    if found == "1.0" and importlib.util.find_spec("h5py") is None:
        raise ImportError(f"{folder / 'annotations'}: the HDF5 files of release 1.0 need h5py: pip install h5py")
    splits = [_of_present_files(split) for split in splits] if partial else splits
    return Plan(f"COCO-Stuff 10K, release {found} (171 classes)", folder, splits, _rule(found))


def recognise_release(path: Path) -> str | None:
    """Return "1.1" or "1.0" according to the first bytes of a .mat file, None if it is neither."""
    with path.open("rb") as file:
        head = file.read(2048 + len(_HDF5_SIGNATURE))
    # HDF5's signature may be at 0, 512, 1024, 2048, ...: MATLAB writes a text of 512 bytes before it.
    if any(head[start : start + len(_HDF5_SIGNATURE)] == _HDF5_SIGNATURE for start in (0, 512, 1024, 2048)):
        return "1.0"
    return "1.1" if head.startswith(_MATLAB5_SIGNATURE) else None


def read_mat(path: Path, release: str) -> np.ndarray:
    """Return the label map S, (H, W), of a .mat file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is of another release, damaged, or has no S.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, but its split lists it.")
    found = recognise_release(path)
    if found != release:
        what = f"of release {found} ({_FORMATS[found]})" if found else "not a MATLAB file, or truncated"
        raise ValueError(f"{path}: is {what}; the others are of release {release} ({_FORMATS[release]}).")
    try:
        values = _read_hdf5(path) if release == "1.0" else loadmat(path, variable_names=["S"]).get("S")
    except Exception as error:  # zlib, struct, h5py and scipy all have their own errors for damaged files
        raise ValueError(f"{path}: is damaged or truncated ({error}). Unpack the archive again.") from error
    if values is None or values.ndim != 2:
        raise ValueError(f"{path}: has no label map (a matrix S).")
    return values


def _read_hdf5(path: Path) -> np.ndarray | None:
    import h5py  # optional: only this release needs it

    with h5py.File(path, "r") as file:
        return np.array(file["S"]).T if "S" in file else None  # MATLAB stores columns first


def _listed(folder: Path, partial: bool) -> list[str]:
    missing = [name for name in PUBLISHED_10K if not (folder / "imageLists" / f"{name}.txt").is_file()]
    if missing and (not partial or len(missing) == len(PUBLISHED_10K)):
        raise FileNotFoundError(
            f"No list of the split {missing[0]}: {(folder / 'imageLists' / f'{missing[0]}.txt').absolute()}. It is "
            "in the archive of the data set; unpack that again."
        )
    return [name for name in PUBLISHED_10K if name not in missing]


def _split(folder: Path, name: str) -> Split:
    path = folder / "imageLists" / f"{name}.txt"
    keys = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not keys:
        raise ValueError(f"{path}: the list of the split is empty.")
    repeated = sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
    tasks = [
        LabelTask(
            source=folder / "annotations" / f"{key}.mat",
            target=folder / "annotations_detectron2" / name / f"{key}.png",
            image=folder / "images" / f"{key}.jpg",
            image_target=folder / "images_detectron2" / name / f"{key}.jpg",
        )
        for key in dict.fromkeys(keys)
    ]
    split = Split(name, tasks, PUBLISHED_10K[name], [f"{path}: lists {key} more than once." for key in repeated])
    return add_strays(split, folder / "images_detectron2" / name, folder / "annotations_detectron2" / name)


def _of_present_files(split: Split) -> Split:
    tasks = [task for task in split.tasks if task.source.is_file() and task.image.is_file()]
    return replace(split, tasks=tasks, left_out=len(split.tasks) - len(tasks))


def _report_shared(splits: list[Split]) -> None:
    first: dict[Path, str] = {}
    for split in splits:
        for task in split.tasks:
            other = first.setdefault(task.source, split.name)
            if other != split.name:
                split.problems.append(f"{task.source}: imageLists/{split.name}.txt lists it, and {other}.txt, too.")


def _release_of(paths: list[Path], folder: Path) -> str:
    """The release of the first file that is of either; a mixture is detected when the files are read."""
    for path in paths:
        found = recognise_release(path) if path.is_file() else None
        if found:
            return found
    raise ValueError(
        f"{folder / 'annotations'}: none of the {len(paths)} listed .mat files exists and is of release "
        f"{' or '.join(f'{name} ({text})' for name, text in _FORMATS.items())}."
    )


def _rule(release: str) -> LabelRule:
    classes = coco_stuff_classes()
    if release == "1.1":
        meaning = "0 (not labelled) and 1 to 182 (COCO ids; 171 of them are in use)"
        indices = {0: IGNORE_LABEL} | {entry.coco_id: label for label, entry in enumerate(classes)}
    else:
        meaning = "1 (not labelled) and 2 to 172"
        indices = {1: IGNORE_LABEL} | {label + 2: label for label in range(len(classes))}
    read = functools.partial(read_mat, release=release)
    return LabelRule(read=read, meaning=meaning, indices=indices, num_classes=len(classes))
