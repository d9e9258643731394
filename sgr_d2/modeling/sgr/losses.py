"""The losses of the regions, as functions of tensors.

Shapes: B batch, K tokens, L components of an image, H x W the token grid, N = H * W its cells.
Source: arXiv 2212.03338 requires active regions to be disjoint, unions of regions to be connected components, and
diversity to be enforced by cosine terms; the formulas are ours.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from sgr_d2.modeling.padding import copy_to
from sgr_d2.modeling.ranks import mean_over_ranks

from .targets import GridTargets

EPS = 1e-12
UNIONS = ("noisy_or", "sum")


def component_loss(
    region_logits: Tensor,
    component_of: Tensor,
    targets: GridTargets,
    union: str = "noisy_or",
    area_power: float = 0.0,
) -> Tensor:
    """Mean dice loss between each component and the union of its tokens' regions, over all components of all ranks.

    Args:
        region_logits: (B, K, H, W) float32.
        component_of: (B, K) int64, component of each token, -1 for none.
        targets: GridTargets with L components.
        union: see `join_regions`.
        area_power: weight of each component in the mean: its area in cells to this power.

    Returns:
        Scalar. Averaged over all ranks, it is the mean over the components of all ranks.
    """
    device = component_of.device
    num = max(targets.masks.shape[1], 1)
    unions = join_regions(region_logits, component_of, num, union)  # (B, L, H*W)
    # a collective call: ranks whose images have no component must take part too
    weights = targets.masks.sum((2, 3)) ** area_power if area_power else None  # (B, L)
    normaliser = mean_over_ranks(sum(targets.counts) if weights is None else weights.sum(), device)
    if targets.masks.shape[1] == 0:
        return 0.0 * unions.sum()
    present = [[float(index < count) for index in range(num)] for count in targets.counts]
    present = copy_to(torch.tensor(present), device)
    losses = dice_loss(unions, targets.masks.flatten(2), targets.labelled.flatten(2))  # (B, L)
    if weights is not None:
        present = present * weights
    return (losses * present).sum() / normaliser


def join_regions(region_logits: Tensor, component_of: Tensor, num_components: int, union: str) -> Tensor:
    """The union of the regions of each component's tokens.

    Args:
        region_logits: (B, K, H, W) float32.
        component_of: (B, K) int64, component of each token, -1 for none.
        num_components: L.
        union: "noisy_or", 1 - prod_k (1 - P_k), computed as a sum of logarithms; or "sum", min(1, sum_k P_k), whose
            gradient is that of the sum even above 1, since otherwise regions that overlap outside their component
            could never shrink.

    Returns:
        (B, L, H*W) float32; 0 for a component without a token.
    """
    batch = component_of.shape[0]
    image = torch.arange(batch, device=component_of.device)[:, None] * num_components
    nowhere = batch * num_components  # an extra row for the tokens without a component
    row = torch.where(component_of >= 0, image + component_of, nowhere).flatten()  # (B*K,)
    flat = region_logits.flatten(2).flatten(0, 1)  # (B*K, H*W)
    maps = F.softplus(flat) if union == "noisy_or" else flat.sigmoid()  # softplus is -log(1 - P)
    summed = maps.new_zeros(nowhere + 1, maps.shape[1]).index_add(0, row, maps)[:nowhere]
    unions = -torch.expm1(-summed) if union == "noisy_or" else summed - (summed - 1).clamp(min=0).detach()
    return unions.view(batch, num_components, -1)


def dice_loss(unions: Tensor, masks: Tensor, labelled: Tensor) -> Tensor:
    """1 - (2 |U M| + 1) / (|U| + |M| + 1) over the labelled part of the cells.

    Args:
        unions: (B, L, N) probabilities.
        masks: (B, L, N) fraction of each cell that the component covers.
        labelled: (B, 1, N) fraction of each cell that is labelled.

    Returns:
        (B, L).
    """
    both = (unions * masks).sum(-1)
    sizes = torch.bmm(unions, labelled.transpose(1, 2)).squeeze(-1) + masks.sum(-1)
    return 1 - (2 * both + 1) / (sizes + 1)


def diversity_loss(weighted: Tensor, labelled: Tensor) -> Tensor:
    """Mean cosine similarity between the regions of different tokens over the labelled cells, averaged over the images
    of all ranks that have any.

    Args:
        weighted: (B, K, N) regions times the labelled fraction of each cell.
        labelled: (B, 1, N) that fraction.

    Returns:
        Scalar in [0, 1]; 0 for a single token. Averaged over all ranks, it is the mean over the images of all ranks.
    """
    num_tokens = weighted.shape[1]
    norms = weighted.norm(dim=-1)  # (B, K)
    scale = 1 / norms.clamp(min=EPS)
    # sum over i, j of <u_i, u_j> = |sum_i u_i|^2 with u = weighted * scale: no K x K matrix, no second copy of the maps
    every_pair = torch.bmm(scale[:, None], weighted).square().sum((1, 2))  # (B,)
    itself = (norms * scale).square().sum(1)
    count = mean_over_ranks((labelled > 0).any(2).sum(), weighted.device)
    return ((every_pair - itself) / max(num_tokens * (num_tokens - 1), 1)).sum() / count
