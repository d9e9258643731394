"""Detectron2's Semantic FPN head with a calm start."""

from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from torch import nn

PREDICTOR_STD = 0.01


@SEM_SEG_HEADS_REGISTRY.register()
class CalmSemSegFPNHead(SemSegFPNHead):
    """`SemSegFPNHead` whose first prediction is close to uniform; the state dict and all else are the same.

    Detectron2 scales the initial weights of the last layer by the number of classes. With few of them the first scores
    are of size 8 (11 classes, 96 channels), the first loss is 16 instead of log(11) = 2.4, and what a pre-trained
    backbone knows is moved while that is unlearnt.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        nn.init.normal_(self.predictor.weight, std=PREDICTOR_STD)
        nn.init.zeros_(self.predictor.bias)
