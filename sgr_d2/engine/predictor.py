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
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from torch import nn

from sgr_d2.data.augmentation import build_augmentations
from sgr_d2.data.datasets import SemanticMetadata
from sgr_d2.data.reading import label_dtype
from sgr_d2.labels import labels_of
from sgr_d2.modeling import SGR, MaskFormerHead

from .build import build_model, without_initial_weights
from .image_input import ImageLike, as_image
from .loop import DTYPES
from .model_card import read_card
from .prediction import Prediction
from .protocol import loader_config, with_protocol
from .same_run import load_trained
from .setup import load_config, use_machine
from .tasks import task_of


class SGRPredictor:
    """A model in inference, from image to named arrays. Several threads may call one predictor.

    The images of a call may have any sizes; those of one size share a batch.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        metadata: SemanticMetadata,
        image_format: str = "RGB",
        augmentations: Sequence[T.Augmentation] = (),
        autocast: str | None = None,
    ):
        """
        Args:
            model: an `SGRSegmentor`, or any model of its contract; stays on its device, goes to evaluation mode.
            metadata: names, colours and ignore label of the classes.
            image_format: order of the channels that the model was trained with, "RGB" or "BGR".
            augmentations: applied to the image, for instance a resize; the outputs have the size of the image.
            autocast: None for float32, or "bfloat16" or "float16".

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

        Args:
            path: the checkpoint; it carries its config and class names.
            config_file: for a checkpoint without them, the config of its run.
            opts: KEY VALUE pairs that override the config, e.g. ["INPUT.MIN_SIZE_TEST", 512]; IMPORTS among them are
                imported, those that the checkpoint alone names are not.
            device: "cpu", "cuda", "cuda:1", ...; by default a GPU where there is one.
            autocast: None for float32, or "bfloat16" or "float16".

        Raises:
            FileNotFoundError: a file does not exist.
            ValueError, KeyError: the checkpoint carries no config, or does not fit it, or is of other classes than the
                data sets of ``config_file``, or of a detector; a key of ``opts`` is unknown; there is no such device.
        """
        path = os.fspath(path)
        cfg, metadata = _config_of(path, config_file, [str(opt) for opt in opts])
        cfg.MODEL.DEVICE = str(choose_device(device))
        use_machine(cfg, world_size=1)
        cfg.freeze()
        model = build_model(without_initial_weights(cfg))
        if not hasattr(model, "sem_seg_head"):
            raise ValueError(
                f"{path} is of a {cfg.MODEL.META_ARCHITECTURE}, which segments no classes; SGRPredictor and its "
                'tools are for semantic segmentation. For detectors see "Use a trained detector" in docs/detection.md.'
            )
        load_trained(None if config_file is None else cfg, model, path)
        return cls(
            model=with_protocol(cfg, model),
            metadata=metadata,
            image_format=cfg.INPUT.FORMAT,
            augmentations=build_augmentations(loader_config(cfg), is_train=False),
            autocast=autocast,
        )

    @property
    def classes(self) -> list[str]:
        """Names of the classes, by label."""
        return self.metadata.classes

    @property
    def has_sgr(self) -> bool:
        """Whether predictions carry regions and tokens."""
        return any(isinstance(module, SGR) for module in self.model.modules())

    @property
    def test_size(self) -> tuple[int, int]:
        """To what images are resized, pixels of the shorter side and at most of the longer; (0, 0): they are not."""
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
            images: a path, a PIL image or an array: (H, W, 3) uint8, (H, W) grey, (H, W, 4) whose alpha is dropped.
            channels: order of the channels of arrays, "RGB" or "BGR" (OpenCV); files and PIL images know theirs.
            scores: return the class scores too, C floats a pixel.

        Returns:
            A Prediction of the image's own size; a list of them for a list.

        Raises:
            FileNotFoundError, ValueError, TypeError: an image cannot be read, or is none; the message says why.
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
        """Predict any number of images, ``batch_size`` at a time; yields as it goes. Arguments as in a call."""
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}: at least one image at a time.")
        iterator = iter(images)
        while batch := list(islice(iterator, batch_size)):
            yield from self(batch, channels=channels, scores=scores)

    def _precision(self):
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._autocast)

    def _input(self, image: np.ndarray) -> dict:
        """(H, W, 3) RGB -> what the model takes."""
        height, width = image.shape[:2]
        augmented = T.AugInput(image if self.image_format == "RGB" else image[:, :, ::-1])
        self._augmentations(augmented)
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
    """The device of that name, or a GPU if there is one. Raises ValueError for one that is not there."""
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
        f"{type(head).__name__} gives no 'sem_seg': the dict of an image (of a head, what its `postprocess` returns) "
        "must have the scores (C, height, width) under this key."
    )


def _config_of(path: str, config_file: str | os.PathLike | None, opts: list[str]) -> tuple[CfgNode, SemanticMetadata]:
    """The unfrozen config of a checkpoint, and its classes: from the file itself, or from ``config_file``."""
    if config_file is not None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such checkpoint.")
        cfg = load_config(os.fspath(config_file), opts)
        names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
        metadata = task_of(names).metadata_of(names)
        cfg.defrost()
        return cfg, metadata
    card = read_card(path)
    return card.cfg(opts), card.metadata()
