"""SGR inside a backbone, for models that do not know about it: Detectron2's detectors.

Shape legend: B batch, C_l and H_l x W_l channels and size of level l.
"""

import logging
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.utils.logger import log_first_n
from torch import Tensor, nn

from sgr_d2.checks import check_features
from sgr_d2.modeling.padding import copy_to
from sgr_d2.modeling.randomness import own_random_numbers
from sgr_d2.modeling.sgr import SGR
from sgr_d2.structures import SGROutput

WRAPPED = "wrapped."


class SGRBackbone(Backbone):
    """Any backbone followed by SGR; names, shapes and strides of the features stay the same.

    Wrap the bottom-up network of an FPN (SGR on res2 to res5) or the FPN itself (SGR on p2 to p6).

    A backbone only gets the padded batch. Set ``image_sizes`` before each forward pass, as the models of
    `sgr_d2.modeling.detection` do; they are used for that pass only. Without them, padding is treated as image. The
    full output of SGR stays in ``output`` until the next pass or `take_output`.

    In a state dict the tensors of the wrapped backbone keep their names, and those of SGR begin with ``sgr.``, so any
    checkpointer can load the weights of a model without SGR into one with it, and vice versa.
    """

    def __init__(self, backbone: Backbone, sgr: SGR):
        """
        Args:
            backbone: images (B, 3, H, W) -> {name: (B, C_l, H_l, W_l)}.
            sgr: built for some of these levels.
        """
        super().__init__()
        self.wrapped = backbone
        self.sgr = sgr
        self.image_sizes: Iterable[tuple[int, int]] | None = None
        self.output: SGROutput | None = None
        self.register_state_dict_post_hook(_hide_wrapper)
        self.register_load_state_dict_pre_hook(_restore_wrapper)
        self.register_load_state_dict_post_hook(_hide_wrapper_in_report)

    def __getattr__(self, name: str) -> object:
        """Look up missing attributes in the wrapped backbone, such as ``bottom_up``; tensor names omit it, too."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "wrapped":
                raise
            return getattr(self.wrapped, name)

    @property
    def size_divisibility(self) -> int:
        return self.wrapped.size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        return self.wrapped.padding_constraints

    def output_shape(self) -> dict[str, ShapeSpec]:
        return self.wrapped.output_shape()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> {name: (B, C_l, H_l, W_l)}, with the levels of SGR refined."""
        sizes, self.image_sizes = self.image_sizes, None
        self.output = None  # frees the memory of the previous pass
        if sizes is None:
            sizes = [images.shape[-2:]] * len(images)
            log_first_n(
                logging.WARNING,
                "SGRBackbone does not know the sizes of the images: padding counts as image, and there is no component "
                "loss. Use a meta-architecture of sgr_d2 (MODEL.META_ARCHITECTURE SGRGeneralizedRCNN, SGRRetinaNet).",
            )
        sizes = copy_to(torch.tensor([tuple(size) for size in sizes]), images.device)
        self.output = self.sgr(self.wrapped(images), sizes)
        return self.output.features

    def take_output(self) -> SGROutput | None:
        """Return SGR's output of the last pass and drop it, so that its memory is freed after the backward pass."""
        output, self.output = self.output, None
        return output


def find_sgr_backbone(backbone: nn.Module) -> SGRBackbone | None:
    """The SGRBackbone that ``backbone`` is or contains, or None."""
    return next((module for module in backbone.modules() if isinstance(module, SGRBackbone)), None)


def insert_sgr(cfg: CfgNode, bottom_up: Backbone, build_pyramid: Callable[[Backbone], Backbone]) -> Backbone:
    """A pyramid on ``bottom_up``, with SGR on the levels of ``MODEL.SGR.IN_FEATURES``, of ``bottom_up`` or the pyramid.

    With ``MODEL.SGR.ENABLED`` False, the plain pyramid.

    Raises:
        ValueError: unless all levels belong to ``bottom_up``, or all to the pyramid.
    """
    if not cfg.MODEL.SGR.ENABLED:
        return build_pyramid(bottom_up)
    names, below = cfg.MODEL.SGR.IN_FEATURES, bottom_up.output_shape()
    if set(names) <= set(below):
        check_features("MODEL.SGR.IN_FEATURES", names, below, cfg.MODEL.BACKBONE.NAME)
        with own_random_numbers():
            sgr = SGR(cfg, below, refined=cfg.MODEL.FPN.IN_FEATURES)
        return build_pyramid(SGRBackbone(bottom_up, sgr))
    pyramid = build_pyramid(bottom_up)
    above = pyramid.output_shape()
    if not set(names) <= set(above):
        raise ValueError(
            f"MODEL.SGR.IN_FEATURES = {list(names)}: choose from {list(above)} of the pyramid, or from {list(below)} "
            f"below it ({cfg.MODEL.BACKBONE.NAME})."
        )
    with own_random_numbers():
        sgr = SGR(cfg, above)
    return SGRBackbone(pyramid, sgr)


def name_in_state_dict(name: str) -> str:
    """The name in the state dict of a module or tensor of a model that may contain an SGRBackbone."""
    return re.sub(rf"(^|\.){re.escape(WRAPPED)}", r"\1", name)


def _hide_wrapper(module: SGRBackbone, state: dict, prefix: str, _metadata: dict) -> None:
    for key in [key for key in state if key.startswith(prefix + WRAPPED)]:
        state[prefix + key.removeprefix(prefix + WRAPPED)] = state.pop(key)


def _restore_wrapper(module: SGRBackbone, state: dict, prefix: str, *_: object) -> None:
    for key in [key for key in state if key.startswith(prefix) and not key.startswith(f"{prefix}sgr.")]:
        state[prefix + WRAPPED + key.removeprefix(prefix)] = state.pop(key)


def _hide_wrapper_in_report(module: SGRBackbone, incompatible: NamedTuple) -> None:
    for keys in incompatible:
        keys[:] = [name_in_state_dict(key) for key in keys]
