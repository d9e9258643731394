"""Inference on large images window by window, for any model with semantic output.

Shape legend: C classes, K tokens, H x W the image, h x w a window.
"""

import math

import torch
from torch import Tensor, nn

from sgr_d2.structures import ImageTokens

from .postprocessing import resize_scores


class SlidingWindow(nn.Module):
    """Predict overlapping windows and average their scores and, with SGR, their regions and tokens.

    Token k is the same filter in every window, so its regions can be merged like the scores of a class. Of
    Mask2Former's outputs only the semantic one is kept: instances that cross a window's border cannot be joined.
    """

    def __init__(self, model: nn.Module, *, size: tuple[int, int], stride: tuple[int, int], batch_size: int = 1):
        """
        Args:
            model: with the inputs and outputs of `SGRSegmentor` in inference.
            size: (height, width) of a window in pixels of the model's input. A smaller image is one window.
            stride: (rows, columns) from one window to the next; at most ``size``.
            batch_size: windows per forward pass.

        Raises:
            ValueError: if there are not two numbers each, the windows would leave gaps, or ``stride`` is smaller than
                the model's coarsest stride.
        """
        super().__init__()
        if len(size) != 2 or len(stride) != 2:
            raise ValueError(
                f"TEST.SLIDING_WINDOW.SIZE = {list(size)}, STRIDE = {list(stride)}: give two numbers each, height and "
                "width, rows and columns."
            )
        self.divisor = getattr(model, "size_divisibility", 1)
        if min(stride) < self.divisor:
            raise ValueError(
                f"TEST.SLIDING_WINDOW.STRIDE = {list(stride)}: windows begin on multiples of {self.divisor} pixels "
                "(the model's coarsest stride), so it must be at least that."
            )
        if not all(0 < step <= length for step, length in zip(stride, size, strict=True)):
            raise ValueError(
                f"TEST.SLIDING_WINDOW.STRIDE = {list(stride)} must be positive and at most "
                f"TEST.SLIDING_WINDOW.SIZE = {list(size)}."
            )
        self.model = model
        self.size = tuple(size)
        self.stride = tuple(stride)
        self.batch_size = batch_size

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """As the model: "sem_seg" (C, height, width) and, with SGR, "sgr"."""
        return [self._predict(x) for x in batched_inputs]

    def _predict(self, x: dict) -> dict:
        image = x["image"]
        size = tuple(image.shape[-2:])
        scores, tokens = None, None
        boxes = self._boxes(size)
        for start in range(0, len(boxes), self.batch_size):
            chosen = boxes[start : start + self.batch_size]
            windows = [{"image": image[:, top:bottom, left:right]} for top, left, bottom, right in chosen]
            for box, result in zip(chosen, self.model(windows), strict=True):
                scores = scores or _Mean(result["sem_seg"], size)
                scores.add(box, result["sem_seg"])
                if "sgr" in result:
                    tokens = tokens or _TokenMean(result["sgr"], box, size)
                    tokens.add(box, result["sgr"])
        mean = scores.mean()
        height, width = x.get("height", size[0]), x.get("width", size[1])
        results = {"sem_seg": mean if (height, width) == size else resize_scores(mean, size, height, width)}
        return results if tokens is None else results | {"sgr": tokens.mean()}

    def _boxes(self, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
        """(top, left, bottom, right) of the windows, which start on the model's grid so that token cells coincide."""
        rows, columns = (
            window_starts(length, window, step, self.divisor)
            for length, window, step in zip(size, self.size, self.stride, strict=True)
        )
        return [
            (top, left, size[0] if top == rows[-1] else top + self.size[0],
             size[1] if left == columns[-1] else left + self.size[1])
            for top in rows for left in columns
        ]  # fmt: skip


def window_starts(length: int, window: int, step: int, divisor: int = 1) -> list[int]:
    """Where windows start along one axis: at multiples of ``divisor``; the last one extends to the end.

    The last window may be up to ``divisor - 1`` pixels longer than the others; ``step`` is rounded down to a multiple.
    """
    last = max(length - window, 0) // divisor * divisor
    step = step // divisor * divisor
    return [*range(0, last, step), last]


class _Mean:
    """The mean of maps over the windows that contain a pixel, computed in one buffer of the size of the result."""

    def __init__(self, example: Tensor, size: tuple[int, int]):
        self.total = example.new_zeros(len(example), *size, dtype=torch.float32)
        self.count = example.new_zeros(1, *size, dtype=torch.float32)

    def add(self, box: tuple[int, int, int, int], values: Tensor) -> None:
        top, left, bottom, right = box
        self.total[:, top:bottom, left:right] += values
        self.count[:, top:bottom, left:right] += 1

    def mean(self) -> Tensor:
        return self.total.div_(self.count)


class _TokenMean:
    """Regions averaged cell by cell; tokens averaged, weighted by the mass of their regions."""

    def __init__(self, example: ImageTokens, box: tuple[int, int, int, int], size: tuple[int, int]):
        # rounded to whole pixels: the quotient has a rounding error, which could add another row of cells
        self.strides = (round((box[2] - box[0]) / example.extent[0]), round((box[3] - box[1]) / example.extent[1]))
        self.extent = (size[0] / self.strides[0], size[1] / self.strides[1])
        self.regions = _Mean(example.regions, tuple(math.ceil(length) for length in self.extent))
        self.tokens = torch.zeros_like(example.tokens)
        self.mass = example.tokens.new_zeros(len(example.tokens), 1)

    def add(self, box: tuple[int, int, int, int], found: ImageTokens) -> None:
        top, left = box[0] // self.strides[0], box[1] // self.strides[1]
        rows, columns = found.regions.shape[-2:]
        self.regions.add((top, left, top + rows, left + columns), found.regions)
        mass = found.regions.sum((1, 2))[:, None]
        self.tokens += mass * found.tokens
        self.mass += mass

    def mean(self) -> ImageTokens:
        return ImageTokens(self.regions.mean(), self.tokens / self.mass.clamp(min=1e-6), self.extent)
