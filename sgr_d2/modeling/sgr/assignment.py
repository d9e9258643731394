"""Which token answers for which component."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .targets import GridTargets

EPS = 1e-6


@torch.no_grad()
def assign_tokens(weighted: Tensor, targets: GridTargets) -> Tensor:
    """Give every component one token (Hungarian matching), then every token left over its best component.

    The affinity is the cosine between region and component over the labelled part of the cells. An image has at
    most as many components as tokens here (`components_to_grid` keeps the largest).

    Args:
        weighted: (B, K, H*W) float32, regions times the labelled share of their cells.
        targets: GridTargets with L components at most.

    Returns:
        (B, K) int64 on the device of ``weighted``: the component of each token, 0-based, or -1 in an image
        without components. Each of the first ``counts[b]`` components appears at least once in row b.
    """
    affinity = cosine_affinity(weighted, targets).cpu().numpy()  # the one copy to the host
    rows = [_assign_image(affinity[b, :, :count]) for b, count in enumerate(targets.counts)]
    return torch.from_numpy(np.stack(rows)).to(weighted.device)


def cosine_affinity(weighted: Tensor, targets: GridTargets) -> Tensor:
    """(B, K, H*W) regions over labelled cells against L components -> (B, K, L) cosines."""
    masks = targets.masks.flatten(2)  # (B, L, H*W)
    dots = torch.bmm(weighted, masks.transpose(1, 2))
    norms = weighted.norm(dim=-1)[:, :, None] * masks.norm(dim=-1)[:, None, :]
    return dots / (norms + EPS)


def _assign_image(affinity: np.ndarray) -> np.ndarray:
    """(K, L) affinities -> (K,) int64 component of each token, or -1 where L = 0."""
    num_tokens, num_components = affinity.shape
    if num_components == 0:
        return np.full(num_tokens, -1, dtype=np.int64)
    affinity = np.nan_to_num(affinity, nan=-1.0)  # a diverged run is stopped by its loss, not here
    component_of = affinity.argmax(axis=1)
    tokens, components = linear_sum_assignment(affinity, maximize=True)
    component_of[tokens] = components
    return component_of
