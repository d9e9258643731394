"""Component maps on the token grid."""

from typing import NamedTuple

import torch
from torch import Tensor

from sgr_d2.modeling.padding import copy_to


class GridTargets(NamedTuple):
    """The components of a batch on the token grid.

    Attributes:
        masks: (B, L, H, W) float32, the fraction of each cell that component l + 1 covers.
        labelled: (B, 1, H, W) float32, the fraction of each cell that is not ignored.
        counts: the number of components of each image, at most L: a list of B ints.
    """

    masks: Tensor
    labelled: Tensor
    counts: list[int]


def components_to_grid(ids: Tensor, counts: list[int], stride: int, max_components: int) -> GridTargets:
    """Average component maps over the cells of the token grid.

    All (image, component, cell) triples are counted in one pass; no mask at image resolution is ever made. Ids run
    from the largest component to the smallest, so an image with more than ``max_components`` keeps its largest; the
    pixels of the others, and of ids above the image's count, still count as labelled.

    Args:
        ids: (B, H*stride, W*stride) integer: 0 or less ignored, 1.. components, largest first, then labelled pixels in
            none.
        counts: number of components of each image.
        stride: pixels per cell along each axis.
        max_components: maximum number of components per image.

    Returns:
        GridTargets with L = min(max(counts), max_components).
    """
    batch, height, width = ids.shape[0], ids.shape[1] // stride, ids.shape[2] // stride
    kept = [min(count, max_components) for count in counts]
    num = max(kept, default=0)
    slots = num + 2  # ignored, the components, the labelled rest
    image = torch.arange(batch, device=ids.device)[:, None, None] * slots
    last = copy_to(torch.tensor(kept), ids.device)[:, None, None]
    slot = image + torch.where(ids > last, num + 1, ids.clamp(min=0))  # (B, H_img, W_img)
    row = torch.arange(ids.shape[1], device=ids.device) // stride
    column = torch.arange(ids.shape[2], device=ids.device) // stride
    cell = row[:, None] * width + column[None]
    index = slot * (height * width) + cell
    # sums of ones are exact in float32, in any order; bincount would wait for the device
    one = torch.ones((), device=ids.device).expand(index.numel())
    total = torch.zeros(batch * slots * height * width, device=ids.device).index_add_(0, index.flatten(), one)
    share = total.view(batch, slots, height, width) / stride**2
    return GridTargets(share[:, 1 : num + 1], 1 - share[:, :1], kept)
