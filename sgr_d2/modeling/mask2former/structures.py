"""The data passed between the parts of the Mask2Former head.

Shape legend (this package): B batch, Q queries, K classes without "no object", C channels of the pixel decoder,
D channels of the transformer decoder, M channels of the mask features, h x w their size (usually at stride 4),
P points, S target slots of an image (the maximum number of targets), N matched pairs of query and target.
"""

from typing import NamedTuple

import torch
from torch import Tensor

MAX_LEVELS = 3  # of the pixel decoder that the transformer decoder reads


class PixelFeatures(NamedTuple):
    """Output of a pixel decoder.

    Attributes:
        mask_features: (B, M, h, w), to be multiplied with the mask embeddings of the queries.
        levels: at most MAX_LEVELS maps (B, C, h_l, w_l) for the queries to attend to, lowest resolution first.
    """

    mask_features: Tensor
    levels: list[Tensor]


class QueryPrediction(NamedTuple):
    """Output of the transformer decoder: class logits, and masks as factors not yet multiplied.

    Attributes:
        class_logits: (layers, B, Q, K+1); the last class is "no object". Layer 0 is what the learned queries
            predict before the first decoder layer, the last one is the final prediction.
        mask_embeddings: (layers, B, Q, M).
        mask_features: (B, M, h, w).
    """

    class_logits: Tensor
    mask_embeddings: Tensor
    mask_features: Tensor

    def masks(self, layer: int = -1) -> Tensor:
        """Mask logits (B, Q, h, w) of one layer, float32 even under autocast."""
        with torch.autocast(self.mask_features.device.type, enabled=False):
            pixels = self.mask_features.float().flatten(2)  # (B, M, h*w)
            logits = torch.bmm(self.mask_embeddings[layer].float(), pixels)
        return logits.unflatten(2, self.mask_features.shape[-2:])

    def last(self) -> "QueryPrediction":
        """The prediction of the final layer only."""
        return QueryPrediction(self.class_logits[-1:], self.mask_embeddings[-1:], self.mask_features)

    def of_image(self, index: int) -> "QueryPrediction":
        """Image ``index`` of the batch, as a batch of one."""
        part = slice(index, index + 1)
        return QueryPrediction(self.class_logits[:, part], self.mask_embeddings[:, part], self.mask_features[part])
