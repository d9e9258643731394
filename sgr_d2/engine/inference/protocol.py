"""How a model is applied to test images: as it is, window by window, or over scales and mirror images."""

import logging

from detectron2.config import CfgNode
from torch import nn

from sgr_d2.engine.options import with_values
from sgr_d2.modeling.mask2former.head import MaskFormerHead
from sgr_d2.modeling.sliding_window import SlidingWindow
from sgr_d2.modeling.test_time_augmentation import TestTimeAugmentation

logger = logging.getLogger(__name__)


def with_protocol(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Wrap ``model`` according to TEST.SLIDING_WINDOW and TEST.AUG, with the augmentation outermost.

    The wrapper gets the mode (training or evaluation) of ``model``, which Detectron2 restores after an evaluation.

    Raises:
        ValueError: if the model is not a semantic segmentor or returns no class scores, or sizes are invalid.
    """
    windows, augmentation = cfg.TEST.SLIDING_WINDOW, cfg.TEST.AUG
    if not (windows.ENABLED or augmentation.ENABLED):
        return model
    head = getattr(model, "sem_seg_head", None)
    if head is None:
        raise ValueError(
            f"TEST.SLIDING_WINDOW and TEST.AUG need a semantic segmentor; MODEL.META_ARCHITECTURE is "
            f"{cfg.MODEL.META_ARCHITECTURE}. Set their ENABLED to False."
        )
    if isinstance(head, MaskFormerHead):
        _check_outputs(head)
    wrapped = model
    if windows.ENABLED:
        wrapped = SlidingWindow(model, size=windows.SIZE, stride=windows.STRIDE, batch_size=windows.BATCH_SIZE)
        logger.info("Sliding windows of %s, every %s pixels.", list(windows.SIZE), list(windows.STRIDE))
    if augmentation.ENABLED:
        wrapped = TestTimeAugmentation(
            wrapped,
            min_sizes=augmentation.MIN_SIZES,
            max_size=augmentation.MAX_SIZE,
            flip=augmentation.FLIP,
            probabilities=getattr(head, "scores_are_probabilities", False),
        )
        mirrored = ", and mirrored" if augmentation.FLIP else ""
        logger.info("Test-time augmentation: shorter edges %s%s.", list(augmentation.MIN_SIZES), mirrored)
    wrapped.training = model.training  # only of the wrapper: parts of the model may be in another mode
    return wrapped


def _check_outputs(head: MaskFormerHead) -> None:
    """Windows and views are joined by their class scores, which this head need not return, or not alone."""
    key = "MODEL.MASK_FORMER.TEST"
    if not head.outputs.semantic:
        raise ValueError(f"TEST.SLIDING_WINDOW and TEST.AUG need class scores: set {key}.SEMANTIC_ON to True.")
    if head.outputs.instance or head.outputs.panoptic:
        logger.warning(
            "TEST.SLIDING_WINDOW and TEST.AUG return class scores alone: turn %s.INSTANCE_ON and PANOPTIC_ON off to "
            "save time, or these two off to get instances and panoptic segments.",
            key,
        )


def loader_config(cfg: CfgNode) -> CfgNode:
    """The config of the test loader, without a resize if TEST.AUG does its own from the size of the file."""
    if not cfg.TEST.AUG.ENABLED:
        return cfg
    return with_values(cfg, {"INPUT.MIN_SIZE_TEST": 0})
