"""Weak supervision of the regions by connected components; no head is involved.

Source: arXiv 2212.03338 asks that active regions be disjoint, that unions of regions be connected components, and
that cosine terms enforce diversity; the formulas are ours.
"""

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from torch.nn import functional as F

from sgr_d2.modeling.ranks import mean_over_ranks
from sgr_d2.structures import SGROutput

from .assignment import assign_tokens
from .targets import GridTargets, components_to_grid

EPS = 1e-6


class SGRCriterion(nn.Module):
    """Matches tokens to components, weighs the two losses and names them."""

    @configurable
    def __init__(self, *, component_weight: float = 1.0, diversity_weight: float = 0.2):
        """
        Args:
            component_weight: factor on the component loss; 0 leaves it out.
            diversity_weight: factor on the diversity loss; 0 leaves it out.

        Raises:
            ValueError: for a negative weight.
        """
        super().__init__()
        for key, value in (("COMPONENT_WEIGHT", component_weight), ("DIVERSITY_WEIGHT", diversity_weight)):
            if value < 0:
                raise ValueError(f"MODEL.SGR.{key} = {value}: a loss weight must not be negative.")
        self.component_weight = component_weight
        self.diversity_weight = diversity_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        return {
            "component_weight": cfg.MODEL.SGR.COMPONENT_WEIGHT,
            "diversity_weight": cfg.MODEL.SGR.DIVERSITY_WEIGHT,
        }

    def forward(self, output: SGROutput, components: Tensor, counts: list[int]) -> dict[str, Tensor]:
        """
        Args:
            output: what SGR returned for the batch.
            components: (B, H*stride, W*stride) integer ids, 0 ignored (padding too), largest component first.
            counts: components of each image.

        Returns:
            {"loss_component": scalar, "loss_diversity": scalar}, weighted, float32. Without a component the
            losses are zero and still have a gradient for every parameter.
        """
        losses = {}
        if not (self.component_weight or self.diversity_weight):
            return losses
        with torch.autocast(components.device.type, enabled=False):
            logits = output.region_logits.float()
            targets = components_to_grid(components, counts, output.stride, max_components=logits.shape[1])
            weighted = (logits.sigmoid() * targets.labelled).flatten(2)  # (B, K, H*W), zero on the padding
            if self.component_weight:
                component_of = assign_tokens(weighted, targets)
                losses["loss_component"] = self.component_weight * component_loss(logits, component_of, targets)
            if self.diversity_weight:
                losses["loss_diversity"] = self.diversity_weight * diversity_loss(weighted)
        return losses


def component_loss(region_logits: Tensor, component_of: Tensor, targets: GridTargets) -> Tensor:
    """Mean dice loss between each component and the union of its tokens' regions, over all components of all ranks.

    The union is a noisy-or, 1 - prod_k (1 - P_k), as a sum of logarithms.

    Args:
        region_logits: (B, K, H, W) float32.
        component_of: (B, K) int64, component of each token, -1 for none.
        targets: GridTargets with L components.

    Returns:
        Scalar. With several ranks, the mean over ranks of this value is the mean over all components.
    """
    batch = component_of.shape[0]
    num = max(targets.masks.shape[1], 1)
    image = torch.arange(batch, device=component_of.device)[:, None] * num
    row = (image + component_of.clamp(min=0)).flatten()  # (B*K,)
    log_outside = F.softplus(region_logits.flatten(2)).flatten(0, 1)  # -log(1 - P): (B*K, H*W)
    summed = log_outside.new_zeros(batch * num, log_outside.shape[1]).index_add(0, row, log_outside)
    unions = -torch.expm1(-summed).view(batch, num, -1)  # (B, L, H*W)
    # every rank takes part in this exchange, also one whose images have no component
    normaliser = mean_over_ranks(sum(targets.counts), row.device)
    if targets.masks.shape[1] == 0:
        return 0.0 * unions.sum()
    present = torch.tensor(
        [[index < count for index in range(num)] for count in targets.counts], device=row.device, dtype=torch.float32
    )
    losses = dice_loss(unions, targets.masks.flatten(2), targets.labelled.flatten(2))  # (B, L)
    return (losses * present).sum() / normaliser


def dice_loss(unions: Tensor, masks: Tensor, labelled: Tensor) -> Tensor:
    """1 - (2 |U M| + 1) / (|U| + |M| + 1) over the labelled part of the cells.

    Args:
        unions: (B, L, N) probabilities. masks: (B, L, N) shares of cells. labelled: (B, 1, N) shares of cells.

    Returns:
        (B, L).
    """
    both = (unions * masks).sum(-1)
    sizes = torch.bmm(unions, labelled.transpose(1, 2)).squeeze(-1) + masks.sum(-1)
    return 1 - (2 * both + 1) / (sizes + 1)


def diversity_loss(weighted: Tensor) -> Tensor:
    """Mean cosine between the regions of different tokens over the labelled cells, averaged over the images.

    Args:
        weighted: (B, K, N) regions times the labelled share of their cells.

    Returns:
        Scalar in [0, 1]; 0 for a single token.
    """
    num_tokens = weighted.shape[1]
    norms = weighted.norm(dim=-1)  # (B, K)
    scale = 1 / (norms + EPS)
    # sum over i, j of <u_i, u_j> = |sum_i u_i|^2 with u = weighted * scale: no K x K table, no second copy of the maps
    every_pair = torch.bmm(scale[:, None], weighted).square().sum((1, 2))  # (B,)
    itself = (norms * scale).square().sum(1)
    return ((every_pair - itself) / max(num_tokens * (num_tokens - 1), 1)).mean()
