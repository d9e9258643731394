"""Weak supervision of the regions by connected components, independent of the head.

Source: arXiv 2212.03338 for what is supervised; the formulas (losses.py) are ours.
"""

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from sgr_d2.checks import check_choice
from sgr_d2.modeling.progress import share_done
from sgr_d2.structures import SGROutput

from .assignment import MODES, assign_tokens
from .losses import UNIONS, component_loss, diversity_loss
from .targets import components_to_grid
from .token_classes import TokenClassLoss

# Every loss that SGRCriterion can return; all others come from the head, or from a peer (peers.PEER_LOSS).
SGR_LOSSES = ("loss_component", "loss_diversity", "loss_token_class")


class SGRCriterion(nn.Module):
    """Matches tokens to components and returns the named, weighted losses."""

    @configurable
    def __init__(
        self,
        *,
        component_weight: float = 1.0,
        diversity_weight: float = 0.2,
        class_weight: float = 0.0,
        token_dim: int = 0,
        num_classes: int = 0,
        assignment: str = MODES[0],
        union: str = "noisy_or",
        area_power: float = 0.0,
        decay: float = 0.0,
        max_iter: int = 0,
    ):
        """
        Args:
            component_weight: weight of the component loss; 0 disables it.
            diversity_weight: weight of the diversity loss; 0 disables it.
            class_weight: weight of the token class loss; 0 disables it.
            token_dim, num_classes: D and C, for the class loss only.
            assignment: mode of `assign_tokens`.
            union: how the regions of a component are joined, see `join_regions`.
            area_power: a component of A cells has weight A**area_power in the component loss.
            decay: fraction by which all losses have decreased, linearly, by training step ``max_iter``, counted by
                Detectron2's event storage; without one they stay constant.

        Raises:
            ValueError: for a negative weight, a decay or power outside [0, 1], an unknown assignment or union, a
                decay without ``max_iter``, or a class loss without ``token_dim`` and ``num_classes``.
        """
        super().__init__()
        weights = {"COMPONENT_WEIGHT": component_weight, "DIVERSITY_WEIGHT": diversity_weight}
        for key, value in (weights | {"CLASS_WEIGHT": class_weight}).items():
            if value < 0:
                raise ValueError(f"MODEL.SGR.{key} = {value}: a loss weight must not be negative.")
        if not 0 <= area_power <= 1:
            raise ValueError(f"MODEL.SGR.AREA_POWER = {area_power}: give a number from 0 (all alike) to 1 (by area).")
        if not 0 <= decay <= 1:
            raise ValueError(f"MODEL.SGR.LOSS_DECAY = {decay}: give a share from 0 (constant losses) to 1 (none left).")
        if decay and max_iter < 1:
            raise ValueError(f"MODEL.SGR.LOSS_DECAY = {decay} needs max_iter, the last training step; got {max_iter}.")
        check_choice("MODEL.SGR.ASSIGNMENT", assignment, MODES)
        check_choice("MODEL.SGR.UNION", union, UNIONS)
        self.component_weight = component_weight
        self.diversity_weight = diversity_weight
        self.class_weight = class_weight
        self.assignment = assignment
        self.union = union
        self.area_power = area_power
        self.decay = decay
        self.max_iter = max_iter
        self.token_classes = TokenClassLoss(token_dim, num_classes) if class_weight else None

    @property
    def has_losses(self) -> bool:
        """Whether any loss is enabled; if not, no components are needed."""
        return bool(self.component_weight or self.diversity_weight or self.class_weight)

    @classmethod
    def from_config(cls, cfg: CfgNode, num_classes: int) -> dict:
        sgr = cfg.MODEL.SGR
        if sgr.REGIONS == "fixed" and (sgr.COMPONENT_WEIGHT or sgr.DIVERSITY_WEIGHT):
            raise ValueError(
                'MODEL.SGR.REGIONS = "fixed": such regions learn nothing. Set MODEL.SGR.COMPONENT_WEIGHT and '
                "MODEL.SGR.DIVERSITY_WEIGHT to 0."
            )
        return {
            "component_weight": sgr.COMPONENT_WEIGHT,
            "diversity_weight": sgr.DIVERSITY_WEIGHT,
            "class_weight": sgr.CLASS_WEIGHT,
            "token_dim": sgr.TOKEN_DIM,
            "num_classes": num_classes,
            "assignment": sgr.ASSIGNMENT,
            "union": sgr.UNION,
            "area_power": sgr.AREA_POWER,
            "decay": sgr.LOSS_DECAY,
            "max_iter": cfg.SOLVER.MAX_ITER,
        }

    def forward(self, output: SGROutput, components: Tensor, component_classes: list[Tensor]) -> dict[str, Tensor]:
        """
        Args:
            output: the output of SGR for the batch.
            components: (B, H*stride, W*stride) integer ids: 0 or less is ignored (as is padding), then the components,
                largest first; ids above an image's number of components are labelled pixels that are in none.
            component_classes: for each image, the (L,) class of each component, a tensor or an array.

        Returns:
            {"loss_component", "loss_diversity", "loss_token_class"}: weighted float32 scalars; those of weight 0 are
            omitted. Without a labelled pixel they are zero but still give every parameter a gradient.

        Raises:
            ValueError: if ``components`` are no integers, or not of the token grid's size times its stride, or if there
                are not classes for each image.
        """
        losses = {}
        if not self.has_losses:
            return losses
        component_classes = [torch.as_tensor(classes) for classes in component_classes]
        _check_targets(components, component_classes, output)
        with torch.autocast(components.device.type, enabled=False):
            logits = output.region_logits.float()
            counts = [len(classes) for classes in component_classes]
            targets = components_to_grid(components, counts, output.stride, max_components=logits.shape[1])
            weighted = (logits.sigmoid() * targets.labelled).flatten(2)  # (B, K, H*W), zero on the padding
            if self.component_weight or self.class_weight:
                component_of = assign_tokens(weighted, targets, self.assignment)
            if self.component_weight:
                loss = component_loss(logits, component_of, targets, self.union, self.area_power)
                losses["loss_component"] = self.component_weight * loss
            if self.class_weight:
                loss = self.token_classes(output.tokens, component_of, component_classes)
                losses["loss_token_class"] = self.class_weight * loss
            if self.diversity_weight:
                losses["loss_diversity"] = self.diversity_weight * diversity_loss(weighted, targets.labelled.flatten(2))
        factor = 1 - self.decay * share_done(self.max_iter)
        return {name: factor * loss for name, loss in losses.items()} if self.decay else losses


def _check_targets(components: Tensor, component_classes: list[Tensor], output: SGROutput) -> None:
    if components.is_floating_point() or not len(components) == len(component_classes) == len(output.tokens):
        raise ValueError(
            f"components are {tuple(components.shape)} of {components.dtype} with the classes of "
            f"{len(component_classes)} images, for {len(output.tokens)} images: give integer ids (B, H, W) and the "
            "classes of the components of each image, as sgr_d2.data.components.label_components makes them."
        )
    size = tuple(components.shape[-2:])
    expected = tuple(output.stride * cells for cells in output.region_logits.shape[-2:])
    if size != expected:
        raise ValueError(
            f"The components have {size[0]}x{size[1]} pixels (rows x columns); the token grid of stride "
            f"{output.stride} covers {expected[0]}x{expected[1]}: pad both to a multiple of the largest stride."
        )
