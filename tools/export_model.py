"""Export a trained model to one file for ONNX Runtime (.onnx) or torch.export (.pt2), and check the file.

python tools/export_model.py --weights output/.../model_final.pth --output model.onnx
python tools/export_model.py --weights output/.../model_final.pth --output model.pt2 --size 512 1024 --fixed

Input "images": float32 (1, 3, H, W), RGB in 0..255, one image. Output "scores": float32 (1, C, H, W); the class of a
pixel is the one with the largest score. What the caller needs to know is in the file's metadata, as text:

    about = onnxruntime.InferenceSession("model.onnx").get_modelmeta().custom_metadata_map
    extra = {"information.json": ""}; torch.export.load("model.pt2", extra_files=extra)   # JSON of the same

    min_size_test, max_size_test  size to which the evaluation resizes images, in pixels: of the shorter side, and the
                                  maximum of the longer; 0 if it does not
    multiple_of                   height and width must be multiples of it; otherwise ONNX Runtime fails with a message
                                  about shapes. Pad at the bottom and right with the mean colour, and crop the scores
    smallest_size, largest_size   [height, width] that the graph accepts
    classes, ignore_label         names of the C scores; the label of pixels that belong to none of them

Padding is treated as image by the graph, while in Python SGR ignores it; so if exact scores matter, resize to a
multiple rather than pad. Batches, sliding windows and test-time augmentation are not in the file.

The tool runs the file on several sizes and prints the largest difference from the scores of the model. If it is above
--tolerance, no file is written and the exit code is 1; if no file could be made, it is 2.
"""

import argparse
import logging
import os
import sys
import warnings
from pathlib import Path

from command_line import failed, say

from sgr_d2.engine import SGRPredictor
from sgr_d2.engine.inference.class_scores import ClassScores
from sgr_d2.engine.inference.export import (
    PLAIN,
    SUFFIXES,
    Sizes,
    choose_sizes,
    information_of,
    largest_difference,
    save,
    to_program,
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.output.suffix not in SUFFIXES:
        parser.error(f"--output {args.output}: the name must end in {' or '.join(SUFFIXES)}")
    quiet()
    try:
        return export(args)
    except ModuleNotFoundError as error:
        print(f"{parser.prog}: {error}; pip install onnx onnxscript onnxruntime", file=sys.stderr)
    except (OSError, KeyError, ValueError) as error:
        return failed(parser.prog, error)
    return 2


def export(args: argparse.Namespace) -> int:
    """Load, export, check and write, with a line of progress before each; returns the exit code."""
    say(f"load {args.weights}")
    predictor = SGRPredictor.from_checkpoint(
        args.weights, config_file=args.config_file, opts=[*args.opts, *PLAIN], device="cpu"
    )
    wrapper = ClassScores(predictor.model, image_format=predictor.image_format)
    sizes = choose_sizes(wrapper, tuple(args.size) if args.size else None, fixed=args.fixed)
    information = information_of(wrapper, sizes, predictor.metadata, predictor.test_size)
    unchecked = args.output.with_name(f".{args.output.stem}.unchecked{args.output.suffix}")
    try:
        say("trace the graph at {} x {} with torch.export".format(*sizes.traced))
        program = to_program(wrapper, sizes)
        say(f"write the {args.output.suffix} file")
        save(program, unchecked, information)
        say(f"compare its scores with the model's at {', '.join(f'{h} x {w}' for h, w in sizes.to_check())}")
        difference = largest_difference(predictor.model, wrapper, unchecked, sizes)
        fine = difference <= args.tolerance
        if fine:
            os.replace(unchecked, args.output)
    finally:
        unchecked.unlink(missing_ok=True)
    if not fine:
        print(f"largest difference {difference:.2g}: more than --tolerance {args.tolerance:g}; nothing was written")
        return 1
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB, largest difference {difference:.2g}")
    print(how_to_use(sizes, wrapper.divisor))
    return 0


def how_to_use(sizes: Sizes, divisor: int) -> str:
    """What the file takes and gives, which differs from `SGRPredictor`."""
    smallest, largest = ("{} x {}".format(*size) for size in (sizes.smallest, sizes.largest))
    accepted = smallest if smallest == largest else f"multiples of {divisor} from {smallest} to {largest}"
    return (
        f'The file takes one image whose height and width are {accepted}: resize or pad others. It gives "scores", '
        "those of the classes, and neither regions nor tokens (--help explains both)."
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, metavar="FILE", help="checkpoint of train_net.py")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="file to write: .onnx or .pt2")
    parser.add_argument("--config-file", metavar="FILE", help="config of the run, for checkpoints that contain none")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="override the config")
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="image size in pixels for tracing")
    parser.add_argument("--fixed", action="store_true", help="make a graph for --size only")
    parser.add_argument("--tolerance", type=float, default=1e-3, metavar="X", help="largest difference; default 0.001")
    return parser


def quiet() -> None:
    """Silence the many warnings of the exporters that are of no use here; failures still raise errors."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch|onnx")
    for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
