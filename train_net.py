"""Train or evaluate a segmentation model with SGR.

python train_net.py --config-file configs/shapes/fpn_sgr.yaml --num-gpus 0
python train_net.py --config-file configs/shapes/fpn_sgr.yaml --eval-only MODEL.WEIGHTS output/.../model_final.pth

--num-gpus N: processes on this machine, one per GPU (default 1), or on the CPU if there is no GPU; 0: one on the CPU.
--resume: continue from the last checkpoint in OUTPUT_DIR; with --eval-only, evaluate it.
opts: KEY VALUE pairs that override the config; docs/keys.md lists the keys that Detectron2 does not have.
"""

import argparse
import os
import sys

import torch
from torch.multiprocessing import ProcessExitedException

from sgr_d2.engine import (
    end_processes,
    evaluate_checkpoint,
    keep_freed_memory,
    limit_threads,
    read_command_line,
    refusals_in_a_line,
    run_process,
    setup,
    train,
)
from sgr_d2.engine.refusals import INTERRUPTED, TRACEBACK

# After sgr_d2, which silences a warning of Detectron2's imports.
# isort: split
from detectron2.engine import default_argument_parser, launch


def main(args: argparse.Namespace) -> dict | None:
    limit_threads(args.num_gpus)
    cfg = setup(args)
    if cfg.MODEL.DEVICE == "cpu":
        keep_freed_memory()
    if args.eval_only:
        return evaluate_checkpoint(cfg, resume=args.resume)
    return train(cfg, resume=args.resume)


def process(args: argparse.Namespace) -> None:
    """The program of each process; reports invalid input, and Ctrl-C, in one line."""
    with refusals_in_a_line("train_net.py"):
        main(args)


if __name__ == "__main__":
    parser = default_argument_parser(epilog=__doc__)
    args = parser.parse_args()
    available = torch.cuda.device_count()
    if available and args.num_gpus > available:
        parser.error(f"--num-gpus {args.num_gpus}: this machine has {available}.")
    if args.num_gpus * args.num_machines > 1:  # report invalid input once, before processes are started
        with refusals_in_a_line(parser.prog):
            read_command_line(args)
    try:
        launch(
            run_process,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(process, args),
        )
    except KeyboardInterrupt:  # of several processes; the first one tells where the run was
        end_processes(seconds=10)
        if os.environ.get(TRACEBACK):
            raise
        sys.exit(INTERRUPTED)
    except ProcessExitedException as error:
        if error.exit_code not in (2, INTERRUPTED):  # the process has already reported these
            raise
        sys.exit(error.exit_code)
