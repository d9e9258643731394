"""Measure speed and memory; docs/performance.md has results and explains them.

python tools/benchmark.py --list
python tools/benchmark.py sgr_step --json performance.json
python tools/benchmark.py --table performance.json
"""

import argparse
import logging
import os
import sys
from pathlib import Path

os.environ["KINETO_LOG_LEVEL"] = "99"  # torch's profiler would log a line at every start
os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"

import cv2
import torch
from benchmarks import BENCHMARKS, Settings
from benchmarks.report import describe_machine, read_json, refuse_other_results, to_json, to_markdown
from command_line import positive

from sgr_d2.files import write_json


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if args.list:
        for name, function in BENCHMARKS.items():
            print(f"{name:<14} {function.__doc__}")
        return 0
    if args.table:
        try:
            print(to_markdown(read_json(args.table)))
        except (FileNotFoundError, ValueError) as error:
            parser.error(str(error))
        return 0
    names = args.names or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; choose from {', '.join(BENCHMARKS)}")
    if args.device == "cuda" and args.cpu_time:
        parser.error("--cpu-time: does not count the time of --device cuda; give one of the two")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device here; leave the option out to measure the CPU")
    if args.json:
        try:
            refuse_other_results(args.json, names)
        except (FileExistsError, ValueError) as error:
            parser.error(str(error))
    run(names, args)
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run; default: all")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and stop")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the tables of a --json file and stop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="picture of the sweep to write (.png)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=positive, metavar="N", help="threads of torch and OpenCV")
    parser.add_argument("--rounds", type=positive, metavar="N", help="timed rounds; default: each benchmark's own")
    parser.add_argument("--cpu-time", action="store_true", help="measure processor time, for a busy machine")
    parser.add_argument("--amp", choices=("float16", "bfloat16"), help="mixed precision of sgr_step; default float32")
    parser.add_argument("--quick", action="store_true", help="toy sizes, to check that it runs; numbers mean nothing")
    return parser


def run(names: list[str], args: argparse.Namespace) -> None:
    """Run the benchmarks, print the results, and write the file after each of them."""
    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    settings = Settings(args.device, args.rounds, args.quick, args.cpu_time, args.plot, args.amp)
    machine = describe_machine(settings)
    reports = {}
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        reports[name] = BENCHMARKS[name](settings)
        if args.json:
            write_json(to_json(machine, settings, reports), args.json, indent=2)
    print(to_markdown(to_json(machine, settings, reports)))


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # of loaders and loops, of no interest here
    sys.exit(main())
