"""Optimizers from ``SOLVER``; the schedules are those of Detectron2 and its DeepLab project."""

from functools import partial

import torch
from detectron2.config import CfgNode
from detectron2.layers.batch_norm import LayerNorm as DetectronLayerNorm
from detectron2.solver.build import (
    _generate_optimizer_class_with_gradient_clipping,
    maybe_add_gradient_clipping,
    reduce_param_groups,
)
from torch import nn

from sgr_d2.checks import check_choice
from sgr_d2.modeling.sgr.parts import is_part_of_sgr

# Of the whole model (as published recipes clip), or as Detectron2 clips each parameter.
CLIP_TYPES = ("full_model", "norm", "value")
SCHEDULERS = ("WarmupPolyLR", "WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR")
NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    DetectronLayerNorm,
)
# Names of embedding parameters in timm and Swin. `level_embed` of the pixel decoder decays, as in Mask2Former's code
# (that of the transformer decoder is an nn.Embedding).
EMBEDDINGS = ("pos_embed", "absolute_pos_embed", "relative_position_bias_table", "cls_token")


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW with the learning rates and decays of ``SOLVER``, and gradient clipping.

    Raises:
        ValueError: for an unknown ``SOLVER.OPTIMIZER`` or ``CLIP_GRADIENTS.CLIP_TYPE``.
    """
    solver = cfg.SOLVER
    options = {
        "SGD": (torch.optim.SGD, {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}),
        "ADAMW": (torch.optim.AdamW, {}),
    }
    check_choice("SOLVER.OPTIMIZER", solver.OPTIMIZER, sorted(options))
    optimizer, extra = options[solver.OPTIMIZER]
    return _with_clipping(cfg, optimizer)(parameter_groups(cfg, model), lr=solver.BASE_LR, **extra)


def parameter_groups(cfg: CfgNode, model: nn.Module) -> list[dict]:
    """The trainable parameters, grouped by learning rate and weight decay.

    Learning rates: the backbone without any SGR inside it gets BASE_LR * BACKBONE_MULTIPLIER, SGR (and layers that
    attend to its tokens) BASE_LR * SGR_MULTIPLIER, all others BASE_LR; biases get that times BIAS_LR_FACTOR. Weight
    decays: biases get WEIGHT_DECAY_BIAS if it is set, norms WEIGHT_DECAY_NORM, embeddings WEIGHT_DECAY_EMBED.
    """
    solver = cfg.SOLVER
    groups, seen = [], set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            groups.append(
                {
                    "params": [parameter],
                    "lr": solver.BASE_LR
                    * _multiplier(solver, module_name)
                    * (solver.BIAS_LR_FACTOR if name == "bias" else 1.0),
                    "weight_decay": _weight_decay(solver, module, name),
                }
            )
    return reduce_param_groups(groups)


def _multiplier(solver: CfgNode, module: str) -> float:
    part = module.split(".")[0]
    if is_part_of_sgr(module) or part == "peer":
        return solver.SGR_MULTIPLIER
    return solver.BACKBONE_MULTIPLIER if part == "backbone" else 1.0


def _weight_decay(solver: CfgNode, module: nn.Module, name: str) -> float:
    if name == "bias" and solver.WEIGHT_DECAY_BIAS is not None:
        return solver.WEIGHT_DECAY_BIAS
    if isinstance(module, NORMS):
        return solver.WEIGHT_DECAY_NORM
    if isinstance(module, nn.Embedding) or name in EMBEDDINGS:
        return solver.WEIGHT_DECAY_EMBED
    return solver.WEIGHT_DECAY


def _with_clipping(cfg: CfgNode, optimizer: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if clip.ENABLED:
        check_choice("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip.CLIP_TYPE, CLIP_TYPES)
    if not clip.ENABLED or clip.CLIP_TYPE != "full_model":
        return maybe_add_gradient_clipping(cfg, optimizer)
    clipper = partial(nn.utils.clip_grad_norm_, max_norm=clip.CLIP_VALUE, norm_type=clip.NORM_TYPE)
    return _generate_optimizer_class_with_gradient_clipping(optimizer, global_clipper=clipper)
