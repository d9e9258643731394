"""Detectron2's DeepLab heads for images of any size."""

from detectron2.config import CfgNode
from detectron2.layers import ASPP, ShapeSpec
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
        rows, columns = features.shape[-2:]
        height, width = min(self.size[0], rows), min(self.size[1], columns)
        if (height, width) == (rows, columns):
            return F.avg_pool2d(features, (height, width), stride=1)  # bit for bit as Detectron2
        # one axis after the other costs h + w additions per cell, not h * w; first an axis of which one cell is left
        windows = [(1, width), (height, 1)] if height < rows else [(height, 1), (1, width)]
        for window in windows:
            features = F.avg_pool2d(features, window, stride=1)
        return features


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

    def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]):
        if len(cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES) != 1:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES = {cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES}: "
                f"{type(self).__name__} reads one feature. Name one, or use AnySizeDeepLabV3PlusHead."
            )
        _check_strides(cfg, input_shape)
        super().__init__(cfg, input_shape)


@SEM_SEG_HEADS_REGISTRY.register()
class AnySizeDeepLabV3PlusHead(AnySize, DeepLabV3PlusHead):
    """`DeepLabV3PlusHead` for images of any size."""

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        head = cfg.MODEL.SEM_SEG_HEAD
        finer = len(head.IN_FEATURES) - 1
        if len(head.PROJECT_CHANNELS) != finer:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS = {head.PROJECT_CHANNELS}: give {finer} number(s), one for each "
                f"of MODEL.SEM_SEG_HEAD.IN_FEATURES = {head.IN_FEATURES} but the coarsest."
            )
        _check_strides(cfg, input_shape)
        return super().from_config(cfg, input_shape)


def _check_strides(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
    """Raise ValueError unless the scores are enlarged by their stride, and training crops are whole cells."""
    strides = [input_shape[name].stride for name in cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES]
    if min(strides) != cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE:
        raise ValueError(
            f"MODEL.SEM_SEG_HEAD.COMMON_STRIDE = {cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE}: "
            f"{cfg.MODEL.SEM_SEG_HEAD.NAME} predicts at stride {min(strides)}, the finest of "
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES = {cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES}. Set it to that."
        )
    crop = cfg.INPUT.CROP
    if crop.ENABLED and (crop.TYPE != "absolute" or any(side % max(strides) for side in crop.SIZE)):
        raise ValueError(
            f"INPUT.CROP.TYPE = {crop.TYPE!r}, SIZE = {list(crop.SIZE)}: {cfg.MODEL.SEM_SEG_HEAD.NAME} needs crops of "
            f"multiples of {max(strides)} pixels (TYPE 'absolute'), the coarsest stride that it reads."
        )
