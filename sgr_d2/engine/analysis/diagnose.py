"""Does a trained model use its tokens, and what do the losses of SGR do to the features?"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from statistics import mean
from typing import NamedTuple

import torch
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from sgr_d2.messages import NO_SGR
from sgr_d2.modeling.backbone import name_in_state_dict
from sgr_d2.modeling.mask2former.transformer_layers import TokenAttentionLayer
from sgr_d2.modeling.sgr.criterion import SGR_LOSSES
from sgr_d2.modeling.sgr.fusion import Fusion
from sgr_d2.modeling.sgr.parts import is_part_of_sgr

HEAD = "head"


class Pull(NamedTuple):
    """The effect of a loss on a part of a model, averaged over batches.

    Attributes:
        norm: of the loss's gradient with respect to all parameters of the part.
        cosine: between that gradient and that of the head's losses, over the batches in which neither is zero; None if
            there is no such batch.
    """

    norm: float
    cosine: float | None


@contextmanager
def without_tokens(model: nn.Module) -> Iterator[None]:
    """Make every fusion block of SGR, and every attention of queries to tokens, return its input unchanged.

    Regions and tokens are still computed.

    Raises:
        ValueError: if the model has no SGR.
    """
    blocks = [module for module in model.modules() if isinstance(module, (Fusion, TokenAttentionLayer))]
    if not blocks:
        raise ValueError(f"The model {NO_SGR}: there are no tokens to leave out.")
    hooks = [block.register_forward_hook(lambda block, inputs, output: inputs[0]) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def pulls(model: nn.Module, batches: Iterable[list[dict]]) -> dict[str, dict[str, Pull]]:
    """Gradients by loss and part of the model.

    Args:
        model: returns a dict of losses; it is put into training mode, and its running statistics change.
        batches: from a training loader.

    Returns:
        {part: {loss: Pull}}; the losses of the head are summed as "head". Parts are "backbone" (or "bottom_up" and
        "neck" if it has both), "sgr" and "head"; parameters that belong only to a loss are left out.
    """
    parts = _parts(model)
    parameters = [parameter for members in parts.values() for parameter in members]
    found: dict[str, dict[str, list[Pull]]] = defaultdict(lambda: defaultdict(list))
    model.train()
    for batch in batches:
        gradients = {
            name: _split(_gradients(loss, parameters), parts)
            for name, loss in _by_source(_losses(model, batch)).items()
        }
        for name, of_parts in gradients.items():
            for part, gradient in of_parts.items():
                found[part][name].append(_pull(gradient, gradients[HEAD][part]))
    return {part: {name: _mean_pull(each) for name, each in losses.items()} for part, losses in found.items()}


def _pull(gradient: Tensor, of_head: Tensor) -> Pull:
    both = bool(gradient.any()) and bool(of_head.any())
    return Pull(gradient.norm().item(), torch.cosine_similarity(gradient, of_head, dim=0).item() if both else None)


def _mean_pull(each: list[Pull]) -> Pull:
    cosines = [pull.cosine for pull in each if pull.cosine is not None]
    return Pull(mean(pull.norm for pull in each), mean(cosines) if cosines else None)


def _losses(model: nn.Module, batch: list[dict]) -> dict[str, Tensor]:
    with EventStorage():  # Detectron2's heads write into it during training
        return model(batch)


def _gradients(loss: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor | None, ...]:
    if not loss.requires_grad:  # a loss of SGR with MODEL.SGR.FREEZE
        return (None,) * len(parameters)
    return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)


def _by_source(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    of_head = sum(loss for name, loss in losses.items() if name not in SGR_LOSSES)
    return {HEAD: of_head} | {name: loss for name, loss in losses.items() if name in SGR_LOSSES}


def _parts(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    parts: dict[str, list[nn.Parameter]] = defaultdict(list)
    # in a detector, SGR and the backbone that it wraps are inside the backbone
    named = [(name_in_state_dict(name), parameter) for name, parameter in model.named_parameters()]
    has_neck = any(name.startswith("backbone.bottom_up.") for name, _ in named)
    for name, parameter in named:
        if not parameter.requires_grad or name.startswith("criterion."):
            continue
        if is_part_of_sgr(name):
            part = "sgr"
        elif name.startswith("backbone."):
            neck = "bottom_up" if name.startswith("backbone.bottom_up.") else "neck"
            part = neck if has_neck else "backbone"
        else:
            part = HEAD
        parts[part].append(parameter)
    return parts


def _split(gradients: tuple[Tensor | None, ...], parts: dict[str, list[nn.Parameter]]) -> dict[str, Tensor]:
    """One vector per part, zero for parameters that do not affect the loss."""
    found, start = {}, 0
    for part, members in parts.items():
        pairs = zip(members, gradients[start : start + len(members)], strict=True)
        found[part] = torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in pairs])
        start += len(members)
    return found
