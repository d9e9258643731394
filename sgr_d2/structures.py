"""The named structures that are passed between the parts of the package.

Shapes, also elsewhere in the package unless a module names its own (those of Mask2Former do): B batch, K tokens, L
components of an image, D token channels, C classes, H x W token grid. A *component* is a connected piece of the ground
truth, a *region* a soft map P_k on the token grid, a *token* its vector T_k, and a *union* the joined regions of one
component.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

# The name of the tokens among the features of a head that reads them (its attribute ``reads_tokens`` is True).
TOKENS = "sgr_tokens"


class ComponentMap(NamedTuple):
    """The connected components of one label map.

    Attributes:
        ids: (H_img, W_img) int32: 0 is ignored, 1..L are the components, largest first; L + 1 is labelled but in none.
        classes: (L,) int64, the class of component ``i + 1``.
        num_small: components dropped because their area is below the minimum.
        num_cut: components dropped because the image has more than the maximum.
    """

    ids: np.ndarray
    classes: np.ndarray
    num_small: int
    num_cut: int


class SGROutput(NamedTuple):
    """What the SGR module returns for a batch.

    Attributes:
        features: the refined levels, with the names and shapes of the input: {name: (B, C_l, H_l, W_l)}.
        region_logits: (B, K, H, W) float32; sigmoid gives the regions. Meaningless on cells that are not ``valid``. Of
            their gradient only ``loss_gradient`` of `SGR` reaches the features, by default nothing.
        tokens: (B, K, D) float32, after the encoder.
        valid: (B, 1, H, W) bool, False on cells that lie entirely in the padding of the batch.
        stride: image pixels per cell of the token grid, along each axis.
    """

    features: dict[str, Tensor]
    region_logits: Tensor
    tokens: Tensor
    valid: Tensor
    stride: int


class ImageTokens(NamedTuple):
    """Regions and tokens of one image, as the model returns them in inference under the key ``"sgr"``.

    Attributes:
        regions: (K, H, W) float32 probabilities on the token grid, cropped to the cells that overlap the image.
        tokens: (K, D) float32.
        extent: (rows, columns) size of the image in cells, as floats: at most (H, W), smaller where the image
            ends inside a cell. The pixel centre y of an image of height h lies in row ``(y + 0.5) / h * rows``.
    """

    regions: Tensor
    tokens: Tensor
    extent: tuple[float, float]
