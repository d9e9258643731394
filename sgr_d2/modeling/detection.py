"""Detectron2's detectors on a backbone with SGR: they pass the image sizes to SGR and return its losses and tokens.

The detectors themselves are unchanged; what SGR needs is added around two methods that all of them have:
``preprocess_image``, which pads and knows the sizes, and ``forward``.
"""

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, PanopticFPN, RetinaNet
from detectron2.structures import ImageList
from torch import Tensor

from sgr_d2.structures import SGROutput

from .backbone import find_sgr_backbone
from .monitor import log_regions
from .padding import all_have, copy_to, pad_to_batch
from .randomness import own_random_numbers
from .segmentor import image_tokens
from .sgr import SGRCriterion


class SGRDetection:
    """Mix-in for a meta-architecture of Detectron2 that has ``backbone`` and ``preprocess_image``; put it first.

    With a backbone that contains an `SGRBackbone` (``build_sgr_resnet_fpn_backbone`` and the like), training inputs
    may have "components" (H, W) ids and "component_classes" (L,), which add the losses of SGR, and outputs have "sgr",
    the ImageTokens of the image. With any other backbone nothing changes.
    """

    @configurable
    def __init__(self, *, criterion: SGRCriterion | None, **options):
        """
        Args:
            criterion: the losses of SGR; None for no losses.
            options: passed on to the meta-architecture.
        """
        super().__init__(**options)
        self.criterion = criterion

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        with own_random_numbers():
            criterion = SGRCriterion(cfg, cls.num_classes(cfg)) if cfg.MODEL.SGR.ENABLED else None
        return {"criterion": criterion} | super().from_config(cfg)

    @classmethod
    def num_classes(cls, cfg: CfgNode) -> int:
        """Number of categories of the detector; they are also the classes of the components."""
        return cfg.MODEL.ROI_HEADS.NUM_CLASSES

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """Normalise, pad and batch the images, and pass their sizes to SGR."""
        images = super().preprocess_image(batched_inputs)
        holder = find_sgr_backbone(self.backbone)
        if holder is not None:
            holder.image_sizes = images.image_sizes
        return images

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """As in the meta-architecture; see the class docstring for what is added."""
        result = super().forward(batched_inputs)
        holder = find_sgr_backbone(self.backbone)
        output = holder.take_output() if holder is not None else None
        if output is None:
            return result
        if self.training:
            return result | self._sgr_losses(output, batched_inputs)
        for index, (item, x) in enumerate(zip(result, batched_inputs, strict=True)):
            item["sgr"] = image_tokens(output, index, tuple(x["image"].shape[-2:]))
        return result

    def _sgr_losses(self, output: SGROutput, batched_inputs: list[dict]) -> dict[str, Tensor]:
        """Empty without components, which all batches of a run have or none (`sgr_d2.data.detection_mapper`)."""
        if self.criterion is None:
            return {}
        if not all_have(batched_inputs, "components"):
            if self.criterion.class_weight:  # its layer would get no gradient, on which DistributedDataParallel fails
                raise ValueError(
                    'The mapper gives no "components" and "component_classes", which the class loss of SGR needs: use '
                    "sgr_d2.data.detection_mapper.DetectionMapper on instances with masks, or set "
                    f"MODEL.SGR.CLASS_WEIGHT = {self.criterion.class_weight} to 0."
                )
            return {}
        log_regions(output, batched_inputs)
        rows, columns = output.region_logits.shape[-2:]
        components = pad_to_batch(
            [copy_to(x["components"], self.device) for x in batched_inputs],
            divisor=output.stride,
            value=0,
            min_size=(rows * output.stride, columns * output.stride),
        )
        return self.criterion(output, components, [x["component_classes"] for x in batched_inputs])


@META_ARCH_REGISTRY.register()
class SGRGeneralizedRCNN(SGRDetection, GeneralizedRCNN):
    """Faster, Mask and Cascade R-CNN with SGR in the backbone."""


@META_ARCH_REGISTRY.register()
class SGRPanopticFPN(SGRDetection, PanopticFPN):
    """Panoptic FPN with SGR in the backbone."""


@META_ARCH_REGISTRY.register()
class SGRRetinaNet(SGRDetection, RetinaNet):
    """RetinaNet with SGR in the backbone."""

    @classmethod
    def num_classes(cls, cfg: CfgNode) -> int:
        return cfg.MODEL.RETINANET.NUM_CLASSES
