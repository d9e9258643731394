"""Exports the class scores of a segmentor to a torch.export or ONNX file, and checks the file.

d is the model's ``size_divisibility``.
"""

import json
import logging
import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from sgr_d2.data.datasets import SemanticMetadata
from sgr_d2.modeling import SGRSegmentor
from sgr_d2.modeling.deeplab import WindowPool

from .class_scores import ClassScores

logger = logging.getLogger(__name__)

Size = tuple[int, int]
INPUT, OUTPUT = "images", "scores"
SUFFIXES = (".onnx", ".pt2")
# torch.export needs an upper bound for lengths that are multiples; 8192 pixels for d = 32.
MAX_CELLS = 256
# torch.export specialises on a length of one cell.
MIN_CELLS = 2
# Options that remove wrappers around the model, and outputs other than the scores.
PLAIN = (
    *("TEST.SLIDING_WINDOW.ENABLED", False, "TEST.AUG.ENABLED", False, "MODEL.CHANNELS_LAST", False),
    *("MODEL.MASK_FORMER.TEST.INSTANCE_ON", False, "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", False),
)


class ExportError(ValueError):
    """torch.export or the ONNX exporter cannot make a graph of the model."""


class Sizes(NamedTuple):
    """Heights and widths in pixels.

    Attributes:
        traced: size of the image with which the graph is traced.
        smallest, largest: sizes that the graph accepts; both equal ``traced`` if the size is fixed.
    """

    traced: Size
    smallest: Size
    largest: Size

    def to_check(self) -> list[Size]:
        """The traced size, the smallest, and one with another aspect ratio."""
        limits = zip(self.smallest, self.traced[::-1], self.largest, strict=True)
        turned = tuple(min(max(least, wanted), most) for least, wanted, most in limits)
        return list(dict.fromkeys([self.traced, self.smallest, turned]))


def choose_sizes(wrapper: ClassScores, size: Size | None = None, *, fixed: bool = False) -> Sizes:
    """Choose the sizes that a graph accepts.

    Heads of the DeepLab family pool over a window of the size of the training crops. Images that are not larger than it
    would need another graph and are excluded.

    Args:
        size: of the image for tracing; also the only size of a fixed graph.

    Raises:
        ValueError: if ``size`` is not a multiple of the divisor, or smaller than the smallest possible.
    """
    d = wrapper.divisor
    smallest = (MIN_CELLS * d, MIN_CELLS * d) if fixed else _smallest(wrapper)
    chosen = size or tuple(length + steps * d for length, steps in zip(smallest, (2, 4), strict=True))
    for name, length, least in zip(("height", "width"), chosen, smallest, strict=True):
        if length % d or length < least:
            raise ValueError(f"{name} {length}: it must be a multiple of {d}, and at least {least}.")
    if fixed:
        return Sizes(chosen, chosen, chosen)
    return Sizes(chosen, smallest, (MAX_CELLS * d, MAX_CELLS * d))


@torch.no_grad()
def _smallest(wrapper: ClassScores) -> Size:
    d = wrapper.divisor
    images = torch.zeros(1, 3, MIN_CELLS * d, MIN_CELLS * d, device=wrapper.model.device)
    smallest = [MIN_CELLS * d, MIN_CELLS * d]

    def look(pool: WindowPool, inputs: tuple[Tensor]) -> None:
        for axis in (0, 1):
            stride = images.shape[2 + axis] // inputs[0].shape[2 + axis]
            smallest[axis] = max(smallest[axis], -(-(pool.size[axis] + MIN_CELLS - 1) * stride // d) * d)

    hooks = [m.register_forward_pre_hook(look) for m in wrapper.modules() if isinstance(m, WindowPool)]
    if hooks:
        wrapper(images)
    for hook in hooks:
        hook.remove()
    return tuple(smallest)


@torch.no_grad()
def to_program(wrapper: ClassScores, sizes: Sizes) -> ExportedProgram:
    """Trace the graph with torch.export, with symbolic height and width unless the size is fixed.

    Raises:
        ExportError: if torch.export fails.
    """
    images = torch.zeros(1, 3, *sizes.traced, device=wrapper.model.device)
    d = wrapper.divisor
    dynamic = {
        axis + 2: d * Dim(name, min=sizes.smallest[axis] // d, max=sizes.largest[axis] // d)
        for axis, name in enumerate(("rows", "columns"))
        if sizes.smallest != sizes.largest
    }
    try:
        return torch.export.export(wrapper, (images,), dynamic_shapes={INPUT: dynamic}, strict=False)
    except Exception as error:  # torch.export raises errors of many kinds
        raise ExportError(_reason("torch.export", error, has_dynamic=bool(dynamic))) from error


def save(program: ExportedProgram, path: Path, information: dict[str, str]) -> None:
    """Write ``*.pt2`` (torch.export) or ``*.onnx``, including ``information``; creates the folder.

    Raises:
        ExportError: if the graph cannot be written. ModuleNotFoundError: if it is not installed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt2":
        try:
            torch.export.save(program, path, extra_files={"information.json": json.dumps(information)})
        except Exception as error:  # graphs that torch.export makes, it may be unable to save
            raise ExportError(_reason("torch.export", error, has_dynamic=True)) from error
        return
    try:
        program = program.run_decompositions({torch.ops.aten.sigmoid.default: exact_sigmoid})
        made = torch.onnx.export(
            program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False, optimize=True
        )
    except ImportError:
        raise
    except Exception as error:  # the exporter raises errors of many kinds
        raise ExportError(_reason("the ONNX exporter", error, has_dynamic=True)) from error
    made.model.metadata_props.update(information)
    made.save(path)


def exact_sigmoid(x: Tensor) -> Tensor:
    """The sigmoid by its formula: onnxruntime's own has errors of 1e-7 and gives 0 below -18.

    Regions are divided by their sum, so where all are faint (1e-7 is common), the tokens would come out different.
    """
    return 1 / (1 + torch.exp(-x))


def information_of(wrapper: ClassScores, sizes: Sizes, metadata: SemanticMetadata, test_size: Size) -> dict[str, str]:
    """What users of the file need to know, as text: JSON lists, or numbers.

    Args:
        test_size: `SGRPredictor.test_size`.
    """
    return {
        "classes": json.dumps(metadata.classes),
        "ignore_label": str(metadata.ignore_label),
        "min_size_test": str(test_size[0]),
        "max_size_test": str(test_size[1]),
        "input": "float32 (1, 3, height, width), RGB, 0 to 255",
        "multiple_of": str(wrapper.divisor),
        "smallest_size": json.dumps(sizes.smallest),
        "largest_size": json.dumps(sizes.largest),
    }


@torch.no_grad()
def largest_difference(model: SGRSegmentor, wrapper: ClassScores, path: Path, sizes: Sizes) -> float:
    """The largest difference between the scores of a file and of the model itself, on noise images of several sizes.

    Args:
        model: the model that ``wrapper`` was made from.

    Returns:
        Infinity if the shapes of the scores differ, NaN if any score is NaN.

    Raises:
        ModuleNotFoundError: for an ONNX file, if onnxruntime is not installed.
    """
    run = _program_runner(path) if path.suffix == ".pt2" else _onnx_runner(path)
    differences = []
    for size in sizes.to_check():
        images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 255
        pixels = images[0].flip(0) if wrapper.image_format == "BGR" else images[0]
        expected = model([{"image": pixels}])[0]["sem_seg"][None].cpu()
        found = run(images)
        same = found.shape == expected.shape
        differences.append(float((expected - found).abs().max()) if same else math.inf)
        logger.info("%d x %d: largest difference %.2g", *size, differences[-1])
    return math.nan if any(map(math.isnan, differences)) else max(differences)


def _program_runner(path: Path):
    return torch.export.load(path).module()


def _onnx_runner(path: Path):
    import onnxruntime  # optional

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def _reason(what: str, error: Exception, *, has_dynamic: bool) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    advice = " A fixed size may work (--fixed)." if has_dynamic else ""
    return f"{what} cannot make a graph of this model: {type(error).__name__}: {first[:300]}{advice}"
