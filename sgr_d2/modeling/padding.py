"""Copying images of unequal size, and their targets, to the device and padding them into one tensor."""

import math

from torch import Tensor, device, stack
from torch.nn import functional as F

from sgr_d2.messages import first_few


def copy_to(tensor: Tensor, target: device) -> Tensor:
    """Copy to a device without waiting for its queued work; large tensors must be pinned (the loader's are)."""
    return tensor.to(target, non_blocking=True)


def all_have(batched_inputs: list[dict], key: str) -> bool:
    """Whether the images of a batch have a target; raise ValueError if only some of them do."""
    lacking = [x.get("file_name", f"image {i} of the batch") for i, x in enumerate(batched_inputs) if key not in x]
    if lacking and len(lacking) < len(batched_inputs):
        raise ValueError(f'{first_few(lacking, 3)}: no "{key}", which other images of the batch have; give it to all.')
    return not lacking


def pad_to_batch(maps: list[Tensor], *, divisor: int, value: float, min_size: tuple[int, int] = (0, 0)) -> Tensor:
    """Pad maps at the bottom and right to one common size and stack them.

    Args:
        maps: B tensors (..., H_i, W_i).
        divisor: height and width become multiples of it.
        value: of the padding.
        min_size: minimum height and width, before rounding up.

    Returns:
        (B, ..., H, W).
    """
    height = _round_up(max(min_size[0], *(m.shape[-2] for m in maps)), divisor)
    width = _round_up(max(min_size[1], *(m.shape[-1] for m in maps)), divisor)
    return stack([F.pad(m, (0, width - m.shape[-1], 0, height - m.shape[-2]), value=value) for m in maps])


def _round_up(length: int, divisor: int) -> int:
    return math.ceil(length / divisor) * divisor
