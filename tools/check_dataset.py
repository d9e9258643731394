"""Check every image and label of a data set before training on it.

python tools/check_dataset.py camvid_train camvid_val
python tools/check_dataset.py configs/camvid/fpn_sgr_effnet_lite0.yaml

Reports unreadable files, sizes that differ, labels out of range, label values that look wrong, class frequencies and
components, and writes class_frequencies.png and check.json. The exit code is 1 if the data have errors or no labelled
pixel, 2 if the check cannot run.
"""

import argparse
import json
import logging
import os
import sys
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import numpy as np
from command_line import directory, failed, quiet_in_pipes
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from semantic_sets import semantic_metadata

from sgr_d2.config import get_sgr_cfg
from sgr_d2.data.check import CheckRules, DatasetCheck, check_records
from sgr_d2.data.check_report import check_to_json, format_check
from sgr_d2.data.components import ComponentLimits
from sgr_d2.data.datasets import get_dataset_records, register_all
from sgr_d2.engine import load_config
from sgr_d2.visualization.class_frequencies import plot_class_frequencies


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    worst = 0
    try:
        cfg, names = resolve(args.targets)
        for name in names:
            check = check_dataset(name, cfg, args)
            worst = max(worst, bool(check.errors) or not check.pixels.any())
    except (OSError, ValueError, KeyError, BrokenProcessPool) as error:
        return failed("check_dataset.py", error)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    return worst


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "targets", nargs="+", metavar="NAME|CONFIG", help="registered data sets, or a .yaml for all of its data sets"
    )
    parser.add_argument("--min-area", type=int, metavar="PIXELS", help="instead of INPUT.COMPONENTS.MIN_AREA")
    parser.add_argument("--max-components", type=int, metavar="N", help="instead of INPUT.COMPONENTS.MAX_COMPONENTS")
    parser.add_argument("--num-workers", type=int, default=min(8, os.cpu_count() or 1), metavar="N", help="processes")
    parser.add_argument(
        "--output", type=directory, default="output/check_dataset", metavar="DIR", help="default: %(default)s"
    )
    return parser


def resolve(targets: list[str]) -> tuple[CfgNode, list[str]]:
    """Return the config to take limits from, and the data sets to check.

    Raises:
        ValueError: if a config is given together with other configs or names.
    """
    configs = [target for target in targets if target.endswith((".yaml", ".yml"))]
    if len(configs) > 1 or configs not in ([], targets[:1]):
        raise ValueError(f"{' '.join(targets)}: give either one config or names of data sets.")
    if not configs:
        register_all()
        cfg = get_sgr_cfg()
        cfg.INPUT.MIN_SIZE_TRAIN = ()  # unknown without a config
        return cfg, targets
    cfg = load_config(targets[0], targets[1:])
    return cfg, list(dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]))


def check_dataset(name: str, cfg: CfgNode, args: argparse.Namespace) -> DatasetCheck:
    """Check one data set, print the report and write the files."""
    info = semantic_metadata(name)
    records = get_dataset_records(name)
    output = args.output / name
    output.mkdir(parents=True, exist_ok=True)  # before the files are read, which can take long
    limits = ComponentLimits.from_config(cfg, is_train=False)
    given = {"min_area": args.min_area, "max_components": args.max_components}
    limits = replace(limits, **{key: value for key, value in given.items() if value is not None})
    rules = CheckRules(
        num_classes=len(info.classes),
        ignore_label=info.ignore_label,
        limits=limits,
        train_edges=tuple(np.atleast_1d(cfg.INPUT.MIN_SIZE_TRAIN).tolist()),
        test_edge=cfg.INPUT.MIN_SIZE_TEST,
        first_instance_id=MetadataCatalog.get(name).get("first_instance_id", 1),
    )
    check = check_records(records, rules, title=name, num_workers=args.num_workers)
    print(format_check(check, name, info.classes))
    report = json.dumps(check_to_json(check, name, info.classes), indent=1)
    (output / "check.json").write_text(report + "\n", encoding="utf-8")
    plot_class_frequencies(
        title=f"{name}: {check.num_pairs} images",
        classes=info.classes,
        pixels=check.pixels,
        components=check.components,
        min_area=limits.min_area,
        max_components=limits.max_components,
        out_png=output / "class_frequencies.png",
    )
    print(f"written: {output}/class_frequencies.png, {output}/check.json\n")
    return check


if __name__ == "__main__":
    quiet_in_pipes()
    sys.exit(main())
