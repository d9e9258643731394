"""Write a folder of web pages that shows what the tokens of a model mean; open its index.html, no server needed.

python tools/explore_tokens.py --weights output/.../model_final.pth --dataset camvid_val --output explorer
python tools/explore_tokens.py --weights output/.../model_final.pth --images photos/ --output explorer
python tools/explore_tokens.py --weights a.pth --compare b.pth --names "with the loss" without --output explorer

Without --dataset and --images the test set of the config is shown. Checkpoints contain their config; for older ones
give --config-file (and --compare-config-file). A photograph that cannot be read is reported and skipped, and the exit
code is then 1. An explorer that is being replaced (--overwrite) is kept until the new one is complete.
"""

import argparse
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

from command_line import directory, failed
from prediction.explorer_folder import check_room, replacing
from prediction.inputs import find_inputs
from prediction.report import report
from semantic_sets import semantic_metadata
from tqdm import tqdm

from sgr_d2 import SGRPredictor
from sgr_d2.data.components import ComponentLimits
from sgr_d2.data.datasets import get_dataset_records, register_all, register_folders
from sgr_d2.engine import ExploreSettings, NamedModel, explore, load_config, read_card
from sgr_d2.engine.checkpoint.checkpoint_file import require_checkpoint


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.dataset and args.images:
        parser.error("give --dataset or --images, not both")
    if args.names and len(args.names) != 1 + bool(args.compare):
        parser.error(f"--names: give {1 + bool(args.compare)}, one per checkpoint")
    try:
        return write(args)
    except (OSError, KeyError, ValueError) as error:
        return failed(parser.prog, error)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, metavar="FILE", help="checkpoint of a model with SGR")
    parser.add_argument("--output", required=True, type=directory, metavar="DIR", help="folder to write")
    parser.add_argument("--dataset", metavar="NAME", help="registered data set to show")
    parser.add_argument("--images", nargs="+", metavar="PATH", help="images without truth: files, folders or patterns")
    parser.add_argument("--max-images", type=int, default=200, metavar="N", help="evenly spread; default 200, 0: all")
    parser.add_argument("--config-file", metavar="FILE", help="config of the run, for checkpoints that contain none")
    parser.add_argument("--compare", metavar="FILE", help="a second checkpoint to compare with")
    parser.add_argument("--compare-config-file", metavar="FILE", help="its config; default: --config-file")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="names of the runs; default: their folders")
    parser.add_argument("--title", help="title of the pages")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="override the configs of both")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; default: a GPU if there is one")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing explorer")
    return parser


def write(args: argparse.Namespace) -> int:
    """Load the models, find the images, write the folder; returns the exit code."""
    check_room(args.output, overwrite=args.overwrite)
    require_checkpoint(args.weights)
    cfg = load_config(args.config_file, args.opts) if args.config_file else read_card(args.weights).cfg(args.opts)
    dataset = None if args.images else chosen_dataset(args, cfg)
    register_all()
    if dataset in cfg.DATASETS.FOLDERS:
        register_folders(cfg, [dataset])  # not the others, whose files of class names need not be on this machine
    models = load_models(args)
    if dataset is not None and semantic_metadata(dataset).classes != models[0].predictor.classes:
        raise ValueError(f"--dataset {dataset}: its classes are not those of the model; choose a data set of the run.")
    records = find_records(args, dataset)
    failed: list[str] = []
    with replacing(args.output) as folder:
        explore(
            models,
            records,
            folder,
            title=args.title or f"Tokens of {models[0].name}",
            dataset_name=dataset,
            settings=ExploreSettings(
                cfg.TEST.TOKEN_SEMANTICS.MIN_MASS, ComponentLimits.from_config(cfg, is_train=False)
            ),
            progress=progress_bar,
            unreadable=(lambda error: failed.append(report(error))) if dataset is None else None,
        )
    size = sum(path.stat().st_size for path in args.output.rglob("*") if path.is_file())
    failed_text = f", {len(failed)} failed" if failed else ""
    number = len(records) - len(failed)
    print(f"{number} images{failed_text}, {size / 1e6:.1f} MB. Open {args.output / 'index.html'} in a browser.")
    return 1 if failed else 0


def chosen_dataset(args: argparse.Namespace, cfg) -> str:
    """The data set given on the command line, or the test set of the config."""
    if not args.dataset and not cfg.DATASETS.TEST:
        raise ValueError("The config names no test set (DATASETS.TEST): give --dataset or --images.")
    return args.dataset or cfg.DATASETS.TEST[0]


def find_records(args: argparse.Namespace, dataset: str | None) -> list[dict]:
    """The images to show: all, or --max-images of them, evenly spread."""
    if args.max_images < 0:
        raise ValueError(f"--max-images {args.max_images}: give 0 for all images.")
    if dataset is not None:
        records = get_dataset_records(dataset)
    else:
        found = [item for item in find_inputs(args.images, exclude=args.output) if not item.is_video]
        records = [{"file_name": str(item.path)} for item in found]
    number = min(args.max_images or len(records), len(records))
    return [records[(2 * i + 1) * len(records) // (2 * number)] for i in range(number)]


def load_models(args: argparse.Namespace) -> list[NamedModel]:
    """The model, and the one to compare with, if any."""
    files = [(args.weights, args.config_file)]
    if args.compare:
        files.append((args.compare, args.compare_config_file or args.config_file))
    names = args.names or [Path(file).resolve().parent.name or Path(file).stem for file, _ in files]
    if len(set(names)) < len(names):
        names = [f"{name} ({letter})" for name, letter in zip(names, "AB", strict=False)]
    return [
        NamedModel(
            name,
            Path(file).name,
            SGRPredictor.from_checkpoint(file, config_file=config, opts=args.opts, device=args.device),
        )
        for name, (file, config) in zip(names, files, strict=True)
    ]


def progress_bar(items: Iterable, what: str) -> Iterable:
    return tqdm(items, desc=what, unit="image", disable=None)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
