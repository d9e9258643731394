"""The Mask2Former head, with Detectron2's interface for semantic heads."""

import logging
from collections.abc import Collection
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from sgr_d2.checks import check_features, check_num_classes, check_registered
from sgr_d2.modeling.postprocessing import resize_scores
from sgr_d2.structures import TOKENS

from .criterion import SetCriterion
from .fpn_pixel_decoder import FPNPixelDecoder  # noqa: F401  registers itself
from .inference import instances, panoptic_segments, semantic_scores
from .pixel_decoder import PIXEL_DECODER_REGISTRY
from .stripes import ResizedMasks
from .structures import QueryPrediction
from .targets import LabelMapTargets, Targets
from .transformer_decoder import MultiScaleMaskedTransformerDecoder

logger = logging.getLogger(__name__)

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What inference returns (MODEL.MASK_FORMER.TEST).

    Attributes:
        semantic, instance, panoptic: which outputs to return.
        resize_masks_first: resize masks rather than class scores to the output's size; always done if instance or
            panoptic outputs are on.
        object_threshold, overlap_threshold: of `panoptic_segments`.
        max_instances: maximum number of instances.
        thing_classes: of `panoptic_segments`.
    """

    semantic: bool = True
    instance: bool = False
    panoptic: bool = False
    resize_masks_first: bool = False
    object_threshold: float = 0.8
    overlap_threshold: float = 0.8
    max_instances: int = 100
    thing_classes: Collection[int] = ()

    def __post_init__(self):
        if not (self.semantic or self.instance or self.panoptic):
            raise ValueError(
                "MODEL.MASK_FORMER.TEST: SEMANTIC_ON, INSTANCE_ON and PANOPTIC_ON are all False; turn one on."
            )
        if self.instance and self.max_instances < 1:
            raise ValueError(f"TEST.DETECTIONS_PER_IMAGE = {self.max_instances}: Mask2Former needs 1 or more.")


@SEM_SEG_HEADS_REGISTRY.register()
class MaskFormerHead(nn.Module):
    """Pixel decoder, transformer decoder and criterion; ``head(features, targets) -> (None, losses)`` in training,
    ``head(features) -> (prediction, {})`` in inference, where `postprocess` turns the prediction into outputs.
    """

    # Semantic scores are sums of products of probabilities, not logits; code that averages scores reads this.
    scores_are_probabilities = True
    # Without a labelled pixel the losses are zero, where per-pixel heads would return NaN.
    takes_empty_targets = True

    @configurable
    def __init__(
        self,
        *,
        pixel_decoder: nn.Module,
        predictor: nn.Module,
        criterion: SetCriterion,
        num_classes: int,
        common_stride: int = 4,
        ignore_value: int = 255,
        ignore_as_background: bool = False,
        outputs: OutputOptions | None = None,
    ):
        """
        Args:
            pixel_decoder: {name: (B, c, h_l, w_l)} -> PixelFeatures.
            predictor: PixelFeatures -> QueryPrediction.
            criterion: QueryPrediction, Targets -> losses.
            num_classes: K.
            common_stride: image pixels per pixel of the mask features, along each axis.
            ignore_value: label of ignored pixels.
            ignore_as_background: see `LabelMapTargets`.
            outputs: None for semantic scores only.
        """
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor
        self.criterion = criterion
        self.num_classes = num_classes
        self.common_stride = common_stride
        self.ignore_value = ignore_value
        self.ignore_as_background = ignore_as_background
        self.outputs = outputs or OutputOptions()

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        head, mask = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
        check_registered("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", head.PIXEL_DECODER_NAME, PIXEL_DECODER_REGISTRY)
        check_features("MODEL.SEM_SEG_HEAD.IN_FEATURES", head.IN_FEATURES, input_shape, cfg.MODEL.BACKBONE.NAME)
        check_num_classes(cfg)
        features = {name: input_shape[name] for name in head.IN_FEATURES}
        pixel_decoder = PIXEL_DECODER_REGISTRY.get(head.PIXEL_DECODER_NAME)(cfg, features)
        unread = [name for name in features if name not in getattr(pixel_decoder, "in_features", features)]
        if unread:  # SGR would refine them in vain
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES = {list(features)}: {head.PIXEL_DECODER_NAME} does not read {unread}. "
                "Leave them out, or, if they are not finer than COMMON_STRIDE = "
                f"{head.COMMON_STRIDE}, add them to DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES."
            )
        return {
            "pixel_decoder": pixel_decoder,
            "predictor": MultiScaleMaskedTransformerDecoder(cfg, num_levels=pixel_decoder.num_levels),
            "criterion": SetCriterion(cfg),
            "num_classes": head.NUM_CLASSES,
            "common_stride": head.COMMON_STRIDE,
            "ignore_value": head.IGNORE_VALUE,
            "ignore_as_background": mask.IGNORE_AS_BACKGROUND,
            "outputs": _outputs(cfg),
        }

    def forward(
        self, features: dict[str, Tensor], targets: Tensor | Targets | None = None
    ) -> tuple[QueryPrediction | None, dict[str, Tensor]]:
        """
        Args:
            features: of the backbone (or SGR), at least those of IN_FEATURES; if `reads_tokens`, also SGR's tokens
                under the name TOKENS.
            targets: in training, (B, H, W) labels of the padded images, or any Targets.

        Returns:
            In training (None, weighted losses); in inference (the last layer's prediction, {}).
        """
        prediction = self.predictor(self.pixel_decoder(features), features.get(TOKENS))
        if self.training:
            return None, self.losses(prediction, targets)
        return prediction.last(), {}

    @property
    def reads_tokens(self) -> bool:
        """Whether the queries attend to SGR's tokens."""
        return self.predictor.reads_tokens

    def losses(self, prediction: QueryPrediction, targets: Tensor | Targets) -> dict[str, Tensor]:
        """Losses of a prediction; see `SetCriterion`."""
        if not isinstance(targets, Targets):
            self._check_size(targets, prediction)
            targets = LabelMapTargets(
                targets,
                num_classes=self.num_classes,
                ignore_value=self.ignore_value,
                ignore_as_background=self.ignore_as_background,
            )
        return self.criterion(prediction, targets)

    def _check_size(self, label_map: Tensor, prediction: QueryPrediction) -> None:
        """Raise ValueError unless the labels have the size of the padded images: they are read at relative points."""
        expected = tuple(length * self.common_stride for length in prediction.mask_features.shape[-2:])
        if tuple(label_map.shape[-2:]) != expected:
            raise ValueError(
                f"The label maps are {tuple(label_map.shape[-2:])} (height, width), the padded images {expected}. Pad "
                "labels as the images, with the ignore value."
            )

    @torch.no_grad()
    def postprocess(
        self, prediction: QueryPrediction, index: int, size: tuple[int, int], height: int, width: int
    ) -> dict:
        """Outputs of one image of the batch.

        Args:
            prediction: of this head in inference. index: of the image.
            size: (height, width) of the image without its padding.
            height, width: of the outputs.

        Returns:
            The outputs that are on, out of "sem_seg" (K, height, width) scores, "instances" Instances, and
            "panoptic_seg" (ids (height, width) int32, segments).
        """
        with torch.autocast(prediction.class_logits.device.type, enabled=False):
            logits, masks = prediction.class_logits[-1, index], prediction.of_image(index).masks()[0]
            padded = (masks.shape[1] * self.common_stride, masks.shape[2] * self.common_stride)
            return self._results(logits, masks, padded, tuple(size), (height, width))

    def _results(self, logits: Tensor, masks: Tensor, padded: Size, size: Size, output: Size) -> dict:
        options, things = self.outputs, set(self.outputs.thing_classes)
        resized = ResizedMasks(masks, padded, size, output)
        results: dict = {}
        if options.semantic and (options.resize_masks_first or options.instance or options.panoptic):
            results["sem_seg"] = semantic_scores(logits, resized)
        elif options.semantic:
            scores = semantic_scores(logits, ResizedMasks(masks, padded, size))
            results["sem_seg"] = scores if output == size else resize_scores(scores, size, *output)
        if options.instance:
            classes = things if options.panoptic else None
            results["instances"] = instances(logits, resized, max_instances=options.max_instances, classes=classes)
        if options.panoptic:
            results["panoptic_seg"] = panoptic_segments(
                logits,
                resized,
                thing_classes=things,
                object_threshold=options.object_threshold,
                overlap_threshold=options.overlap_threshold,
            )
        return results


def _outputs(cfg: CfgNode) -> OutputOptions:
    test = cfg.MODEL.MASK_FORMER.TEST
    return OutputOptions(
        semantic=test.SEMANTIC_ON,
        instance=test.INSTANCE_ON,
        panoptic=test.PANOPTIC_ON,
        resize_masks_first=test.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE,
        object_threshold=test.OBJECT_MASK_THRESHOLD,
        overlap_threshold=test.OVERLAP_THRESHOLD,
        max_instances=cfg.TEST.DETECTIONS_PER_IMAGE,
        thing_classes=_thing_classes(cfg) if test.PANOPTIC_ON else (),
    )


def _thing_classes(cfg: CfgNode) -> tuple[int, ...]:
    """The thing classes according to the data set's metadata; if it names none, logs a warning."""
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    metadata = MetadataCatalog.get(names[0]) if names else None
    things = tuple(getattr(metadata, "thing_dataset_id_to_contiguous_id", {}).values())
    if not things:
        classes, named = getattr(metadata, "stuff_classes", ()), getattr(metadata, "thing_classes", ())
        things = tuple(index for index, name in enumerate(classes) if name in named)
    if not things:
        logger.warning(
            "MODEL.MASK_FORMER.TEST.PANOPTIC_ON: the metadata of %s names no thing_classes, so the objects of a class "
            "form one segment, and there are no instances. Set thing_classes where the data set is registered.",
            names[:1],
        )
    return things
