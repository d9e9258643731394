"""A segmentor as a single graph of tensors, from images to class scores.

Shapes: C classes, Q queries, H x W pixels.
"""

import copy

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from sgr_d2.modeling import SGRSegmentor


class ClassScores(nn.Module):
    """(1, 3, H, W) RGB images in 0..255 -> (1, C, H, W) class scores; H and W must be multiples of ``divisor``.

    Padding, which is up to the caller, is treated as image, also by SGR. As in the model itself, the scores are logits
    for per-pixel heads and sums of probabilities for a Mask2Former head.
    """

    def __init__(self, model: SGRSegmentor, *, image_format: str = "RGB"):
        """
        Args:
            model: a copy is made.
            image_format: the channel order that the model was trained with, "RGB" or "BGR".
        """
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        fix_same_padding(self.model)
        self.divisor = model.size_divisibility
        self.image_format = image_format

    def forward(self, images: Tensor) -> Tensor:
        """(1, 3, H, W) float32 -> (1, C, H, W) float32."""
        model = self.model
        pixels = images.flip(1) if self.image_format == "BGR" else images
        # as in `SGRSegmentor.features`, for an image without padding
        sizes = torch.tensor([images.shape[-2:]], device=images.device)
        features, _ = model.refine(model.backbone((pixels - model.pixel_mean) / model.pixel_std), sizes)
        prediction, _ = model.sem_seg_head(features)
        if isinstance(prediction, Tensor):
            return prediction
        return query_scores(prediction.class_logits[-1], prediction.of_image(0).masks(), images.shape[-2:])


class FixedSameConv(nn.Module):
    """timm's convolution with "same" padding, for lengths that are multiples of the stride: the padding is constant.

    timm computes the padding from the length, and torch.export takes ten minutes or more to simplify the formulas.
    """

    def __init__(self, conv: Conv2dSame):
        super().__init__()
        self.conv = conv
        totals = [d * (k - 1) + 1 - s for k, s, d in zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)]
        self.padding = [side for total in map(_positive, reversed(totals)) for side in (total // 2, -(-total // 2))]

    def forward(self, maps: Tensor) -> Tensor:
        """As `Conv2dSame.forward`."""
        conv = self.conv
        padded = F.pad(maps, self.padding)
        return F.conv2d(padded, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


def fix_same_padding(module: nn.Module) -> None:
    """Replace every `Conv2dSame` in ``module`` by a `FixedSameConv` with the same weights."""
    for name, child in module.named_children():
        if type(child) is Conv2dSame:
            setattr(module, name, FixedSameConv(child))
        else:
            fix_same_padding(child)


def _positive(value: int) -> int:
    return max(value, 0)


def query_scores(class_logits: Tensor, masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Semantic scores of queries: the sum of P(class) * P(mask), without the stripes that limit memory elsewhere.

    Args:
        class_logits: (1, Q, C + 1). masks: (1, Q, h, w) logits. size: of the result.

    Returns:
        (1, C, *size).
    """
    probs = F.interpolate(masks.float(), size=size, mode="bilinear", align_corners=False).sigmoid()
    by_class = class_logits.float().softmax(-1)[..., :-1].transpose(1, 2)  # (1, C, Q)
    return torch.bmm(by_class, probs.flatten(2)).unflatten(2, size)
