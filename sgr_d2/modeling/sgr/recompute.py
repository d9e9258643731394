"""Trading time for memory in training."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
    """``function(*inputs)``, of which the backward pass keeps the inputs alone and computes the rest again.

    The function must draw no random numbers and change no state, as a BatchNorm in training does.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def forked(module: nn.Module, *inputs: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """``module(*inputs)`` twice, from one computation, with gradients of their own.

    Args:
        module: as the function of `recomputed`; only its first input gets a gradient.
        share: the part of the second result's gradient, 0 to 1, that reaches the first input. The parameters get all.
    """
    if share == 1 or not torch.is_grad_enabled():
        result = recomputed(module, *inputs)
        return result, result
    return _Forked.apply(module, share, inputs[1:], inputs[0], *_trainable(module))


class _Forked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, module: nn.Module, share: float, others: tuple[Tensor, ...], source: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        device = source.device.type
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.module, ctx.share = module, share
        ctx.save_for_backward(source, *others)
        result = module(source, *others)
        return result, result.view_as(result)

    @staticmethod
    @once_differentiable
    def backward(ctx, to_first: Tensor, to_second: Tensor) -> tuple[Tensor | None, ...]:
        source, *others = ctx.saved_tensors
        source, parameters = source.detach().requires_grad_(), _trainable(ctx.module)
        with torch.enable_grad(), torch.autocast(*ctx.autocast):
            result = ctx.module(source, *others)
        to_source, to_parameters = None, ()
        if parameters:
            to_parameters = torch.autograd.grad(result, parameters, to_first + to_second, retain_graph=True)
        if ctx.needs_input_grad[3] and result.requires_grad:
            (to_source,) = torch.autograd.grad(result, source, to_first.add(to_second, alpha=ctx.share))
        return (None, None, None, to_source, *to_parameters)


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]
