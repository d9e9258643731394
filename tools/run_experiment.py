"""Train a grid of configs, settings and seeds, and compare the results.

python tools/run_experiment.py experiments/main.yaml --list
python tools/run_experiment.py experiments/main.yaml --workers 2
python tools/run_experiment.py experiments/main.yaml --summary

A plan is a YAML file, explained in docs/experiments.md; experiments/ contains ours. Finished runs are not repeated,
interrupted ones are resumed, and several runners may work on a plan at once. Results of a plan of your own go to
output/experiments_results/<plan>. For those of experiments/, results/ contains ours: --output DIR makes all runs
yourself.
"""

import argparse
import signal
import sys
from pathlib import Path

import torch
from command_line import directory, positive, say
from experiments.job import Launch, visible_gpus
from experiments.metrics import check_metrics
from experiments.plan import ROOT, Plan, Run, read_plan
from experiments.plots import draw
from experiments.records import Folders, folders_of
from experiments.resolved import resolve
from experiments.runner import Runner
from experiments.summary import Collected, collect, to_markdown

import sgr_d2


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 if a run failed, 130 after Ctrl-C."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    found = Path(sgr_d2.__file__).resolve().parents[1]
    if found != ROOT:  # the installed package, if this is a second working copy
        parser.error(f"train_net.py would use sgr_d2 of {ROOT}, this tool uses that of {found}: set PYTHONPATH={ROOT}")
    try:
        plan = read_plan(args.plan)
        folders = folders_of(args.plan, args.output, args.work)
        configs = {run.name: resolve(run, cpu=plan.num_gpus == 0) for run in plan.runs()}
        check_metrics(args.plan, plan, configs)
        runs = plan.runs(args.only)
        collected = collect(plan, folders, configs)
    except (OSError, KeyError, ValueError) as error:
        parser.error(str(error.args[0] if error.args else error))
    if args.list:
        return show(collected, runs)
    if args.summary:
        print(write_summary(collected, folders))
        return 0
    changed = [run.name for run in runs if collected.states[run.name][0] == "changed"]
    if changed and not args.redo:
        lines = [f"  {name}: {collected.states[name][1]}" for name in changed]
        parser.error(
            f"the plan or the defaults have changed since these were run:\n{chr(10).join(lines)}\n"
            "--redo repeats them; another --output keeps both."
        )
    try:
        fine = train(plan, runs, configs, folders, args)
    except KeyboardInterrupt:
        say("stopped; the same command continues from here")
        return 130
    print(write_summary(collect(plan, folders, configs), folders))
    return 0 if fine else 1


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, metavar="PLAN.yaml", help="what to run; docs/experiments.md explains")
    parser.add_argument(
        "--output",
        type=directory,
        metavar="DIR",
        help="for small results; default output/experiments_results/<plan>, and results/<plan> for one of experiments/",
    )
    parser.add_argument(
        "--work",
        type=directory,
        metavar="DIR",
        help="for logs, checkpoints; default output/experiments/<DIR> with --output, and for one of experiments/ "
        "output/experiments/<plan>; otherwise output/experiments_work/<plan>",
    )
    parser.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="runs at a time (GPUs are shared); default 1"
    )
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="of each run on the CPU; default 1")
    parser.add_argument("--only", default="*", metavar="GLOB", help='only these variants or runs: "sgr*", "*/seed0"')
    parser.add_argument("--list", action="store_true", help="list runs with their states, and stop")
    parser.add_argument("--summary", action="store_true", help="write and print the summary of finished runs, and stop")
    parser.add_argument("--redo", action="store_true", help="repeat runs that were made with other settings")
    parser.add_argument("--keep", action="store_true", help="keep the checkpoints of finished runs")
    return parser


def train(plan: Plan, runs: list[Run], configs: dict, folders: Folders, args: argparse.Namespace) -> bool:
    """Make the runs; returns True if none failed."""
    has_gpu = torch.cuda.is_available()
    num_gpus = int(has_gpu) if plan.num_gpus == "auto" else plan.num_gpus
    gpus = visible_gpus() if num_gpus else ()
    launch = Launch(num_gpus=num_gpus, metrics=plan.metrics, threads=args.threads, keep=args.keep, gpus=gpus)
    runner = Runner(folders, launch, workers=args.workers, redo=args.redo, say=say)
    # like Ctrl-C, end the runs that were started here
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return runner.make(runs, configs)
    finally:
        signal.signal(signal.SIGTERM, former)


def show(collected: Collected, runs: list[Run]) -> int:
    """Print one line per run."""
    for run in runs:
        state, detail = collected.states[run.name]
        print(f"{run.name:<32} {state:<12} {detail}".rstrip())
    return 0


def write_summary(collected: Collected, folders: Folders) -> str:
    """Write ``summary.md`` and its pictures to the folder of the results; returns the text."""
    folders.results.mkdir(parents=True, exist_ok=True)
    text = to_markdown(collected, draw(collected, folders.results))
    (folders.results / "summary.md").write_text(text, encoding="utf-8")
    return text


if __name__ == "__main__":
    sys.exit(main())
