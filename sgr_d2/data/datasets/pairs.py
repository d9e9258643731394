"""Pairs images and label maps by their file names."""

import os
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from sgr_d2.data.label_values import LabelMap
from sgr_d2.files import read_text, walk_files
from sgr_d2.messages import first_few

IMAGE_TYPES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LABEL_TYPES = (".png", ".tif", ".tiff")


class Naming(NamedTuple):
    """Which files to use, and the id that the files of a pair share."""

    types: tuple[str, ...]
    """File extensions, in lower case."""
    suffix: str = ""
    """The end of the file names, including the extension ("_mask.png") or before it ("_mask")."""

    def id_of(self, path: str) -> str | None:
        """A relative path without extension and suffix; None for other files."""
        stem, file_type = os.path.splitext(path)
        if file_type.lower() not in self.types:
            return None
        whole = path if self.suffix.lower().endswith(self.types) else stem
        return _strip(whole, self.suffix)

    def id_in_list(self, line: str) -> str:
        """The id of a relative path in a list, with or without extension and suffix."""
        path = PurePosixPath(line).as_posix()
        stem, file_type = os.path.splitext(path)
        stem = stem if file_type.lower() in self.types else path
        return next(key for key in (self.id_of(path), _strip(stem, os.path.splitext(self.suffix)[0]), stem) if key)

    def describe(self) -> str:
        """The end of the file names, for messages."""
        if self.suffix.lower().endswith(self.types):
            return self.suffix
        return ", ".join(self.suffix + file_type for file_type in self.types)


def _strip(name: str, suffix: str) -> str | None:
    """``name`` without ``suffix``, ignoring case; None if it does not end with it."""
    if not name.lower().endswith(suffix.lower()):
        return None
    kept = name[: len(name) - len(suffix)].rstrip("/")  # just the folder, if the suffix is the whole file name
    return unicodedata.normalize("NFC", kept)  # macOS may write an umlaut as two characters


def load_image_label_folder(
    image_dir: str | os.PathLike,
    label_dir: str | os.PathLike,
    *,
    name: str = "data set",
    split: str | os.PathLike | None = None,
    image_suffix: str = "",
    label_suffix: str = "",
    label_map: LabelMap | None = None,
    remedy: str = "",
) -> list[dict[str, Any]]:
    """Pair images and labels by their relative path without suffix and extension, in all subfolders.

    Args:
        image_dir: contains .jpg, .jpeg, .png, .bmp, .tif, .tiff or .webp files, in upper or lower case.
        label_dir: contains .png, .tif or .tiff files. May be the same folder, if the suffixes separate labels from
            images.
        name: of the data set, for messages.
        split: a file with the relative paths of the images to use, one per line, with or without suffix and extension;
            None for all images.
        image_suffix: the end of the image names, including the extension or before it ("_leftImg8bit"); other images
            are left out.
        label_suffix: the same for labels ("_mask", "_gtFine_labelIds.png").
        label_map: maps the values of the files to labels; None if the values are labels.
        remedy: what to do if one of a pair is missing, for messages; by default, how to name them.

    Returns:
        [{file_name, sem_seg_file_name, image_id}], sorted by image_id, which is the relative path without suffix and
        extension; also with ``label_map`` if there is one.

    Raises:
        FileNotFoundError: if a folder, or the file of the split, does not exist.
        ValueError: if there are no images, two files have the same id, or one of a pair is missing.
    """
    of_images, of_labels = Naming(IMAGE_TYPES, image_suffix), Naming(LABEL_TYPES, label_suffix)
    together = Path(image_dir).resolve() == Path(label_dir).resolve()
    if together and image_suffix == label_suffix:
        raise ValueError(
            f"{name}: images and labels are both to be read from {image_dir}, and nothing tells them apart. Set "
            'LABEL_SUFFIX, e.g. "_mask", or both, e.g. IMAGE_SUFFIX ".jpg" and LABEL_SUFFIX ".png".'
        )
    images = _files_by_id(image_dir, of_images, f"{name}: image", rival=of_labels if together else None)
    labels = _files_by_id(label_dir, of_labels, f"{name}: label", rival=of_images if together else None)
    if not images:
        raise ValueError(f"{name}: no images ({of_images.describe()}) in {Path(image_dir).absolute()}.")
    if split is not None:
        listed = _listed(Path(split), images, of_images, name)
        images, labels = ({key: files[key] for key in listed & files.keys()} for files in (images, labels))
    advice = remedy or _advice(image_suffix, label_suffix)
    if lonely := sorted(images.keys() - labels.keys()):
        what = f"{len(lonely)} of {len(images)} images have no label in {label_dir}"
        advice += "" if remedy else _advice_on_type(label_dir, lonely[0], label_suffix)
        raise ValueError(f"{name}: {what}: {first_few([images[key] for key in lonely], 3)}. {advice}")
    if lonely := sorted(labels.keys() - images.keys()):
        what = f"{len(lonely)} of {len(labels)} labels have no image in {image_dir}"
        raise ValueError(f"{name}: {what}: {first_few([labels[key] for key in lonely], 3)}. {advice}")
    extra = {} if label_map is None else {"label_map": label_map}
    return [
        {"file_name": str(images[key]), "sem_seg_file_name": str(labels[key]), "image_id": key, **extra}
        for key in sorted(images)
    ]


def _files_by_id(folder: str | os.PathLike, naming: Naming, what: str, rival: Naming | None) -> dict[str, Path]:
    """{id: path} of the files that fit ``naming``. Those that also fit ``rival`` belong to the longer suffix."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{what} folder {Path(folder).absolute()} does not exist.")
    files: dict[str, Path] = {}
    for path in walk_files(folder):
        relative = path.relative_to(folder).as_posix()
        key = naming.id_of(relative)
        if key is None or (rival and len(rival.suffix) > len(naming.suffix) and rival.id_of(relative) is not None):
            continue
        if key in files:
            raise ValueError(f"{what} files {files[key]} and {path} only differ in file type; keep one of them.")
        files[key] = path
    return files


def _listed(split: Path, images: dict[str, Path], naming: Naming, name: str) -> set[str]:
    """The ids of the images listed in the file of a split."""
    if not split.is_file():
        raise FileNotFoundError(f"{name}: SPLIT: no file {split.absolute()}.")
    lines = [line.strip().replace("\\", "/") for line in read_text(split, f"{name}: SPLIT").splitlines()]
    listed = {naming.id_in_list(line) for line in lines if line}
    absent = sorted(listed - images.keys())
    if absent or not listed:
        what = f"{len(absent)} of {len(listed)} images are not in IMAGE_DIR: {first_few(absent, 3)}"
        raise ValueError(
            f"{name}: SPLIT {split}: {what if absent else 'names no image'}. Each line is the path of an image below "
            f"IMAGE_DIR, as {min(images)}."
        )
    return listed


def _advice_on_type(folder: str | os.PathLike, key: str, suffix: str) -> str:
    """Further advice if a file with the name of the label exists, but as an unsupported type such as JPEG; or ""."""
    stem = f"{key}{os.path.splitext(suffix)[0]}".casefold()
    for path in walk_files(folder):
        same = path.relative_to(folder).with_suffix("").as_posix().casefold() == stem
        if same and path.suffix.lower() in set(IMAGE_TYPES) - set(LABEL_TYPES):
            types = ", ".join(LABEL_TYPES)
            return (
                f" {path} exists, but labels are only read from {types}, which keep values: export them again, unless "
                "IMAGE_DIR and LABEL_DIR are swapped."
            )
    return ""


def _advice(image_suffix: str, label_suffix: str) -> str:
    if image_suffix or label_suffix:
        return f"Without IMAGE_SUFFIX {image_suffix!r} and LABEL_SUFFIX {label_suffix!r} their names must be the same."
    return "Image and label must share their name up to the file type; set LABEL_SUFFIX for names as town_mask.png."
