"""The command line shared by the prepare_*.py scripts."""

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from sgr_d2.data.datasets import dataset_root
from sgr_d2.data.prepare import Plan, carry_out, format_summary, is_complete


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every script has."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument(
        "--root",
        type=lambda text: Path(text).expanduser(),
        default=dataset_root(),
        metavar="DIR",
        help="folder with the data sets (default: $DETECTRON2_DATASETS, or datasets/: %(default)s)",
    )
    result.add_argument(
        "--num-workers",
        type=_positive,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="number of processes (default: %(default)s)",
    )
    result.add_argument("--partial", action="store_true", help="accept an incomplete release")
    result.add_argument("--overwrite", action="store_true", help="replace files that differ from the converted source")
    return result


def run(make_plan: Callable[..., Plan], args: argparse.Namespace, **options) -> int:
    """Prepare a data set, print a summary and return the exit code: 1 if anything is broken or missing, else 0."""
    try:
        plan = make_plan(args.root, partial=args.partial, **options)
        reports = carry_out(plan, num_workers=args.num_workers, overwrite=args.overwrite)
    except (OSError, ValueError, ImportError, BrokenProcessPool) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Run the same command again to continue.", file=sys.stderr)
        return 130
    print(format_summary(plan, reports))
    if any(report.failures for report in reports):
        return 1
    if not is_complete(reports) and not args.partial:
        print("error: the data set is not complete; --partial accepts that.", file=sys.stderr)
        return 1
    return 0


def main(make_plan: Callable[..., Plan], description: str) -> int:
    """Run a script without options of its own."""
    return run(make_plan, parser(description).parse_args())


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)
