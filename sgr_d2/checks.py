"""Checks of config values, whose errors name the key, the value and what is allowed."""

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from fvcore.common.registry import Registry

# Numbers that would otherwise be checked late or never: the smallest allowed value, and the bound they must stay below.
_RANGES = {
    "SOLVER.MAX_ITER": (1, math.inf),
    "SOLVER.IMS_PER_BATCH": (1, math.inf),
    "SOLVER.ACCUMULATION_STEPS": (1, math.inf),
    "SOLVER.BASE_LR": (0, math.inf),
    "SOLVER.WARMUP_ITERS": (0, math.inf),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": (0, math.inf),
    "INPUT.MAX_SIZE_TRAIN": (1, math.inf),
    "INPUT.MIN_SIZE_TEST": (0, math.inf),
    "INPUT.MAX_SIZE_TEST": (1, math.inf),
    "SOLVER.CHECKPOINT_PERIOD": (1, math.inf),
    "TEST.EVAL_PERIOD": (0, math.inf),
    "SOLVER.BACKBONE_MULTIPLIER": (0, math.inf),
    "SOLVER.SGR_MULTIPLIER": (0, math.inf),
    "SOLVER.WEIGHT_DECAY_EMBED": (0, math.inf),
    "DATALOADER.NUM_WORKERS": (0, math.inf),
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": (1, math.inf),
    "MODEL.SEM_SEG_HEAD.MASK_DIM": (1, math.inf),
    "MODEL.SGR.NUM_TOKENS": (1, math.inf),
    "MODEL.SGR.ENCODER_LAYERS": (0, math.inf),
    "MODEL.SGR.NUM_HEADS": (1, math.inf),
    "MODEL.TIMM.DROP_PATH_RATE": (0, 1),
    "MODEL.TIMM.SIZE_DIVISIBILITY": (0, math.inf),
    "MODEL.SWIN.DROP_PATH_RATE": (0, 1),
    "TEST.AUG.MAX_SIZE": (1, math.inf),
    "TEST.SLIDING_WINDOW.BATCH_SIZE": (1, math.inf),
    "TEST.NUM_PICTURES": (0, math.inf),
    "TEST.TOKEN_SEMANTICS.MIN_MASS": (0, 1),
}
_NORMS = ("", "BN", "SyncBN", "FrozenBN", "GN", "LN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N")
# Values of MODEL.BACKBONE.FREEZE_AT that do not ask to freeze: none, and Detectron2's default, meant for its ResNets.
_NOT_ASKED_TO_FREEZE = (0, 2)
# Pyramids on Detectron2's ResNets, whose levels are named by another key than those that the pyramid reads.
_RESNET_PYRAMIDS = [
    f"build_{prefix}{kind}_fpn_backbone" for prefix in ("", "sgr_") for kind in ("resnet", "retinanet_resnet")
]
# The values of MODEL.RESNETS.DEPTH that Detectron2 has, by backbone.
_RESNET_DEPTHS = {name: (18, 34, 50, 101, 152) for name in ("build_resnet_backbone", *_RESNET_PYRAMIDS)} | {
    "build_resnet_deeplab_backbone": (50, 101, 152)
}


def check_features(key: str, names: Iterable[str], available: Iterable[str], owner: str) -> None:
    """Raise ValueError unless ``names``, the value of ``key``, are features of ``owner``, at least one."""
    names, available = list(names), list(available)
    unknown = [name for name in names if name not in available]
    if unknown or not names:
        raise ValueError(
            f"{key} = {names}: {unknown or 'an empty list'} is not among the features of {owner}. "
            f"Choose from {available}."
        )


def check_choice(key: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise ValueError unless ``value``, the value of ``key``, is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{key} = {value!r}: choose from {list(choices)}.")


def check_ranges(cfg: CfgNode) -> None:
    """Raise ValueError unless the counts, rates and fractions of a config lie in their ranges."""
    for key, (least, below) in _RANGES.items():
        value = cfg
        for name in key.split("."):
            value = value[name]
        if not least <= value < below:
            rest = f" and less than {below}" if below < math.inf else ""
            raise ValueError(f"{key} = {value}: give {least} or more{rest}.")


def check_accumulation_steps(cfg: CfgNode, world_size: int) -> None:
    """Raise ValueError if a process gets fewer images per step than SOLVER.ACCUMULATION_STEPS."""
    steps, batch = cfg.SOLVER.ACCUMULATION_STEPS, cfg.SOLVER.IMS_PER_BATCH
    images = max(1, batch // world_size)  # a batch that is smaller is refused elsewhere
    if steps > images:
        each = f" of all {world_size} processes together, {images} image(s) each," if world_size > 1 else ""
        raise ValueError(
            f"SOLVER.ACCUMULATION_STEPS = {steps}: the batch{each} cannot be split into as many parts, as "
            f"SOLVER.IMS_PER_BATCH = {batch}. Give {images} or less, or IMS_PER_BATCH {steps * world_size} or more."
        )


def check_norms(cfg: CfgNode) -> None:
    """Raise ValueError unless the norms of a config are among those of Detectron2's ``get_norm``."""
    for part in ("RESNETS", "FPN", "SEM_SEG_HEAD"):
        check_choice(f"MODEL.{part}.NORM", cfg.MODEL[part].NORM, _NORMS)


def check_pixel_statistics(cfg: CfgNode) -> None:
    """Raise ValueError unless MODEL.PIXEL_MEAN and PIXEL_STD hold one number per colour, the latter above zero."""
    for key, values in (("MODEL.PIXEL_MEAN", cfg.MODEL.PIXEL_MEAN), ("MODEL.PIXEL_STD", cfg.MODEL.PIXEL_STD)):
        if len(values) != 3 or (key == "MODEL.PIXEL_STD" and min(values) <= 0):
            wanted = "three numbers above zero" if key == "MODEL.PIXEL_STD" else "three numbers"
            order = f"in the order of INPUT.FORMAT ({cfg.INPUT.FORMAT})"
            raise ValueError(f"{key} = {list(values)}: give {wanted}, {order}.")


def check_num_classes(cfg: CfgNode) -> None:
    """Raise ValueError unless MODEL.SEM_SEG_HEAD.NUM_CLASSES is at least 1."""
    if cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES < 1:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES = {cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES}: give the number of classes; only "
            "load_config takes it from the data sets."
        )


def check_point_classes(cfg: CfgNode) -> None:
    """Raise ValueError unless a PointRend head has two classes or more, in both of its parts."""
    for part in ("SEM_SEG_HEAD", "POINT_HEAD"):
        number = cfg.MODEL[part].NUM_CLASSES
        if number < 2:
            raise ValueError(
                f"MODEL.{part}.NUM_CLASSES = {number}: {cfg.MODEL.SEM_SEG_HEAD.NAME} chooses points where the best two "
                "classes are close. Label the rest of the image as a second class, or choose another head "
                "(MODEL.SEM_SEG_HEAD.NAME)."
            )


def check_subdivision(cfg: CfgNode) -> None:
    """Raise ValueError unless a PointRend head doubles its scores from their stride to the size of the image."""
    stride, steps = cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE, cfg.MODEL.POINT_HEAD.SUBDIVISION_STEPS
    if 2**steps != stride:
        fitting = math.log2(stride)
        remedy = f"Set it to {fitting:.0f}." if fitting.is_integer() else "Set the stride to a power of 2."
        raise ValueError(
            f"MODEL.POINT_HEAD.SUBDIVISION_STEPS = {steps}: {cfg.MODEL.SEM_SEG_HEAD.NAME} doubles its scores that "
            f"often in inference, from MODEL.SEM_SEG_HEAD.COMMON_STRIDE = {stride} to the size of the image. {remedy}"
        )


def check_registered(key: str, name: str, registry: Registry) -> None:
    """Raise ValueError unless ``name``, the value of ``key``, is in a registry of Detectron2."""
    if name in registry:
        return
    choices = sorted(registered for registered, _ in registry)
    near = difflib.get_close_matches(name, choices, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"{key} = {name!r} is not registered.{hint} Choose from {choices}, or add the module that registers it to "
        "IMPORTS."
    )


def check_resnet(cfg: CfgNode) -> None:
    """Raise ValueError if a ResNet has an unknown depth, or an FPN reads no levels, or some that it does not return."""
    if cfg.MODEL.BACKBONE.NAME in _RESNET_DEPTHS:
        check_choice("MODEL.RESNETS.DEPTH", cfg.MODEL.RESNETS.DEPTH, _RESNET_DEPTHS[cfg.MODEL.BACKBONE.NAME])
    if cfg.MODEL.BACKBONE.NAME in _RESNET_PYRAMIDS:
        owner = "the ResNet, MODEL.RESNETS.OUT_FEATURES (which may list res2 to res5)"
        check_features("MODEL.FPN.IN_FEATURES", cfg.MODEL.FPN.IN_FEATURES, cfg.MODEL.RESNETS.OUT_FEATURES, owner)


def check_common_stride(cfg: CfgNode, shape: Mapping[str, ShapeSpec]) -> None:
    """Raise ValueError unless doubling brings each feature to MODEL.SEM_SEG_HEAD.COMMON_STRIDE; for SemSegFPNHead."""
    head = cfg.MODEL.SEM_SEG_HEAD
    strides = [shape[name].stride for name in head.IN_FEATURES]
    if not all(math.log2(stride / head.COMMON_STRIDE) in range(16) for stride in strides):
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.COMMON_STRIDE = {head.COMMON_STRIDE}: SemSegFPNHead doubles the size of its features "
            f"up to that stride, but those of MODEL.SEM_SEG_HEAD.IN_FEATURES = {list(head.IN_FEATURES)} are {strides}. "
            f"Set it to {min(strides)}, or read other features."
        )


def check_freeze_at(cfg: CfgNode) -> None:
    """Raise ValueError if MODEL.BACKBONE.FREEZE_AT asks for frozen stages; for backbones that cannot freeze any."""
    if cfg.MODEL.BACKBONE.FREEZE_AT not in _NOT_ASKED_TO_FREEZE:
        raise ValueError(
            f"MODEL.BACKBONE.FREEZE_AT = {cfg.MODEL.BACKBONE.FREEZE_AT}: {cfg.MODEL.BACKBONE.NAME} cannot freeze "
            "stages, Detectron2's ResNets can. Set it to 0; with SOLVER.BACKBONE_MULTIPLIER 0 no parameter of the "
            "backbone is trained."
        )
