"""The assignment of tokens to components."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sgr_d2.modeling.padding import copy_to

from .targets import GridTargets

EPS = 1e-12
MODES = ("hungarian_then_best", "hungarian", "best")


@torch.no_grad()
def assign_tokens(weighted: Tensor, targets: GridTargets, mode: str = MODES[0]) -> Tensor:
    """Assign one token to every component (Hungarian matching), then each remaining token to its best component.

    The affinity is the cosine similarity of region and component over the labelled part of the cells. No image has
    more components than tokens here (`components_to_grid` keeps the largest).

    Args:
        weighted: (B, K, H*W) float32, regions times the labelled fraction of each cell.
        targets: GridTargets with at most L components.
        mode: "hungarian_then_best" as above; "hungarian" leaves the remaining tokens without a component; "best"
            assigns every token to its best component, so some components may get none.

    Returns:
        (B, K) int64 on the device of ``weighted``: the 0-based component of each token, or -1 for none, as in an image
        without components. Except with "best", each of the ``counts[b]`` components of image b appears in row b.
    """
    affinity = cosine_affinity(weighted, targets).cpu().numpy()  # the one copy to the host
    rows = [_assign_image(affinity[b, :, :count], mode) for b, count in enumerate(targets.counts)]
    return copy_to(torch.from_numpy(np.stack(rows)), weighted.device)


def cosine_affinity(weighted: Tensor, targets: GridTargets) -> Tensor:
    """(B, K, H*W) regions over the labelled cells -> (B, K, L) cosine similarities with the components."""
    masks = targets.masks.flatten(2)  # (B, L, H*W)
    dots = torch.bmm(weighted, masks.transpose(1, 2))
    norms = weighted.norm(dim=-1)[:, :, None] * masks.norm(dim=-1)[:, None, :]
    return dots / norms.clamp(min=EPS)


def _assign_image(affinity: np.ndarray, mode: str) -> np.ndarray:
    """(K, L) affinities -> (K,) int64 component of each token, or -1 for none."""
    num_tokens, num_components = affinity.shape
    if num_components == 0:
        return np.full(num_tokens, -1, dtype=np.int64)
    affinity = np.nan_to_num(affinity, nan=-1.0)  # a run that diverges is stopped because of its loss, not here
    component_of = affinity.argmax(axis=1) if mode != "hungarian" else np.full(num_tokens, -1, dtype=np.int64)
    if mode == "best":
        return component_of
    tokens, components = linear_sum_assignment(affinity, maximize=True)
    component_of[tokens] = components
    return component_of
