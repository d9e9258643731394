"""Registers, looks up and compares semantic data sets in Detectron2's catalogs."""

import difflib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import log_first_n

from sgr_d2.data.datasets.palette import generate_colors
from sgr_d2.messages import first_few

ROOT_VARIABLE = "DETECTRON2_DATASETS"
DEFAULT_IGNORE_LABEL = 255

logger = logging.getLogger(__name__)


class SemanticMetadata(NamedTuple):
    """The meaning of the labels of a data set.

    Attributes:
        classes: C names.
        colors: C colours (R, G, B), 0..255.
        ignore_label: label of unlabelled pixels.
    """

    classes: list[str]
    colors: list[tuple[int, int, int]]
    ignore_label: int


def dataset_root() -> Path:
    """Return the folder with the data sets: $DETECTRON2_DATASETS, or ``datasets`` in the working directory."""
    return Path(os.environ.get(ROOT_VARIABLE) or "datasets").expanduser()


def describe_root() -> str:
    """Return a sentence for error messages on where data sets are looked for, and why."""
    value = os.environ.get(ROOT_VARIABLE)
    if value:
        return f"${ROOT_VARIABLE} is set to {value}."
    return f"${ROOT_VARIABLE} is not set, so data sets are looked for in {dataset_root().absolute()}."


def register_semantic(
    name: str,
    load: Callable[[], list[dict[str, Any]]],
    *,
    owner: str,
    classes: Sequence[str],
    colors: Sequence[Sequence[int]] | None = None,
    ignore_label: int = DEFAULT_IGNORE_LABEL,
    image_root: str | os.PathLike,
    sem_seg_root: str | os.PathLike,
    evaluator_type: str = "sem_seg",
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Register a data set in both catalogs. Doing so again replaces it.

    Args:
        name: of the data set.
        load: returns its records; called when the data set is used.
        owner: who registers it ("camvid", "folders", ...); only the same owner can replace it.
        classes, colors, ignore_label: see :class:`SemanticMetadata`; colours are generated if None.
        image_root, sem_seg_root: folders of images and labels.
        evaluator_type: key of the table of evaluators.
        extra: further metadata.

    Raises:
        ValueError: if the name belongs to another data set.
    """
    claim_name(
        name,
        load,
        owner=owner,
        content={
            **(extra or {}),
            "stuff_classes": list(classes),
            "stuff_colors": [tuple(color) for color in colors or generate_colors(len(classes))],
            "ignore_label": ignore_label,
            "evaluator_type": evaluator_type,
            "image_root": str(image_root),
            "sem_seg_root": str(sem_seg_root),
        },
    )


def claim_name(
    name: str, load: Callable[[], list[dict[str, Any]]], *, owner: str, content: Mapping[str, Any]
) -> Metadata:
    """Register a data set in both catalogs, or replace what ``owner`` has registered under its name.

    If the content is that of before, the metadata stay, to which others may hold a reference, and to which reading the
    files has added the ids of the categories, without which COCO's evaluation is wrong.

    Args:
        name, load, owner: see :func:`register_semantic`.
        content: of the metadata.

    Returns:
        The metadata.

    Raises:
        ValueError: if the name belongs to another data set.
    """
    content = {**content, "registered_by": owner}
    if name in DatasetCatalog:
        present = MetadataCatalog.get(name)
        if present.get("registered_by") != owner:
            raise ValueError(f"The name {name!r} already belongs to another data set; choose another one.")
        if present.get("registered_content") == content:
            DatasetCatalog[name] = load
            return present
        _free_name(name)
    DatasetCatalog.register(name, load)
    return MetadataCatalog.get(name).set(**content, registered_content=content)


def _free_name(name: str) -> None:
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def register_published(name: str, load: Callable[[], list[dict[str, Any]]], *, owner: str, **options: Any) -> None:
    """Like :func:`register_semantic`, for a name that other code registers, too.

    Detectron2's own entry, whose folder is fixed when Detectron2 is imported, is replaced; that of other code is kept.
    """
    if name in DatasetCatalog and getattr(DatasetCatalog[name], "__module__", "").startswith("detectron2."):
        _free_name(name)
    elif name in DatasetCatalog and MetadataCatalog.get(name).get("registered_by") != owner:
        logger.info("%s is already registered by other code; that registration is kept.", name)
        return
    register_semantic(name, load, owner=owner, **options)


def semantic_names() -> list[str]:
    """Return the names of the registered data sets that have semantic classes."""
    known = (name for name in DatasetCatalog.list() if name in MetadataCatalog.list())
    return sorted(name for name in known if MetadataCatalog.get(name).get("stuff_classes"))


def require_registered(name: str) -> None:
    """Raise ValueError, with the names that there are, if no data set, of any task, has this one."""
    if name in DatasetCatalog:
        return
    known = sorted(DatasetCatalog.list())
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"Unknown data set {name!r}.{hint} Known: {', '.join(known)}. Your own folders go under "
        "DATASETS.FOLDERS of a config; give that config to the tools."
    )


def get_dataset_records(name: str) -> list[dict[str, Any]]:
    """Return the records of a data set.

    If its metadata have ``num_published``, the number of images in its release, another number is a warning, once.

    Raises:
        ValueError: if the name is unknown, or the data set is empty.
    """
    require_registered(name)
    records, metadata = load_records(name), MetadataCatalog.get(name)
    folder = metadata.get("image_root", "an unknown folder")
    if not len(records):
        raise ValueError(f"Data set {name!r} is empty: no images in {folder}.")
    published = metadata.get("num_published", len(records))
    if len(records) != published:
        log_first_n(
            logging.WARNING,
            f"{name}: {len(records)} images in {folder}, but its release has {published}: results are not those of the "
            "whole split. Prepare it as datasets/README.md describes.",
            key="message",
        )
    return records


def load_records(name: str) -> list[dict[str, Any]]:
    """The records of a registered data set.

    Raises:
        FileNotFoundError: if its annotation file does not exist.
        ValueError: if the file is not one that Detectron2's reader of COCO's format can read.
    """
    metadata = MetadataCatalog.get(name)
    file = metadata.get("json_file") if metadata.get("evaluator_type") == "coco" else None
    if file and "://" not in str(file) and not PathManager.isfile(file):
        raise FileNotFoundError(
            f"{name}: there is no {Path(file).absolute()}. {describe_root()} See datasets/README.md."
        )
    try:
        return DatasetCatalog.get(name)
    except (LookupError, TypeError, AssertionError, ValueError) as error:
        if file is None:
            raise
        what = f"no {error}" if type(error) is KeyError and len(str(error)) < 40 else error
        raise ValueError(f"{name}: {file} is not in COCO's format for instances: {what}") from error


def require_folders(names: Sequence[str]) -> None:
    """Fail early, before a model is built, if the folders of a data set are missing; for one of DATASETS.FOLDERS, also
    if an image or a label has no partner.

    Raises:
        FileNotFoundError, ValueError: from `get_dataset_records`.
    """
    for name in names:
        metadata = MetadataCatalog.get(name)
        roots = [metadata.get(key) for key in ("image_root", "sem_seg_root")]
        if metadata.get("registered_by") == "folders" or any(root and not Path(root).is_dir() for root in roots):
            get_dataset_records(name)


def metadata_of(names: Sequence[str]) -> SemanticMetadata:
    """Return the classes, colours and ignore label that the data sets share.

    Raises:
        ValueError: if there are no names or an unknown one, if a data set has not one colour per class, or if the data
            sets differ in classes or ignore label.
    """
    return shared_metadata(names, _metadata)


def shared_metadata(names: Sequence[str], read: Callable[[str], SemanticMetadata]) -> SemanticMetadata:
    """Return what ``read`` gives for each of the data sets.

    Raises:
        ValueError: if there are no names, or if the data sets differ in classes or ignore label; or from ``read``.
    """
    if not names:
        raise ValueError("DATASETS.TRAIN and DATASETS.TEST are empty; name at least one data set.")
    first, *others = map(read, names)
    for name, other in zip(names[1:], others, strict=True):
        if other.classes != first.classes or other.ignore_label != first.ignore_label:
            raise ValueError(
                f"Data sets {names[0]!r} and {name!r} cannot be used together: {_difference(first, other)}. All of "
                "DATASETS.TRAIN and DATASETS.TEST must agree in this."
            )
    return first


def _metadata(name: str) -> SemanticMetadata:
    require_registered(name)
    metadata = MetadataCatalog.get(name)
    classes = list(metadata.get("stuff_classes", ()))
    if not classes:
        kind = metadata.get("evaluator_type")
        hint = f" Its evaluator_type is {kind!r}; for detection it must be 'coco'." if kind else ""
        raise ValueError(f"Data set {name!r} has no semantic classes (metadata key stuff_classes).{hint}")
    if metadata.get("ignore_label") is None:
        raise ValueError(
            f"The metadata of data set {name!r} has no 'ignore_label'. Set it "
            f"where you register the data set: MetadataCatalog.get({name!r}).ignore_label = {DEFAULT_IGNORE_LABEL}"
        )
    colors = metadata.get("stuff_colors") or generate_colors(len(classes))
    if len(colors) != len(classes):
        raise ValueError(
            f"The metadata of data set {name!r} has {len(colors)} stuff_colors for {len(classes)} stuff_classes: give "
            "one per class where you register the data set, or none."
        )
    return SemanticMetadata(classes, [tuple(color) for color in colors], metadata.ignore_label)


def _difference(first: SemanticMetadata, other: SemanticMetadata) -> str:
    if first.ignore_label != other.ignore_label:
        return f"their ignore labels are {first.ignore_label} and {other.ignore_label}"
    if len(first.classes) != len(other.classes):
        alone = [
            name for name in (*first.classes, *other.classes) if (name in first.classes) != (name in other.classes)
        ]
        names = f" ({first_few(alone, 5)} in one alone)" if alone else ""
        return f"they have {len(first.classes)} and {len(other.classes)} classes{names}"
    index = next(i for i, (a, b) in enumerate(zip(first.classes, other.classes, strict=True)) if a != b)
    return f"their class {index} is {first.classes[index]!r} and {other.classes[index]!r}"
