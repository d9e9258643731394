"""List the configs: head, backbone, parameters and operations of each, and what SGR adds.

python tools/list_configs.py
python tools/list_configs.py "ade20k/m2f*" --markdown
python tools/list_configs.py "detection/*" --no-flops

Parameters are in millions. GFLOPs are billions of multiply-adds for one image of the size of the training crop: 512x512
on ADE20K, 640x640 there with Swin-B and Swin-L and on COCO-Stuff, 512x1024 on Cityscapes. fvcore counts them as in the
published tables, up to scores at that size: the products of attention count, the sampling of deformable attention does
not (its projections do; the reads would add 0.4 at 512x512). Compare the column "published" with those tables: they
include that Mask2Former's own code computes attention masks at a higher resolution than needed. Detectors have no
GFLOPs here, since they depend on the detections.
"""

import argparse
import json
import logging
import sys
import warnings
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from command_line import quiet_in_pipes
from detectron2.config import CfgNode
from tabulate import tabulate

from sgr_d2.engine import load_config
from sgr_d2.engine.analysis.model_cost import ModelCost, count_cost, count_parameters
from sgr_d2.engine.build import build_model
from sgr_d2.engine.machine import use_machine

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
OPTIONS = ("MODEL.WEIGHTS", "", "MODEL.TIMM.WEIGHTS", "")
SWINS = {(96, 6): "Swin-T", (96, 18): "Swin-S", (128, 18): "Swin-B", (192, 18): "Swin-L"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    paths = find_configs(args.pattern.removeprefix(f"{CONFIGS.name}/"))
    if not paths:
        parser.error(f"no config matches {args.pattern!r}; patterns are as in 'ade20k/m2f*' (below {CONFIGS.name}/)")
    rows = []
    for path in paths:
        print(f"{path.relative_to(CONFIGS)} ...", file=sys.stderr, flush=True)
        rows.append(describe(path, flops=args.flops))
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        print(format_table(rows, markdown=args.markdown))
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="*", metavar="GLOB", help='below configs/, e.g. "ade20k/m2f*"')
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")
    form.add_argument("--json", action="store_true", help="print everything as JSON, with exact numbers")
    parser.add_argument("--no-flops", dest="flops", action="store_false", help="parameters only: quick, little memory")
    return parser


def find_configs(pattern: str) -> list[Path]:
    """The configs of runs (not the parts in _base_) whose path below configs/ matches, with or without .yaml."""
    found = []
    for path in sorted(CONFIGS.rglob("*.yaml")):
        name = path.relative_to(CONFIGS).as_posix()
        if not name.startswith("_base_/") and (fnmatch(name, pattern) or fnmatch(name, f"{pattern}.yaml")):
            found.append(path)
    return found


def describe(path: Path, *, flops: bool = True) -> dict[str, Any]:
    """One row: strings, and exact numbers (parameters, multiply-adds); None for what was not counted."""
    cfg = load_config(str(path), [*OPTIONS, "MODEL.DEVICE", "cpu"]).clone()
    cfg.defrost()
    use_machine(cfg, 1)
    is_detector = cfg.MODEL.META_ARCHITECTURE != "SGRSegmentor"
    size = tuple(cfg.INPUT.CROP.SIZE) if flops and cfg.INPUT.CROP.ENABLED and not is_detector else None
    return {
        "config": path.relative_to(CONFIGS).with_suffix("").as_posix(),
        "head": cfg.MODEL.META_ARCHITECTURE if is_detector else cfg.MODEL.SEM_SEG_HEAD.NAME,
        "backbone": backbone_name(cfg),
        "sgr": cfg.MODEL.SGR.ENABLED,
        "size": size and [int(length) for length in size],
        **_cost(cfg, size)._asdict(),
    }


def _cost(cfg: CfgNode, size: tuple[int, int] | None) -> ModelCost:
    if size is not None:
        return count_cost(build_model(cfg), size)
    try:  # needs no memory, but not every model can be built on the meta device
        with torch.device("meta"):
            cfg.MODEL.DEVICE = "meta"
            return count_parameters(build_model(cfg))
    except RuntimeError:  # Detectron2's Swin reads numbers from tensors
        cfg.MODEL.DEVICE = "cpu"
        return count_parameters(build_model(cfg))


def backbone_name(cfg: CfgNode) -> str:
    """The name used in papers: R50, Swin-T, ..."""
    name = cfg.MODEL.BACKBONE.NAME
    if "timm" in name:
        return cfg.MODEL.TIMM.NAME
    if "swin" in name:
        swin = cfg.MODEL.SWIN
        return SWINS.get((swin.EMBED_DIM, swin.DEPTHS[2]), f"Swin {swin.EMBED_DIM}, {list(swin.DEPTHS)}")
    return f"R{cfg.MODEL.RESNETS.DEPTH}" if "resnet" in name else name


COLUMNS = ("config", "head", "backbone", "params M", "+SGR", "input", "GFLOPs", "+SGR", "published")


def format_table(rows: list[dict[str, Any]], *, markdown: bool = False) -> str:
    """A table of `describe`'s rows: the whole model, and SGR's part of it in the columns +SGR."""
    return tabulate(
        [_values(row) for row in rows],
        headers=COLUMNS,
        tablefmt="github" if markdown else "simple",
        floatfmt=".1f",
        missingval="",
        colalign=["left"] * 3 + ["right"] * (len(COLUMNS) - 3),
    )


def _values(row: dict[str, Any]) -> tuple[Any, ...]:
    cost = ModelCost(*(row[name] for name in ModelCost._fields))
    published = cost.published_operations if cost.saved_operations else None
    return (
        *(row["config"], row["head"], row["backbone"], row["parameters"] / 1e6),
        row["sgr_parameters"] / 1e6 if row["sgr"] else None,
        "x".join(map(str, row["size"])) if row["size"] else None,
        row["operations"] and row["operations"] / 1e9,
        row["sgr_operations"] / 1e9 if row["sgr"] and row["operations"] else None,
        published and published / 1e9,
    )


if __name__ == "__main__":
    quiet_in_pipes()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    sys.exit(main())
