"""Maps the tensor names of published checkpoints to those of a model here.

A layout is a naming scheme. Every layout is tried, and the one with which most tensors of the file fit the model, by
name and shape, is used.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from .detector_keys import TRANSFERS


class Layout(NamedTuple):
    """How to rename the keys of a file: ``renames`` are (regular expression, replacement), applied in turn."""

    name: str
    renames: tuple[tuple[str, str], ...] = ()
    # The file contains only a backbone, so the model's own prefix has to be added to its keys.
    of_backbone: bool = False


# Among equally good layouts the first is used.
LAYOUTS = (
    Layout("the model's own"),
    Layout("Detectron2 backbone", of_backbone=True),
    # The published Mask2Former files: version 1 of its decoder called the query features static_query, and files of
    # MaskFormer's first release have the pixel decoder directly in the head (see its _load_from_state_dict for both).
    Layout(
        "Mask2Former",
        (
            (r"\.static_query\.", ".query_feat."),
            (r"^sem_seg_head\.(?!pixel_decoder\.|predictor\.)", "sem_seg_head.pixel_decoder."),
        ),
    ),
    Layout("model without FPN", ((r"^backbone\.(?!bottom_up\.)", "backbone.bottom_up."),)),
    Layout("model with FPN", ((r"^backbone\.bottom_up\.", "backbone."),)),
    *(Layout(name, renames) for name, renames in TRANSFERS.items()),
    # Also for timm's ResNets. Detectron2 numbers the stages by their stride.
    Layout(
        "torchvision ResNet",
        (
            *((rf"^layer{stage}\.", f"res{stage + 1}.") for stage in (1, 2, 3, 4)),
            (r"^(conv1|bn1|fc)\.", r"stem.\1."),
            (r"\bbn(\d)\.", r"conv\1.norm."),
            (r"\.downsample\.0\.", ".shortcut."),
            (r"\.downsample\.1\.", ".shortcut.norm."),
        ),
        of_backbone=True,
    ),
    # timm has patch merging at the start of a stage, Microsoft's Swin at the end of the previous one.
    Layout(
        "timm Swin",
        tuple((rf"^layers\.{stage}\.downsample\.", f"layers.{stage - 1}.downsample.") for stage in (1, 2, 3)),
        of_backbone=True,
    ),
    # timm's feature extractors flatten lists of stages.
    Layout("timm", ((r"^(stem|stages|layers|blocks)\.(\d)\.", r"\1_\2."),), of_backbone=True),
)

# Prefixes that wrappers add to every key of a file.
_WRAPPERS = re.compile(r"(?:(?:module|_orig_mod|model|backbone|bottom_up)\.)*")
# Where the backbone of a model is: backbone., backbone.bottom_up., backbone.model., ...
_BACKBONES = re.compile(r"(?:(?:backbone|bottom_up|model)\.)*")


def match_keys(file: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> tuple[str, dict[str, str]]:
    """Find the names under which the tensors of ``file`` fit ``model`` best.

    Args:
        file, model: state dicts. Only names and shapes are used.

    Returns:
        The name of the layout, and {key of the file: key for the model} for every key of the file, including those that
        the model does not have.
    """
    best, most = (LAYOUTS[0].name, {key: key for key in file}), -1
    prefixes = sorted({_BACKBONES.match(key)[0] for key in model}, key=len)
    for layout in LAYOUTS:
        for prefix in prefixes if layout.of_backbone else [""]:
            renamed = _rename(file, layout, prefix)
            fitting = sum(new in model and model[new].shape == file[old].shape for old, new in renamed.items())
            if fitting > most:
                best, most = (layout.name, renamed), fitting
    return best


def _rename(keys: Iterable[str], layout: Layout, prefix: str) -> dict[str, str]:
    keys = list(keys)
    wrapper = _wrapper(keys, everything=layout.of_backbone)
    result: dict[str, str] = {}
    taken = set()
    for key in keys:
        new = key.removeprefix(wrapper)
        for pattern, replacement in layout.renames:
            new = re.sub(pattern, replacement, new)
        new = prefix + new
        if new in taken:  # two tensors of one name: the first gets it
            new = key
        taken.add(new)
        result[key] = new
    return result


def _wrapper(keys: list[str], *, everything: bool) -> str:
    """The prefix of wrappers that all keys share; without ``everything``, only that of data-parallel training."""
    first = _WRAPPERS.match(keys[0])[0] if keys else ""
    if not everything:
        first = "module." if first.startswith("module.") else ""
    while first and not all(key.startswith(first) for key in keys):
        first = first[: first.rstrip(".").rfind(".") + 1]
    return first
