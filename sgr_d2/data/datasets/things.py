"""Registers, looks up and compares data sets of instances in Detectron2's catalogs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import load_coco_json

from sgr_d2.data.datasets.catalog import (
    SemanticMetadata,
    claim_name,
    describe_root,
    load_records,
    require_registered,
    shared_metadata,
)
from sgr_d2.data.datasets.palette import generate_colors
from sgr_d2.data.instance_maps import NO_INSTANCE


def register_things(
    name: str, load: Callable[[], list[dict[str, Any]]], *, owner: str, classes: Sequence[str], **metadata: Any
) -> None:
    """Register a data set of instances, evaluated by COCO's metrics; an earlier registration by ``owner`` is replaced.

    Args:
        name: of the data set.
        load: returns its records, in Detectron2's format; called when the data set is used.
        owner: who registers it; only the same owner can replace it.
        classes: C names.
        metadata: further entries of Detectron2's metadata ("json_file", "thing_colors", ...).

    Raises:
        ValueError: if the name belongs to another data set.
    """
    content = {"thing_classes": list(classes), "evaluator_type": "coco", **metadata}
    present = claim_name(name, load, owner=owner, content=content)
    if "json_file" not in content and present.get("json_file"):
        del present.json_file  # which COCO's evaluation has made, in the output folder of another config


def load_coco(name: str, json_file: Path, image_root: Path) -> list[dict[str, Any]]:
    """Read annotations in COCO's format with Detectron2's reader; category ids become 0..C-1.

    Raises:
        FileNotFoundError: if there is no such file or folder; for all else see `load_records`.
    """
    for path in (json_file, image_root):
        if not path.exists():
            raise FileNotFoundError(f"{name}: there is no {path.absolute()}. {describe_root()} See datasets/README.md.")
    return load_coco_json(str(json_file), str(image_root), name)


def thing_metadata_of(names: Sequence[str]) -> SemanticMetadata:
    """Return the instance classes and colours that the data sets share; the ignore label is NO_INSTANCE.

    Raises:
        ValueError: if there are no names or an unknown one, if a data set has no such classes, or if they differ.
    """
    return shared_metadata(names, _metadata)


def _metadata(name: str) -> SemanticMetadata:
    require_registered(name)
    metadata = MetadataCatalog.get(name)
    if not metadata.get("thing_classes"):
        load_records(name)  # Detectron2's register_coco_instances learns the classes from the file
    classes = list(metadata.get("thing_classes", ()))
    if not classes:
        raise ValueError(f"Data set {name!r} has no classes of instances (metadata key thing_classes).")
    colors = metadata.get("thing_colors") or generate_colors(len(classes))
    return SemanticMetadata(classes, [tuple(color) for color in colors], NO_INSTANCE)
