"""Trading time for memory in training."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
    """``function(*inputs)``, of which the backward pass keeps the inputs alone and computes the rest again.

    The function must draw no random numbers and change no state, as a BatchNorm in training does.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)
