"""Use a trained model: images in, named arrays out.

from sgr_d2 import SGRPredictor

predict = SGRPredictor.from_checkpoint("output/camvid/fpn_sgr_effnet_lite0/model_final.pth")
out = predict("street.jpg")
out.labels, out.scores, out.regions, out.tokens, out.class_areas()
"""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from torch import nn

from sgr_d2.data.augmentation import build_augmentations
from sgr_d2.data.datasets import SemanticMetadata
from sgr_d2.data.reading import label_dtype
from sgr_d2.engine.build import build_model, without_initial_weights
from sgr_d2.engine.checkpoint.checkpoint_file import require_checkpoint
from sgr_d2.engine.checkpoint.model_card import read_card
from sgr_d2.engine.loop import DTYPES
from sgr_d2.engine.machine import use_machine
from sgr_d2.engine.same_run import load_trained
from sgr_d2.engine.setup import load_config
from sgr_d2.engine.tasks import task_of
from sgr_d2.labels import labels_of
from sgr_d2.modeling import SGR, MaskFormerHead

from .image_input import ImageLike, as_image, require_several
from .prediction import Prediction
from .protocol import loader_config, with_protocol
from .scale import ScaleWarning


class SGRPredictor:
    """Applies a trained model to images and returns named arrays. Several threads may share one predictor.

    Images of one call may have any sizes; those of equal size share a batch.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        metadata: SemanticMetadata,
        image_format: str = "RGB",
        augmentations: Sequence[T.Augmentation] = (),
        autocast: str | None = None,
        scale_warning: ScaleWarning | None = None,
    ):
        """
        Args:
            model: an `SGRSegmentor`, or any model with the same interface; it stays on its device and is put into
                evaluation mode.
            metadata: names, colours and ignore label of the classes.
            image_format: channel order that the model was trained with, "RGB" or "BGR".
            augmentations: applied to the image, for instance a resize; outputs have the size of the original image.
            autocast: "bfloat16" or "float16", or None for float32.
            scale_warning: warns of an image at another scale than those of the training; by default nothing does.

        Raises:
            ValueError: for an unknown dtype.
        """
        if autocast is not None and autocast not in DTYPES:
            raise ValueError(f"autocast = {autocast!r}: choose from {sorted(DTYPES)}, or None for float32.")
        self.model = model.eval()
        self.metadata = metadata
        self.image_format = image_format
        self._augmentations = T.AugmentationList(augmentations)
        self._autocast = DTYPES.get(autocast)
        self._scale_warning = scale_warning or ScaleWarning()
        self._lock = threading.Lock()

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike,
        *,
        config_file: str | os.PathLike | None = None,
        opts: Sequence[str] = (),
        device: str | torch.device | None = None,
        autocast: str | None = None,
    ) -> "SGRPredictor":
        """Load a model that sgr_d2 has trained.

        The log warns of settings of the model and INPUT.FORMAT that are not those of the training, and, once, of an
        image whose shorter side, resized for the test, is far from INPUT.MIN_SIZE_TRAIN.

        Args:
            path: the checkpoint, which contains its config and class names.
            config_file: the config of the run, for a checkpoint without them.
            opts: KEY VALUE pairs that override the config, e.g. ["INPUT.MIN_SIZE_TEST", 512]. Modules are imported if
                IMPORTS is among them, but not because the checkpoint names them.
            device: "cpu", "cuda", "cuda:1", ...; by default a GPU if there is one.
            autocast: "bfloat16" or "float16", or None for float32.

        Raises:
            FileNotFoundError: if a file does not exist.
            ValueError, KeyError: if the checkpoint contains no config, does not fit it, is for a detector, or has other
                classes than the data sets of ``config_file``; if a key of ``opts`` is unknown or the device does not
                exist.
        """
        path = os.fspath(path)
        cfg, metadata = _config_of(path, config_file, [str(opt) for opt in opts])
        cfg.MODEL.DEVICE = str(choose_device(device))
        use_machine(cfg, world_size=1)
        cfg.freeze()
        model = build_model(without_initial_weights(cfg))
        if not hasattr(model, "sem_seg_head"):
            raise ValueError(
                f"{path} is of a {cfg.MODEL.META_ARCHITECTURE}, which does not segment classes; SGRPredictor and its "
                'tools are for semantic segmentation. For detectors see "Use a trained detector" in docs/detection.md.'
            )
        load_trained(cfg, model, path, compare_classes=config_file is not None)
        return cls(
            model=with_protocol(cfg, model),
            metadata=metadata,
            image_format=cfg.INPUT.FORMAT,
            augmentations=build_augmentations(loader_config(cfg), is_train=False),
            autocast=autocast,
            scale_warning=ScaleWarning.of(cfg),
        )

    @property
    def classes(self) -> list[str]:
        """Class names, indexed by label."""
        return self.metadata.classes

    @property
    def has_sgr(self) -> bool:
        """Whether predictions include regions and tokens."""
        return any(isinstance(module, SGR) for module in self.model.modules())

    @property
    def test_size(self) -> tuple[int, int]:
        """The size to which images are resized, in pixels: (shorter side, maximum of the longer), or (0, 0) if they are
        not resized.
        """
        resizes = (a for a in self._augmentations.augs if isinstance(a, T.ResizeShortestEdge))
        return next(((resize.short_edge_length[0], resize.max_size) for resize in resizes), (0, 0))

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def __call__(
        self, images: ImageLike | Sequence[ImageLike], *, channels: str = "RGB", scores: bool = True
    ) -> Prediction | list[Prediction]:
        """Predict one image, or a list of them (or an array (N, H, W, 3)) as one batch.

        Args:
            images: a path, a PIL image or an array: (H, W, 3), (H, W) grey, or (H, W, 4), whose alpha is dropped; of
                uint8, or uint16, which is divided by 256 as 16-bit files are.
            channels: channel order of arrays, "RGB" or "BGR" (OpenCV); not used for files and PIL images.
            scores: also return the class scores, C floats per pixel.

        Returns:
            A Prediction at the image's own size, or a list of them for several images.

        Raises:
            FileNotFoundError, ValueError, TypeError: if an image cannot be read, or is not an image; the message says
                why.
        """
        several = isinstance(images, list | tuple) or (isinstance(images, np.ndarray) and images.ndim == 4)
        inputs = [self._input(as_image(image, channels)) for image in (images if several else [images])]
        if not inputs:
            return []
        with self._lock, torch.no_grad(), self._precision():
            outputs = self.model(inputs)
        predictions = [self._prediction(output, scores) for output in outputs]
        return predictions if several else predictions[0]

    def stream(
        self, images: Iterable[ImageLike], *, batch_size: int = 1, channels: str = "RGB", scores: bool = False
    ) -> Iterator[Prediction]:
        """Predict any number of images lazily, ``batch_size`` at a time. Other arguments as in `__call__`.

        Raises:
            TypeError: if ``images`` is a single image.
            FileNotFoundError, ValueError, TypeError: as in `__call__`.
        """
        require_several(images)
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}: give 1 or more.")
        iterator = iter(images)
        while batch := list(islice(iterator, batch_size)):
            yield from self(batch, channels=channels, scores=scores)

    def _precision(self):
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._autocast)

    def _input(self, image: np.ndarray) -> dict:
        """(H, W, 3) RGB -> the model's input dict."""
        height, width = image.shape[:2]
        augmented = T.AugInput(image if self.image_format == "RGB" else image[:, :, ::-1])
        self._augmentations(augmented)
        self._scale_warning.look_at((height, width), augmented.image.shape[:2])
        pixels = torch.from_numpy(np.array(augmented.image.transpose(2, 0, 1), order="C"))
        return {"image": pixels, "height": height, "width": width}

    def _prediction(self, output: dict, with_scores: bool) -> Prediction:
        if "sem_seg" not in output:
            raise ValueError(_why_no_scores(self.model))
        scores = output["sem_seg"]
        if scores.amax(0).isnan().any():
            raise ValueError("The scores are NaN: the training diverged, or float16 overflowed (autocast=None helps).")
        labels = labels_of(scores)
        sgr = output.get("sgr")
        return Prediction(
            labels=labels.astype(label_dtype(len(self.classes), ignore_label=0)),
            scores=scores.float().cpu().numpy() if with_scores else None,
            regions=None if sgr is None else sgr.regions.float().cpu().numpy(),
            tokens=None if sgr is None else sgr.tokens.float().cpu().numpy(),
            extent=None if sgr is None else sgr.extent,
            metadata=self.metadata,
        )


def choose_device(device: str | torch.device | None) -> torch.device:
    """The named device; for None a GPU if there is one, else the CPU. Raises ValueError if it does not exist."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r}: give 'cpu', 'cuda' or 'cuda:<number>'.") from error
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r}: models run on 'cpu', 'cuda' or 'cuda:<number>'.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r}: this machine has {torch.cuda.device_count()} GPUs; use 'cpu'.")
    return chosen


def _why_no_scores(model: nn.Module) -> str:
    head = getattr(model, "sem_seg_head", model)
    if isinstance(head, MaskFormerHead):
        return "The model returns no 'sem_seg': set MODEL.MASK_FORMER.TEST.SEMANTIC_ON to True."
    return (
        f"{type(head).__name__} gives no 'sem_seg': the dict for an image (for a head, what its `postprocess` returns) "
        "must contain the scores (C, height, width) under this key."
    )


def _config_of(path: str, config_file: str | os.PathLike | None, opts: list[str]) -> tuple[CfgNode, SemanticMetadata]:
    """The unfrozen config of a checkpoint and its classes, from the file itself or from ``config_file``."""
    if config_file is not None:
        require_checkpoint(path)
        cfg = load_config(os.fspath(config_file), opts)
        names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
        metadata = task_of(names).metadata_of(names)
        cfg.defrost()
        return cfg, metadata
    card = read_card(path)
    return card.cfg(opts), card.metadata()
