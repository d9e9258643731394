"""Compare finished runs: metrics, IoU by class, token metrics, time and memory, paired by seed.

python tools/compare_runs.py output/fpn_seed0 output/fpn_seed1 output/fpn_sgr_seed0 output/fpn_sgr_seed1
python tools/compare_runs.py results/main/fpn results/main/fpn_sgr_decay --output output/decay

A run is the OUTPUT_DIR of a training or evaluation with train_net.py, or a result of tools/run_experiment.py; a folder
stands for all runs below it. Runs whose settings differ only in the seed (or in where and how fast they ran) form one
variant; other variants are compared with that of the first run. Metrics that a run does not have, and seeds that only
other variants have, are shown as missing, and a class that no label has as "no labels"; trainings that did not reach
their last step are left out, and listed. A line in bold warns if the length of the training, the batch or the data are
not the same.
"""

import argparse
import sys
from pathlib import Path

from command_line import directory, failed, quiet_in_pipes
from comparison.grouping import compare
from comparison.page import write_page
from comparison.reading import find_runs


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    try:
        text = write_page(compare(find_runs(args.runs), args.metrics), args.output)
    except (OSError, ValueError) as error:
        return failed(parser.prog, error)
    print(text)
    print(f"{args.output / 'comparison.html'} contains this page with pictures.", file=sys.stderr)
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of one or several runs, or a result")
    parser.add_argument(
        "--output", type=directory, default="output/comparison", metavar="DIR", help="default: output/comparison"
    )
    parser.add_argument(
        "--metrics", nargs="+", default=[], metavar="TASK/NAME", help="instead of the usual ones (sem_seg/mIoU ...)"
    )
    return parser


if __name__ == "__main__":
    quiet_in_pipes()
    sys.exit(main())
