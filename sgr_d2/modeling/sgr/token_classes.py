"""An auxiliary loss of ours on the class that a token stands for; off by default."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sgr_d2.modeling.padding import copy_to
from sgr_d2.modeling.ranks import mean_over_ranks


class TokenClassLoss(nn.Module):
    """Cross entropy between a linear prediction from each token and the class of the component it is assigned to."""

    def __init__(self, token_dim: int, num_classes: int):
        """
        Raises:
            ValueError: unless both numbers are positive.
        """
        if token_dim < 1 or num_classes < 1:
            raise ValueError(
                f"The class loss (MODEL.SGR.CLASS_WEIGHT) needs token_dim and num_classes; got {token_dim} and "
                f"{num_classes}."
            )
        super().__init__()
        self.predictor = nn.Linear(token_dim, num_classes)

    def forward(self, tokens: Tensor, component_of: Tensor, component_classes: list[Tensor]) -> Tensor:
        """
        Args:
            tokens: (B, K, D) float32, after the encoder.
            component_of: (B, K) int64, component of each token, -1 for none.
            component_classes: for each image, the (L,) int64 class of each component.

        Returns:
            Scalar. Averaged over all ranks, it is the mean over all tokens that have a component; if none has, it is 0
            but still gives every parameter a gradient.
        """
        none = torch.full((1,), -1, dtype=torch.int64, device=tokens.device)  # the class that index -1 selects
        classes = torch.stack(
            [
                torch.cat([copy_to(own, tokens.device), none])[row]
                for own, row in zip(component_classes, component_of, strict=True)
            ]
        )
        scores = self.predictor(tokens)  # (B, K, C)
        losses = F.cross_entropy(scores.flatten(0, 1), classes.flatten(), ignore_index=-1, reduction="sum")
        return losses / mean_over_ranks((classes >= 0).sum(), tokens.device)
