"""Detectron2's DeepLab heads for images of any size."""

from detectron2.layers import ASPP
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.projects.deeplab import DeepLabV3Head, DeepLabV3PlusHead
from torch import Tensor, nn
from torch.nn import functional as F


class WindowPool(nn.Module):
    """The mean over a window that slides by one cell; along an axis shorter than the window, over the whole axis."""

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H - h + 1, W - w + 1) for a window of h x w."""
        height, width = (min(pair) for pair in zip(self.size, features.shape[-2:], strict=True))
        return F.avg_pool2d(features, (height, width), stride=1)


class AnySize:
    """Mix-in for heads with an ASPP: image pooling uses the window of the training crops on images of any size.

    Detectron2's own heads reject maps whose size is not a multiple of that window: it is for all images of Cityscapes,
    but for hardly any of ADE20K and COCO-Stuff. Where they run, these give the same; the state dict is the same.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for module in self.modules():
            if isinstance(module, ASPP) and module.pool_kernel_size is not None:
                module.convs[-1][0] = WindowPool(tuple(module.pool_kernel_size))
                module.pool_kernel_size = None

    def losses(self, predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The losses of scores (B, C, h, w), in float32: under autocast Detectron2 would enlarge the scores, and sum
        their gradients, in half precision.
        """
        return super().losses(predictions.float(), targets)


@SEM_SEG_HEADS_REGISTRY.register()
class AnySizeDeepLabV3Head(AnySize, DeepLabV3Head):
    """`DeepLabV3Head` for images of any size."""


@SEM_SEG_HEADS_REGISTRY.register()
class AnySizeDeepLabV3PlusHead(AnySize, DeepLabV3PlusHead):
    """`DeepLabV3PlusHead` for images of any size."""
