"""Tensor names for a transfer between segmentation models and detectors, and a check that the backbone is included.

SGR is next to the backbone in a segmentation model (``sgr.*``) and inside it in a detector: after the pyramid
(``backbone.sgr.*``) or below it, after the bottom-up network (``backbone.bottom_up.sgr.*``). All other names are the
same, except for the prefix ``bottom_up.`` if only one of the two models has an FPN.
"""

import re
from collections.abc import Collection, Iterable, Mapping

from torch import Tensor

from sgr_d2.messages import first_few

# {name: (regular expression, replacement), applied in turn}; each is a layout of `key_maps`.
TRANSFERS: dict[str, tuple[tuple[str, str], ...]] = {
    "segmentation model with FPN": ((r"^sgr\.", "backbone.sgr."),),
    "segmentation model without FPN": ((r"^backbone\.", "backbone.bottom_up."), (r"^sgr\.", "backbone.bottom_up.sgr.")),
    "detector": ((r"^backbone\.sgr\.", "sgr."),),
    "detector with SGR below its FPN": (
        (r"^backbone\.bottom_up\.sgr\.", "sgr."),
        (r"^backbone\.bottom_up\.", "backbone."),
    ),
}
# The parts that models of different tasks can share.
_SHARED = re.compile(r"(backbone|sgr)\.")


def transfer_keys(keys: Iterable[str]) -> dict[str, str]:
    """New names of the tensors of backbone and SGR in the other kind of model, {old: new}, going by names only.

    Names of a segmentation model become those of a detector with an FPN and SGR on the same levels; names of a detector
    become those of a segmentation model with SGR on the same levels. Heads are left out.

    Raises:
        ValueError: if there is no backbone among them.
    """
    shared = [key for key in keys if _SHARED.match(key)]
    if not any(key.startswith("backbone.") for key in shared):
        raise ValueError("no tensor is named backbone.*: not a checkpoint of a segmentation model or a detector.")
    renames = TRANSFERS[_layout_of(shared, list(keys))]
    return {key: _renamed(key, renames) for key in shared}


def check_backbone(fitting: Collection[str], file: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> None:
    """Check that a transfer between the two kinds of models includes the backbone.

    Args:
        fitting: names, in the model, of the tensors to be loaded.
        file: tensors by their names in the file.
        model: tensors by their names in the model.

    Raises:
        ValueError: if no tensor of the file's backbone fits; the rest would get features it was not trained on.
    """
    if is_detector(file) == is_detector(model):
        return
    there, wanted = _bottom_up(file), _bottom_up(model)
    if there and wanted and not wanted & set(fitting):
        some = first_few(sorted(there), 1)
        raise ValueError(
            f"MODEL.WEIGHTS: the file has another backbone: of its {len(there)} tensors ({some}) none fits the model. "
            "Set MODEL.BACKBONE, MODEL.TIMM and MODEL.RESNETS as in the run that wrote the file."
        )


def is_detector(keys: Iterable[str]) -> bool:
    """Whether the tensors are those of a detector."""
    return any(re.match(r"backbone\.(bottom_up\.)?sgr\.|(proposal_generator|roi_heads|head)\.", key) for key in keys)


def _bottom_up(keys: Iterable[str]) -> set[str]:
    """The keys of the network below the FPN, or of the backbone if there is no FPN; without SGR."""
    backbone = {key for key in keys if key.startswith("backbone.") and ".sgr." not in key}
    return {key for key in backbone if key.startswith("backbone.bottom_up.")} or backbone


def _layout_of(shared: list[str], keys: list[str]) -> str:
    pyramid = any(key.startswith("backbone.bottom_up.") for key in shared)
    if is_detector(keys):
        below = any(key.startswith("backbone.bottom_up.sgr.") for key in shared)
        return "detector with SGR below its FPN" if below else "detector"
    return "segmentation model with FPN" if pyramid else "segmentation model without FPN"


def _renamed(key: str, renames: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key
