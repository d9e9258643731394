"""Toy parts for the tests of models: small enough that a test runs in milliseconds."""

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import nn

from sgr_d2.config import get_sgr_cfg

CHANNELS = {"res2": 8, "res3": 12, "res4": 16, "res5": 20}
STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


class ToyBackbone(Backbone):
    """Four levels of strides 4 to 32, each two convolutions on the pooled image."""

    def __init__(self):
        super().__init__()
        self.levels = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1))
                for name, width in CHANNELS.items()
            }
        )
        self._out_features = list(CHANNELS)
        self._out_feature_channels = dict(CHANNELS)
        self._out_feature_strides = dict(STRIDES)

    def forward(self, images):
        return {
            name: level(nn.functional.avg_pool2d(images, STRIDES[name], ceil_mode=True))
            for name, level in self.levels.items()
        }


if "build_toy_backbone" not in BACKBONE_REGISTRY:

    @BACKBONE_REGISTRY.register()
    def build_toy_backbone(cfg, input_shape):
        return ToyBackbone()


def toy_shape(*names: str) -> dict[str, ShapeSpec]:
    """ShapeSpecs of the toy backbone's levels."""
    return {name: ShapeSpec(channels=CHANNELS[name], stride=STRIDES[name]) for name in names or CHANNELS}


def toy_features(batch: int, height: int, width: int, *names: str) -> dict[str, torch.Tensor]:
    """Random features of images of height x width pixels (multiples of 32)."""
    return {
        name: torch.randn(batch, CHANNELS[name], height // STRIDES[name], width // STRIDES[name])
        for name in names or CHANNELS
    }


def toy_cfg(*, sgr: bool = True, classes: int = 5):
    """Config of a toy model: the toy backbone, Semantic FPN's head and, if asked, SGR."""
    cfg = get_sgr_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_toy_backbone"
    cfg.MODEL.SGR.ENABLED = sgr
    cfg.MODEL.SGR.IN_FEATURES = ["res3", "res4"]
    cfg.MODEL.SGR.NUM_TOKENS = 6
    cfg.MODEL.SGR.TOKEN_DIM = 16
    cfg.MODEL.SGR.ENCODER_LAYERS = 1
    cfg.MODEL.SGR.NUM_HEADS = 2
    cfg.MODEL.SEM_SEG_HEAD.NAME = "SemSegFPNHead"
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 32
    cfg.MODEL.SEM_SEG_HEAD.NORM = ""
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = classes
    cfg.MODEL.POINT_HEAD.NUM_CLASSES = classes
    return cfg


def toy_input(height: int, width: int, *, classes: int = 5, ignore: int = 255, seed: int = 0) -> dict:
    """One training input: a random image, two labelled stripes as components, the rest ignored."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full((height, width), ignore)
    components = torch.zeros(height, width, dtype=torch.int32)
    half = height // 2
    labels[:half], components[:half] = seed % classes, 1
    labels[half : height - 1], components[half : height - 1] = (seed + 1) % classes, 2
    return {
        "image": torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8),
        "sem_seg": labels.long(),
        "components": components,
        "component_classes": torch.tensor([seed % classes, (seed + 1) % classes]),
        "file_name": f"toy_{seed}.png",
    }


def randomize_zeros(module: nn.Module) -> None:
    """Replace parameters that start at zero, so that gradients flow everywhere."""
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
