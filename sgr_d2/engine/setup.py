"""From a command line to the config of a run: files, options, the data sets' metadata, the folder for the results."""

import argparse
import logging
from contextlib import nullcontext
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from yaml import YAMLError

from sgr_d2.checks import check_choice, check_norms, check_pixel_statistics, check_ranges
from sgr_d2.config import get_sgr_cfg
from sgr_d2.data.datasets import register_all, register_folders, require_folders

from .build import check_parts
from .checkpoint.checkpoint_file import check_weights
from .earlier_run import check_resume, claim, keeping_config, put_back, set_aside
from .loop import DTYPES
from .machine import fit_to_machine
from .options import check_sections, explained, merge_options
from .own_modules import config_with, imports_of, keys_of
from .seed import with_seed, with_seed_of_run
from .tasks import check_model, task_of

logger = logging.getLogger(__name__)


def setup(args: argparse.Namespace) -> CfgNode:
    """Build the frozen config of a run and start its log.

    Args:
        args: of `detectron2.engine.default_argument_parser`.

    Raises:
        ValueError, KeyError, FileNotFoundError: for a config that cannot work; the message names file, key and value.
    """
    cfg = read_command_line(args)
    warning = "" if args.eval_only else _make_room(cfg, resume=args.resume)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="sgr_d2")
    if warning:
        logger.warning("%s", warning)
    try:
        return _begin(cfg, args)
    except BaseException:
        put_back(Path(cfg.OUTPUT_DIR))
        raise


def _begin(cfg: CfgNode, args: argparse.Namespace) -> CfgNode:
    """Adapt the config to this machine, write it to OUTPUT_DIR and start the log."""
    if not args.eval_only and args.resume:
        cfg = with_seed_of_run(cfg)
    cfg = with_seed(fit_to_machine(cfg, args.config_file, args.opts, comm.get_world_size(), cpu=args.num_gpus == 0))
    keep = (args.eval_only or args.resume) and comm.is_main_process()  # `train` writes it if the run is continued
    with keeping_config(cfg.OUTPUT_DIR) if keep else nullcontext():
        default_setup(cfg, args)
    return cfg


def read_command_line(args: argparse.Namespace) -> CfgNode:
    """Build the config of a command line, and check its weights and that the folders of its data sets exist.

    Writes nothing, so a program can use it to reject a command line before starting processes.

    Args:
        args: of `detectron2.engine.default_argument_parser`.

    Raises:
        ValueError, KeyError, FileNotFoundError: for a config that cannot work; the message names file, key and value.
    """
    cfg = load_config(args.config_file, args.opts)
    if args.num_gpus > 1 and cfg.MODEL.DEVICE == "cpu" and torch.cuda.is_available():
        raise ValueError(
            f"MODEL.DEVICE = cpu with --num-gpus {args.num_gpus}: if a GPU is visible, Detectron2's processes "
            'communicate through it. Hide it: CUDA_VISIBLE_DEVICES="" python train_net.py ...'
        )
    if args.eval_only and not cfg.DATASETS.TEST:
        raise ValueError("--eval-only: DATASETS.TEST is empty; name a data set to evaluate on.")
    if not cfg.OUTPUT_DIR:
        raise ValueError("OUTPUT_DIR is empty: name the folder for logs, checkpoints and figures.")
    if not args.eval_only:
        _check_training(cfg, max(1, args.num_gpus) * getattr(args, "num_machines", 1))
    if not args.resume:  # a resumed run starts from the weights in OUTPUT_DIR
        check_weights(cfg.MODEL.WEIGHTS)
    require_folders([*([] if args.eval_only else cfg.DATASETS.TRAIN), *cfg.DATASETS.TEST])
    return cfg


def _check_training(cfg: CfgNode, world_size: int) -> None:
    if not cfg.DATASETS.TRAIN:
        raise ValueError("DATASETS.TRAIN is empty: name a data set to train on, or evaluate with --eval-only.")
    batch = cfg.SOLVER.IMS_PER_BATCH
    if cfg.SOLVER.REFERENCE_WORLD_SIZE == 0 and batch % world_size:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH = {batch} is the batch of all {world_size} processes together, and must be a "
            "multiple of their number."
        )


def _make_room(cfg: CfgNode, *, resume: bool) -> str:
    """Move an earlier run in OUTPUT_DIR aside, unless it is to be resumed; returns what the log should say of it.

    Raises:
        ValueError: if another training is running there, the initial weights are part of that run, or the only runs to
            resume were moved aside.
    """
    folder, warning = Path(cfg.OUTPUT_DIR), ""
    if comm.is_main_process():
        claim(folder)
    if resume:
        warning = check_resume(folder)
    elif comm.is_main_process() and (earlier := set_aside(folder, needed=cfg.MODEL.WEIGHTS)):
        warning = f"OUTPUT_DIR held an earlier run, which is now in {earlier}; --resume would have continued it."
    comm.synchronize()
    return warning


def load_config(config_file: str, opts: list[str] | None = None) -> CfgNode:
    """Read a config file, apply ``KEY VALUE`` options, register its data sets and take the classes from them.

    The modules of IMPORTS are imported first.
    """
    cfg = get_sgr_cfg()
    if not config_file:
        raise ValueError("No config: give --config-file, e.g. configs/shapes/fpn_sgr.yaml.")
    if not Path(config_file).is_file():
        raise FileNotFoundError(f"--config-file {config_file}: no such file.")
    try:
        content = keys_of(config_file)
        cfg = config_with(imports_of(content, opts or []))
        check_sections(cfg, content)
        cfg.merge_from_file(config_file)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{config_file}: no file {error.filename}. Paths in _BASE_ are relative to the folder of their file."
        ) from error
    except (AssertionError, KeyError, ValueError, YAMLError) as error:
        raise explained(error, cfg, config_file) from error
    merge_options(cfg, opts or [])
    check_parts(cfg)
    check_ranges(cfg)
    check_norms(cfg)
    check_pixel_statistics(cfg)
    check_choice("SOLVER.AMP.DTYPE", cfg.SOLVER.AMP.DTYPE, sorted(DTYPES))
    register_all()
    register_folders(cfg)
    use_metadata(cfg)
    cfg.freeze()
    return cfg


def use_metadata(cfg: CfgNode) -> None:
    """Set the number of classes, and whatever else the task takes from the data sets' metadata.

    Raises:
        ValueError: if the config names another number of classes, no data set, a panoptic model, or a model for another
            task than that of the data sets.
    """
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    if not names:
        raise ValueError("DATASETS.TRAIN and DATASETS.TEST are both empty: name at least one data set.")
    if cfg.MODEL.META_ARCHITECTURE in ("PanopticFPN", "SGRPanopticFPN"):
        raise ValueError(
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} needs instances and label maps at once, which this "
            "training does not provide. Use SGRGeneralizedRCNN or SGRSegmentor, or train it with a program of your own."
        )
    task = task_of(names)
    metadata = task.metadata_of(names)
    check_model(cfg, names)
    task.use_classes(cfg, names, metadata)
