"""The classes of a data set, for commands that need a label for each pixel."""

from detectron2.data import DatasetCatalog, MetadataCatalog

from sgr_d2.data.datasets import SemanticMetadata, metadata_of


def semantic_metadata(name: str) -> SemanticMetadata:
    """Classes, colours and ignore label of a registered data set.

    Raises:
        ValueError: if there is no such data set, or it is one of instances; the message says where to read more.
    """
    if name in DatasetCatalog and not MetadataCatalog.get(name).get("stuff_classes"):
        raise ValueError(
            f"This tool is for semantic segmentation, but data set {name!r} has no semantic classes (metadata key "
            'stuff_classes): name one that has. For instances and detectors see "Use a trained detector" in '
            "docs/detection.md."
        )
    return metadata_of([name])
