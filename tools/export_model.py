"""Write a trained model as one file for ONNX Runtime (.onnx) or torch.export (.pt2), and check what was written.

python tools/export_model.py --weights output/.../model_final.pth --output model.onnx
python tools/export_model.py --weights output/.../model_final.pth --output model.pt2 --size 512 1024 --fixed

Input "images": float32 (1, 3, H, W), RGB of 0 to 255, one image. Output "scores": float32 (1, C, H, W); the class of a
pixel is the one with the largest score. What the caller has to do is in the file as text, as metadata:

    about = onnxruntime.InferenceSession("model.onnx").get_modelmeta().custom_metadata_map
    extra = {"information.json": ""}; torch.export.load("model.pt2", extra_files=extra)   # JSON of the same

    min_size_test, max_size_test  pixels to which images were resized in evaluation, of the shorter side, and at most of
                                  the longer; 0: they were not
    multiple_of                   height and width must be multiples of it; ONNX Runtime fails on others, with a message
                                  about shapes. Pad at the bottom and right, with the mean colour, and cut the scores
    smallest_size, largest_size   [height, width] that the graph takes
    classes, ignore_label         names of the C scores; the label that stands for none of them

The padding counts as image there, while in Python it takes no part in SGR; so resize to a multiple rather than pad
where the last digit counts. Batches, sliding windows and test-time augmentation are not in the file.

The tool runs the file on several sizes and prints the largest difference to the scores of the model. Where it is above
--tolerance no file is written and the exit code is 1, where no file could be made it is 2.
"""

import argparse
import logging
import os
import sys
import warnings
from pathlib import Path

from command_line import failed

from sgr_d2.engine import SGRPredictor
from sgr_d2.engine.class_scores import ClassScores
from sgr_d2.engine.export import (
    PLAIN,
    SUFFIXES,
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
    """Load, export, write and check; returns the exit code."""
    predictor = SGRPredictor.from_checkpoint(
        args.weights, config_file=args.config_file, opts=[*args.opts, *PLAIN], device="cpu"
    )
    wrapper = ClassScores(predictor.model, image_format=predictor.image_format)
    sizes = choose_sizes(wrapper, tuple(args.size) if args.size else None, fixed=args.fixed)
    information = information_of(wrapper, sizes, predictor.metadata, predictor.test_size)
    unchecked = args.output.with_name(f".{args.output.stem}.unchecked{args.output.suffix}")
    try:
        save(to_program(wrapper, sizes), unchecked, information)
        difference = largest_difference(predictor.model, wrapper, unchecked, sizes)
        fine = difference <= args.tolerance
        if fine:
            os.replace(unchecked, args.output)
    finally:
        unchecked.unlink(missing_ok=True)
    if not fine:
        print(f"largest difference {difference:.2g}: more than --tolerance {args.tolerance:g}; nothing was written")
        return 1
    height, width = sizes.traced
    taken = f"{height} x {width} alone" if args.fixed else f"multiples of {wrapper.divisor} from {sizes.smallest} on"
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB, height and width {taken}")
    print(f"largest difference {difference:.2g}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, metavar="FILE", help="checkpoint of train_net.py")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="what to write: .onnx or .pt2")
    parser.add_argument("--config-file", metavar="FILE", help="config of the run, for checkpoints that carry none")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="override the config")
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="pixels of the recording")
    parser.add_argument("--fixed", action="store_true", help="a graph for --size alone")
    parser.add_argument("--tolerance", type=float, default=1e-3, metavar="X", help="largest difference; default 0.001")
    return parser


def quiet() -> None:
    """The exporters tell much that is of no use here; what fails is still an error."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch|onnx")
    for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
