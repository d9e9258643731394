"""Builds the model of a config for training or inference, and rejects contradictory settings."""

import torch
from detectron2 import modeling
from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from torch import nn

import sgr_d2.modeling  # noqa: F401  registers the models
from sgr_d2.checks import check_registered, check_resnet
from sgr_d2.modeling import SGR
from sgr_d2.modeling.sgr.pointwise import PointwiseConv2d

from .options import with_values


def check_parts(cfg: CfgNode) -> None:
    """Raise ValueError unless meta-architecture, backbone and head are registered, and any ResNet fits them."""
    check_registered("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, META_ARCH_REGISTRY)
    check_registered("MODEL.BACKBONE.NAME", cfg.MODEL.BACKBONE.NAME, BACKBONE_REGISTRY)
    check_registered("MODEL.SEM_SEG_HEAD.NAME", cfg.MODEL.SEM_SEG_HEAD.NAME, SEM_SEG_HEADS_REGISTRY)
    check_resnet(cfg)


def build_model(cfg: CfgNode) -> nn.Module:
    """Detectron2's ``build_model``, with the memory format of MODEL.CHANNELS_LAST.

    Raises:
        ValueError: if a part is not registered, or if the model does not have exactly one SGR with MODEL.SGR.ENABLED
            on, or none with it off, or if a GroupNorm cannot divide its channels.
    """
    check_parts(cfg)
    try:
        model = modeling.build_model(cfg)
    except ValueError as error:
        if "num_groups" not in str(error):
            raise
        raise ValueError(
            "GroupNorm (NORM: GN) has 32 groups, so it needs multiples of 32 channels. MODEL.SEM_SEG_HEAD.CONVS_DIM is "
            f"{cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM}, MODEL.FPN.OUT_CHANNELS {cfg.MODEL.FPN.OUT_CHANNELS}: change them, or "
            "the NORM of that part to SyncBN."
        ) from error
    found = sum(isinstance(module, SGR) for module in model.modules())
    # a peer replaces SGR and reads its keys
    wanted = cfg.MODEL.SGR.ENABLED and cfg.MODEL.META_ARCHITECTURE != "PeerSegmentor"
    if found != wanted:
        raise ValueError(
            f"MODEL.SGR.ENABLED is {cfg.MODEL.SGR.ENABLED}, but the model has {found} SGR modules: "
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} and MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME} "
            "do not go together. SGRSegmentor adds SGR itself, to any backbone without one; a detector needs a "
            "backbone with SGR, build_sgr_..._backbone."
        )
    return to_channels_last(model) if cfg.MODEL.CHANNELS_LAST else model


def without_initial_weights(cfg: CfgNode) -> CfgNode:
    """The config for a model whose weights all come from a checkpoint, so that backbone weights need not be there."""
    return with_values(cfg, {"MODEL.TIMM.WEIGHTS": ""})


def to_channels_last(model: nn.Module) -> nn.Module:
    """``model.to(memory_format=torch.channels_last)``, without the strides that make DDP warn at every step.

    The weights of a `PointwiseConv2d` are the same bytes in both formats; their gradients have the strides of a matrix.
    """
    model = model.to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, PointwiseConv2d):
            module.weight.data = module.weight.data.flatten(1)[:, :, None, None]
    return model
