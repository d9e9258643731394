"""The meta-architecture: wires up backbone, optional SGR and head; pads, and post-processes the output."""

import math

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    Backbone,
    build_backbone,
    build_sem_seg_head,
)
from torch import Tensor, nn

from sgr_d2.checks import check_num_classes
from sgr_d2.structures import TOKENS, ImageTokens, SGROutput

from .head_keys import check_head, features_of_head
from .image_names import naming_images
from .monitor import log_regions
from .padding import all_have, copy_to, pad_to_batch
from .postprocessing import both, predict
from .randomness import own_random_numbers
from .ranks import mean_over_ranks
from .sgr import SGR, SGRCriterion


@META_ARCH_REGISTRY.register()
class SGRSegmentor(nn.Module):
    """Semantic segmentation with any registered backbone and head, and SGR between them.

    The head is any of Detectron2's registry for which ``head(features, targets)`` returns ``(None, losses)`` in
    training and ``(scores, {})`` in inference; see `postprocessing.predict` for heads that return more than scores.
    A head whose attribute ``reads_tokens`` is True gets SGR's tokens (B, K, D) among the features, under the name
    TOKENS.
    """

    takes_small_labels = True  # "sem_seg" may have 8 or 32 bits; the mapper asks

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sgr: SGR | None,
        criterion: SGRCriterion | None,
        sem_seg_head: nn.Module,
        pixel_mean: list[float],
        pixel_std: list[float],
        ignore_value: int = 255,
        min_train_size: tuple[int, int] = (0, 0),
        read: list[str] | None = None,
    ):
        """
        Args:
            backbone: images (B, 3, H, W) -> {name: (B, C, H_l, W_l)}.
            sgr: None for the baseline.
            criterion: the losses of SGR; None without SGR.
            sem_seg_head: see above.
            pixel_mean, pixel_std: one number per channel, in the channel order of the images.
            ignore_value: label of ignored pixels; also fills the padding of label maps.
            min_train_size: in training, batches are padded to at least this height and width (heads that pool over
                a fixed window need it when an image is smaller than the crop).
            read: the features that SGR and the head read, None for all. Images are padded to multiples of their
                strides; the strides of unused coarser features (p6 of Detectron2's pyramids) do not matter.

        Raises:
            ValueError: if a feature that is read has no stride.
        """
        super().__init__()
        self.backbone = backbone
        self.sgr = sgr
        self.criterion = criterion
        self.sem_seg_head = sem_seg_head
        self.ignore_value = ignore_value
        self.min_train_size = tuple(min_train_size)
        self.strides = _strides(backbone, read)
        self.size_divisibility = math.lcm(backbone.size_divisibility or 1, *self.strides.values())
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        check_num_classes(cfg)
        backbone = build_backbone(cfg)
        shape = backbone.output_shape()
        check_head(cfg, shape)
        enabled = cfg.MODEL.SGR.ENABLED
        with own_random_numbers():
            sgr = SGR(cfg, shape, refined=features_of_head(cfg)) if enabled else None
            criterion = SGRCriterion(cfg, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES) if enabled else None
        head = build_sem_seg_head(cfg, shape | sgr.output_shape() if enabled else shape)
        if enabled and cfg.MODEL.SGR.QUERY_ATTENTION and not getattr(head, "reads_tokens", False):
            raise ValueError(
                f"MODEL.SGR.QUERY_ATTENTION = True: the head {cfg.MODEL.SEM_SEG_HEAD.NAME} "
                "(MODEL.SEM_SEG_HEAD.NAME) has no queries that attend to tokens. Set it to False."
            )
        return {
            "backbone": backbone,
            "sgr": sgr,
            "criterion": criterion,
            "sem_seg_head": head,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "ignore_value": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            "min_train_size": cfg.INPUT.CROP.SIZE if _crops_to_pixels(cfg) else (0, 0),
            "read": [*features_of_head(cfg), *(cfg.MODEL.SGR.IN_FEATURES if enabled else ())],
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: one dict per image with "image" (3, H, W); in training also "sem_seg" (H, W) labels,
                "components" (H, W) ids and "component_classes" (L,), as `sgr_d2.data.mapper` makes them; in inference
                optionally "height" and "width" of the output.

        Returns:
            In training {"loss_...": scalar}. In inference one dict per image: "sem_seg" (C, height, width) scores and,
            with SGR, "sgr" ImageTokens.
        """
        return self.losses(batched_inputs) if self.training else self.inference(batched_inputs)

    def losses(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        features, output = self.features(batched_inputs, self.min_train_size)
        targets = self._batch(batched_inputs, "sem_seg", self.ignore_value)
        with naming_images([x.get("file_name", "?") for x in batched_inputs]):
            losses = self._head_losses(features, targets)
        if output is not None:
            losses.update(self._sgr_losses(output, batched_inputs))
            log_regions(output, batched_inputs)
        return losses

    def inference(self, batched_inputs: list[dict]) -> list[dict]:
        """Batch only images of equal size, so that no image is padded to the size of another."""
        groups: dict[tuple[int, int], list[int]] = {}
        for index, x in enumerate(batched_inputs):
            groups.setdefault(tuple(x["image"].shape[-2:]), []).append(index)
        results: list[dict] = [{} for _ in batched_inputs]
        for indices in groups.values():
            for index, result in zip(indices, self._infer([batched_inputs[i] for i in indices]), strict=True):
                results[index] = result
        return results

    def features(
        self, batched_inputs: list[dict], min_size: tuple[int, int] = (0, 0)
    ) -> tuple[dict[str, Tensor], SGROutput | None]:
        """Backbone features, refined by SGR if there is one, and the output of SGR, if any."""
        images = [copy_to(x["image"], self.device) for x in batched_inputs]
        images = [(image - self.pixel_mean) / self.pixel_std for image in images]
        sizes = copy_to(torch.tensor([image.shape[-2:] for image in images]), self.device)
        batch = pad_to_batch(images, divisor=self.size_divisibility, value=0.0, min_size=min_size)
        features = self.backbone(batch)
        self._check_sizes(features, *batch.shape[-2:])
        return self.refine(features, sizes)

    def refine(self, features: dict[str, Tensor], image_sizes: Tensor) -> tuple[dict[str, Tensor], SGROutput | None]:
        """Refine the backbone's features for the head.

        Args:
            features: of the backbone, {name: (B, C_l, H_l, W_l)}.
            image_sizes: (B, 2) heights and widths in pixels, before padding.

        Returns:
            Features of the same names and shapes, plus the tokens if the head reads them; and the output of SGR, or
            None without SGR.
        """
        if self.sgr is None:
            return features, None
        output = self.sgr(features, image_sizes)
        if getattr(self.sem_seg_head, "reads_tokens", False):
            return output.features | {TOKENS: output.tokens}, output
        return output.features, output

    def _check_sizes(self, features: dict[str, Tensor], height: int, width: int) -> None:
        """Raise ValueError for wrong strides, which would misalign regions and scores with the image."""
        for name, stride in self.strides.items():
            rows, columns = features[name].shape[-2:]
            if (rows * stride, columns * stride) != (height, width):
                raise ValueError(
                    f"The backbone says that {name} has stride {stride}, but made {rows}x{columns} cells of "
                    f"{height}x{width} pixels (rows x columns). Correct its output_shape()."
                )

    def _sgr_losses(self, output: SGROutput, batched_inputs: list[dict]) -> dict[str, Tensor]:
        if not self.criterion.has_losses:
            return {}
        if not all_have(batched_inputs, "components"):
            raise ValueError(
                'The mapper gives no "components" and "component_classes", which the losses of SGR need: use '
                "sgr_d2.data.mapper.SemanticMapper or sgr_d2.data.components.label_components, or set "
                "MODEL.SGR.COMPONENT_WEIGHT, DIVERSITY_WEIGHT and CLASS_WEIGHT to 0."
            )
        components = self._batch(batched_inputs, "components", 0)
        return self.criterion(output, components, [x["component_classes"] for x in batched_inputs])

    def _batch(self, batched_inputs: list[dict], key: str, value: int) -> Tensor:
        """The maps "sem_seg" or "components" as one (B, H, W) tensor, padded with ``value``."""
        for x in batched_inputs:
            if key not in x or x[key].shape != x["image"].shape[-2:]:
                found = f"has shape {tuple(x[key].shape)}" if key in x else "is missing"
                raise ValueError(
                    f'{x.get("file_name", "?")}: its "{key}" {found}; the mapper must give (H, W) labels of the '
                    f'size of its "image", {tuple(x["image"].shape[-2:])}.'
                )
        maps = [copy_to(x[key], self.device).long() for x in batched_inputs]
        return pad_to_batch(maps, divisor=self.size_divisibility, value=value, min_size=self.min_train_size)

    def _head_losses(self, features: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """The head's losses; zero, not NaN, if no pixel of the batch is labelled and the head cannot handle that."""
        if getattr(self.sem_seg_head, "takes_empty_targets", False):
            return both(self.sem_seg_head, self.sem_seg_head(features, targets))[1]
        labelled = (targets != self.ignore_value).any()
        targets = torch.where(labelled, targets, int(self.ignore_value == 0))  # any class, so that nothing is 0 / 0
        _, losses = both(self.sem_seg_head, self.sem_seg_head(features, targets))
        share = labelled / mean_over_ranks(labelled, targets.device)  # a rank without labels does not count in the mean
        return {name: loss * share for name, loss in losses.items()}

    def _infer(self, batched_inputs: list[dict]) -> list[dict]:
        features, output = self.features(batched_inputs)
        name, stride = next(iter(self.strides.items()))
        padded = tuple(cells * stride for cells in features[name].shape[-2:])
        postprocess = predict(self.sem_seg_head, features, padded)
        results = []
        for index, x in enumerate(batched_inputs):
            size = tuple(x["image"].shape[-2:])
            result = postprocess(index, size, x.get("height", size[0]), x.get("width", size[1]))
            if output is not None:
                result["sgr"] = image_tokens(output, index, size)
            results.append(result)
        return results


def image_tokens(output: SGROutput, index: int, size: tuple[int, int]) -> ImageTokens:
    """Regions and tokens of image ``index`` of a batch, cropped to the cells that overlap its (height, width)."""
    rows, columns = size[0] / output.stride, size[1] / output.stride
    regions = output.region_logits[index, :, : math.ceil(rows), : math.ceil(columns)].sigmoid()
    return ImageTokens(regions, output.tokens[index], (rows, columns))


def _strides(backbone: Backbone, read: list[str] | None) -> dict[str, int]:
    shape = backbone.output_shape()
    strides = {name: shape[name].stride for name in (shape if read is None else dict.fromkeys(read))}
    for name, stride in strides.items():
        if not stride:
            raise ValueError(f"{type(backbone).__name__}: output_shape() gives {name} no stride (pixels per cell).")
    return strides


def _crops_to_pixels(cfg: CfgNode) -> bool:
    return cfg.INPUT.CROP.ENABLED and cfg.INPUT.CROP.TYPE == "absolute"
