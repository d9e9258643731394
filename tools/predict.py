"""Predict images, folders, glob patterns, videos or a camera with a trained model.

python tools/predict.py --weights output/.../model_final.pth --output predicted photos/ clip.mp4 "more/**/*.jpg"
python tools/predict.py --weights output/.../model_final.pth --output predicted --webcam 0 --show

Writes labels/<name>.png (the class of each pixel), overlays/<name>.jpg (or .mp4), areas/<name>.json (fraction of each
class), with --regions N also regions/<name>/token_<k>.jpg, and classes.json. A file that cannot be read is reported
and skipped, and the exit code is then 1. What has results already is kept, unless the input has changed since, or they
were made with another --regions, --opacity, --stride or --max-frames.
"""

import argparse
import logging
import sys
import time

from command_line import directory, failed, positive, whole
from prediction.inputs import Input, find_inputs, other_types
from prediction.outputs import OutputFolder, describe, stamp
from prediction.report import report
from prediction.video import Frames, predict_frames
from tqdm import tqdm

from sgr_d2 import SGRPredictor
from sgr_d2.data.reading import read_image
from sgr_d2.messages import NO_SGR


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if bool(args.inputs) == (args.webcam is not None):
        parser.error("give either images, folders, patterns or videos (before --opts), or --webcam NUMBER")
    try:
        return predict(args)
    except (OSError, KeyError, ValueError) as error:
        return failed(parser.prog, error)


def predict(args: argparse.Namespace) -> int:
    """Load the model and predict all inputs; returns the exit code."""
    inputs = find_inputs(args.inputs, exclude=args.output)
    predictor = SGRPredictor.from_checkpoint(
        args.weights, config_file=args.config_file, opts=args.opts, device=args.device, autocast=args.autocast
    )
    if args.regions and not predictor.has_sgr:
        raise ValueError(f"--regions: this model {NO_SGR}, hence no regions.")
    model = describe(predictor.metadata, args.weights, args.opts, config_file=args.config_file, autocast=args.autocast)
    output = OutputFolder(
        args.output,
        model,
        num_regions=args.regions,
        overlays=not args.no_overlays,
        opacity=args.opacity,
        stride=args.stride,
        max_frames=args.max_frames,
    )
    output.write_classes(overwrite=args.overwrite)
    if args.webcam is not None:
        return film(predictor, output, args)
    return predict_files(predictor, inputs, output, args)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="image, folder, video or quoted glob pattern")
    parser.add_argument("--weights", required=True, metavar="FILE", help="checkpoint of train_net.py")
    parser.add_argument("--output", required=True, type=directory, metavar="DIR", help="folder for the results")
    parser.add_argument("--config-file", metavar="FILE", help="config of the run, for checkpoints that contain none")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="override the config; put it last")
    parser.add_argument("--webcam", type=int, metavar="NUMBER", help="record a camera (0 is the first) until Ctrl-C")
    parser.add_argument("--show", action="store_true", help="show videos and the camera in a window; q to end")
    parser.add_argument("--regions", type=whole, default=0, metavar="N", help="draw the N largest regions of images")
    parser.add_argument("--no-overlays", action="store_true", help="do not write colour overlays")
    parser.add_argument("--opacity", type=_share, default=0.5, metavar="0..1", help="of the colours; default 0.5")
    parser.add_argument("--overwrite", action="store_true", help="predict inputs again that already have results")
    parser.add_argument("--batch-size", type=positive, default=1, metavar="N", help="images at a time; default 1")
    parser.add_argument("--stride", type=positive, default=1, metavar="N", help="use every N-th frame of videos")
    parser.add_argument("--max-frames", type=positive, metavar="N", help="at most N frames of a video or camera")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    parser.add_argument("--autocast", choices=("bfloat16", "float16"), help="mixed precision; default float32")
    return parser


def predict_files(predictor: SGRPredictor, inputs: list[Input], output: OutputFolder, args) -> int:
    """Predict images in batches and videos frame by frame; returns the exit code."""
    waiting = inputs if args.overwrite else [item for item in inputs if not output.exists(item.name, item.path)]
    changed = 0 if args.overwrite else sum(output.has_changed(item.name, item.path) for item in waiting)
    failed: list[str] = []
    images = [item for item in waiting if not item.is_video]
    with tqdm(total=len(images), unit="image", disable=None if images else True) as bar:
        for start in range(0, len(images), args.batch_size):
            batch = images[start : start + args.batch_size]
            failed += predict_images(predictor, batch, output)
            bar.update(len(batch))
    for item in (item for item in waiting if item.is_video):
        try:
            film_file(predictor, item, output, args)
        except (FileNotFoundError, ValueError) as error:
            failed.append(report(error))
    kept = len(inputs) - len(waiting)
    kept_text = f", {kept} kept (--overwrite predicts them again)" if kept else ""
    failed_text = f", {len(failed)} failed" if failed else ""
    print(f"{len(waiting) - len(failed)} predicted{kept_text}{failed_text}: {args.output}")
    if changed:
        print(f"{changed} of these inputs had results from before they were changed.")
    if left_out := other_types(args.inputs, exclude=args.output):
        types = ", ".join(f"{count} {suffix}" for suffix, count in sorted(left_out.items()))
        print(f"{left_out.total()} files of other types are left out: {types}.")
    return 1 if failed else 0


def predict_images(predictor: SGRPredictor, batch: list[Input], output: OutputFolder) -> list[str]:
    """Predict and write a batch; returns one error message for each file that failed."""
    failed, good = [], []
    for item in batch:
        try:
            made_from = stamp(item.path)  # before it is read: a change from here on is one
            good.append((item, made_from, read_image(item.path)))
        except (FileNotFoundError, ValueError) as error:
            failed.append(report(error))
    try:
        predictions = predictor([image for *_, image in good], scores=False)
    except (MemoryError, RuntimeError, ValueError) as error:  # out of memory is a RuntimeError of torch
        if len(good) > 1:
            return failed + [text for item, *_ in good for text in predict_images(predictor, [item], output)]
        height, width = good[0][2].shape[:2]
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return [
            *failed,
            report(ValueError(f"{good[0][0].path}: {width}x{height} pixels could not be predicted: {reason}")),
        ]
    for (item, made_from, image), prediction in zip(good, predictions, strict=True):
        output.write_image(item.name, item.path, image, prediction, made_from=made_from)
    return failed


def film_file(predictor: SGRPredictor, item: Input, output: OutputFolder, args) -> None:
    made_from = stamp(item.path)
    frames = Frames(item.path, stride=args.stride, limit=args.max_frames)
    with tqdm(total=frames.total, unit="frame", desc=item.path.name, disable=None) as bar:
        source, more = str(item.path), {"made_from": made_from, "show": args.show, "tick": bar.update}
        predict_frames(predictor, frames, source, item.name, output, **more)


def film(predictor: SGRPredictor, output: OutputFolder, args) -> int:
    """Record the camera; returns the exit code."""
    name = time.strftime("webcam_%Y-%m-%d_%H-%M-%S")
    try:
        frames = Frames(args.webcam, stride=args.stride, limit=args.max_frames)
        with tqdm(unit="frame", desc="Ctrl-C ends", disable=None) as bar:
            source = f"camera {args.webcam}"
            number = predict_frames(predictor, frames, source, name, output, show=args.show, tick=bar.update)
    except ValueError as error:
        report(error)
        return 1
    print(f"{number} frames: {output.path('overlays', name, '.mp4')}")
    return 0


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
