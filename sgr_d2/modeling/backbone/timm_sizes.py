"""Explains why a timm model fails on images of some sizes: its windows or its table of positions do not fit them."""

from typing import NoReturn

import torch
from torch import Tensor, nn


def refuse_size(name: str, model: nn.Module, images: Tensor, divisor: int, error: Exception) -> NoReturn:
    """Say which MODEL.TIMM.SIZE_DIVISIBILITY a model needs that has failed on images (B, 3, H, W).

    Args:
        name: of the model, for the message.
        model: of timm.
        images: on which it failed.
        divisor: the present MODEL.TIMM.SIZE_DIVISIBILITY.
        error: with which it failed.

    Raises:
        ValueError: if some multiple of ``divisor`` suits the model, but ``divisor`` itself does not; else ``error``.
    """
    sizes = [divisor * factor for factor in range(1, 17)]
    fitting = next((size for size in sizes if _takes(model, images[:1, :, :1, :1].expand(-1, -1, size, size))), 0)
    if fitting in (0, divisor):
        raise error
    height, width = images.shape[-2:]
    raise ValueError(
        f"{name} (MODEL.TIMM.NAME) does not take images of {height}x{width} pixels, but of {fitting}x{fitting}: set "
        f"MODEL.TIMM.SIZE_DIVISIBILITY = {fitting}."
    ) from error


@torch.no_grad()
def _takes(model: nn.Module, images: Tensor) -> bool:
    try:
        model(images)
    except (AssertionError, RuntimeError, ValueError):
        return False
    return True
