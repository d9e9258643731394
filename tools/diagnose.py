"""Does a trained model use its tokens, and what do the losses of SGR do to its features?

python tools/diagnose.py --config-file configs/camvid/fpn_sgr_effnet_lite0.yaml \\
    --weights output/camvid/fpn_sgr_effnet_lite0/model_final.pth --output output/diagnosis

Evaluates a segmentation model or a detector as it is and with its fusion blocks switched off: the difference is the
effect of SGR on the predictions. Then, on training batches, measures how much tokens differ between images and between
each other; how much SGR changes the features, how much of that a mere bias could do, and how much depends on the
tokens; and the gradients of SGR's losses compared with that of the head, by part of the model: a large norm with a
small cosine means that a loss pulls the features elsewhere. Prints Markdown with a line on how to read each table, and
writes DIR/diagnosis.json. Both evaluations take all images of DATASETS.TEST; --max-images N takes N, evenly spread.
"""

import argparse
import math
import sys
from itertools import islice
from pathlib import Path

from command_line import directory, failed, positive, say
from detectron2.utils.env import seed_all_rng
from tabulate import tabulate
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from sgr_d2.engine import Trainer, evaluate, load_config
from sgr_d2.engine.analysis.diagnose import Pull, pulls, without_tokens
from sgr_d2.engine.analysis.token_use import Change, TokenParts, token_use
from sgr_d2.engine.build import without_initial_weights
from sgr_d2.engine.checkpoint.checkpoint_file import require_checkpoint
from sgr_d2.engine.evaluate import build_test_loader
from sgr_d2.engine.machine import fit_to_machine
from sgr_d2.engine.options import with_values
from sgr_d2.engine.same_run import load_trained
from sgr_d2.engine.tasks import task_of
from sgr_d2.files import write_json

# How to read the tables.
READ_EVALUATION = (
    "With tokens minus without them: above 0, the predictions use the tokens; about 0, this model does as well without "
    "(a baseline, trained without SGR, may do better or worse)."
)
READ_TOKENS = (
    "Parts of the squared length of the tokens. Good is much between tokens, which then stand for different things, "
    "and between images; if nearly all is common, the tokens say the same of every image."
)
READ_CHANGES = (
    "What SGR adds to the features of a level. Good is a large share decided by tokens; what is the same everywhere a "
    "bias could do, and where change / features is near 0, SGR does next to nothing."
)
READ_GRADIENTS = (
    "A loss with a positive cosine helps the head in that part of the model, with a negative one works against it. Bad "
    "is a norm as large as the head's with a cosine of 0 or below; n/a: there is no gradient."
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="config of the run")
    parser.add_argument("--weights", required=True, metavar="FILE", help="its checkpoint")
    parser.add_argument("--output", required=True, type=directory, metavar="DIR", help="folder for the results")
    parser.add_argument("--batches", type=int, default=8, metavar="N", help="training batches to use; default 8")
    parser.add_argument("--max-images", type=positive, metavar="N", help="images of a test set to use; default all")
    parser.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="override the config")
    args = parser.parse_args(arguments)
    try:
        found = diagnose(args)
    except (OSError, KeyError, ValueError) as error:
        return failed(parser.prog, error)
    write_json(found, args.output / "diagnosis.json", indent=1)
    print(to_markdown(found))
    return 0


def diagnose(args: argparse.Namespace) -> dict:
    """
    Returns:
        {"evaluation": {data set: {"with_tokens": figures, "without_tokens": figures}}, "images": {data set: number},
        "tokens": TokenParts, "changes": {level: Change}, "pulls": {part: {loss: Pull}}}, with tuples as dicts, and
        "weights" and "batches" of ``args``.
    """
    if args.batches < 1:
        raise ValueError(f"--batches {args.batches}: give 1 or more.")
    require_checkpoint(args.weights)
    # the checkpoints of Detectron2's Swin, which recompute activations, allow no gradient of one loss alone
    opts = [*args.opts, "MODEL.WEIGHTS", args.weights, "MODEL.SWIN.USE_CHECKPOINT", "False"]
    cfg = fit_to_machine(load_config(args.config_file, opts), args.config_file, opts, world_size=1)
    if args.max_images and cfg.DATASETS.TEST and task_of(cfg.DATASETS.TEST).name == "detection":
        raise ValueError("--max-images: COCO's metrics are those of whole data sets; leave it out for a detector.")
    seed_all_rng(cfg.SEED)
    say(f"load {args.weights}")
    model = Trainer.build_model(without_initial_weights(cfg))
    load_trained(cfg, model, args.weights)
    loaders = {name: _some(build_test_loader(cfg, name), args.max_images) for name in cfg.DATASETS.TEST}
    evaluation: dict[str, dict] = {name: {} for name in loaders}
    with without_tokens(model):
        for name, loader in loaders.items():
            evaluation[name]["without_tokens"] = _figures(cfg, model, name, loader, args.output / "without_tokens")
    for name, loader in loaders.items():
        evaluation[name]["with_tokens"] = _figures(cfg, model, name, loader, args.output / "with_tokens")
    say(f"measure tokens and features on {args.batches} training batches")
    batches = list(islice(Trainer.build_train_loader(cfg), args.batches))
    use = token_use(model, batches)
    say(f"measure gradients on {args.batches} training batches")
    found = pulls(model, batches)
    return {
        "weights": args.weights,
        "batches": args.batches,
        "images": {name: len(loader.dataset) for name, loader in loaders.items()},
        "evaluation": evaluation,
        "tokens": use.tokens._asdict(),
        "changes": {level: change._asdict() for level, change in use.changes.items()},
        "pulls": {part: {loss: pull._asdict() for loss, pull in of.items()} for part, of in found.items()},
    }


def _some(loader: DataLoader, number: int | None) -> DataLoader:
    """A loader of ``number`` images, evenly spread; the loader itself if it has no more, or for None."""
    total = len(loader.dataset)
    if number is None or number >= total:
        return loader
    chosen = Subset(loader.dataset, [(2 * i + 1) * total // (2 * number) for i in range(number)])
    return DataLoader(chosen, num_workers=loader.num_workers, collate_fn=loader.collate_fn)


def _figures(cfg, model, name: str, loader: DataLoader, folder: Path) -> dict[str, float | None]:
    """The metrics of an evaluation in percent, None if undefined; for detectors "segm/AP" and so on."""
    say(f"evaluate {folder.name.replace('_', ' ')} on {len(loader.dataset)} images of {name}")
    bar = tqdm(loader, unit="image", disable=None)
    tasks = evaluate(with_values(cfg, {"OUTPUT_DIR": str(folder)}), model.eval(), name, loader=bar)
    tasks.pop("token_semantics", None)
    tasks.get("sem_seg", {}).pop("num_images", None)
    named = {f"{task}/{key}" if len(tasks) > 1 else key: v for task, of in tasks.items() for key, v in of.items()}
    return {key: None if math.isnan(value) else float(value) for key, value in named.items()}


def to_markdown(found: dict) -> str:
    """Tables of metrics with and without tokens, parts of the tokens, changes by SGR, and gradients, each explained."""
    parts = []
    for name, both in found["evaluation"].items():
        on, off = both["with_tokens"], both["without_tokens"]
        rows = [
            [key, on[key], off[key], None if None in (on[key], off[key]) else on[key] - off[key]]
            for key in on
            if not key.removeprefix("sem_seg/").startswith("ACC-")
        ]
        header = ["%", "with tokens", "without", "difference"]
        table = tabulate(rows, header, tablefmt="pipe", floatfmt=".2f", missingval="n/a")
        parts += [f"## {name}, {found['images'][name]} images", READ_EVALUATION, table]
    parts += [f"## Tokens and features, {found['batches']} training batches", *_token_tables(found)]
    losses = list(dict.fromkeys(loss for of in found["pulls"].values() for loss in of))
    rows = [[part, *(_norm_and_cosine(Pull(**of[loss])) for loss in losses)] for part, of in found["pulls"].items()]
    title = f"Gradients: norm (cosine with the head's), {found['batches']} batches"
    return "\n\n".join([*parts, f"## {title}", READ_GRADIENTS, tabulate(rows, ["part", *losses], tablefmt="pipe")])


def _norm_and_cosine(pull: Pull) -> str:
    return f"{pull.norm:.3f} ({'n/a' if pull.cosine is None else f'{pull.cosine:+.2f}'})"


def _token_tables(found: dict) -> list[str]:
    tokens = TokenParts(**found["tokens"])
    parts = [[f"{100 * share:.1f} %" for share in tokens]]
    changes = [
        [level, f"{change.size:.3f}", f"{100 * change.constant:.1f} %", f"{100 * change.of_tokens:.1f} %"]
        for level, change in ((level, Change(**of)) for level, of in found["changes"].items())
    ]
    return [
        READ_TOKENS,
        tabulate(
            parts,
            ["tokens: common to all images", "between images", "between tokens"],
            tablefmt="pipe",
            disable_numparse=True,
        ),
        READ_CHANGES,
        tabulate(
            changes,
            ["level", "change / features", "the same everywhere", "decided by tokens"],
            tablefmt="pipe",
            disable_numparse=True,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
