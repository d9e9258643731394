"""From a command line to a complete config: files, options, the data sets' metadata, the machine."""

import argparse
import difflib
import logging
import re
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from yaml import YAMLError

from sgr_d2.checks import check_choice, check_pixel_statistics, check_ranges
from sgr_d2.config import get_sgr_cfg
from sgr_d2.data.datasets import register_all, register_folders, require_folders

from .build import check_parts
from .checkpoint_file import check_weights
from .earlier_run import check_resume, claim, keeping_config, put_back, set_aside
from .loop import DTYPES
from .own_modules import config_with, imports_of
from .scaling import scale_solver
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
    earlier = None if args.eval_only else _make_room(cfg, resume=args.resume)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="sgr_d2")
    if earlier:
        logger.warning("OUTPUT_DIR held an earlier run, which is now in %s; --resume would have continued it.", earlier)
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


def fit_to_machine(
    cfg: CfgNode, config_file: str, opts: Sequence[str], world_size: int, *, cpu: bool = False
) -> CfgNode:
    """Adapt device, precision, norms, batch and schedule of a config to ``world_size`` processes on this machine.

    Args:
        cfg: `load_config` of ``config_file`` and ``opts``.
        world_size: number of processes.
        cpu: use no GPU even if there is one.

    Raises:
        ValueError: if SOLVER.REFERENCE_WORLD_SIZE does not divide the batch.
    """
    cfg, given = cfg.clone(), opts[::2]
    cfg.defrost()
    if cpu:
        cfg.MODEL.DEVICE = "cpu"
    use_machine(cfg, world_size, given=given)
    cfg.freeze()
    if cfg.SOLVER.REFERENCE_WORLD_SIZE == 0:  # nothing to scale, so the file need not be read a second time
        return cfg
    return scale_solver(cfg, world_size, reference_batch=_batch_of_file(config_file, opts), given=given)


def _make_room(cfg: CfgNode, *, resume: bool) -> Path | None:
    """Move an earlier run in OUTPUT_DIR aside, unless it is to be resumed, and return its new place.

    Raises:
        ValueError: if another training is running there, the initial weights are part of that run, or the only runs to
            resume were moved aside.
    """
    folder, earlier = Path(cfg.OUTPUT_DIR), None
    if comm.is_main_process():
        claim(folder)
    if resume:
        check_resume(folder)
    elif comm.is_main_process():
        earlier = set_aside(folder, needed=cfg.MODEL.WEIGHTS)
    comm.synchronize()
    return earlier


def _batch_of_file(config_file: str, opts: Sequence[str]) -> int:
    cfg = config_with(imports_of(config_file, opts))
    cfg.merge_from_file(config_file)
    return cfg.SOLVER.IMS_PER_BATCH


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
        cfg = config_with(imports_of(config_file, opts or []))
        cfg.merge_from_file(config_file)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{config_file}: no file {error.filename}. Paths in _BASE_ are relative to the folder of their file."
        ) from error
    except (AssertionError, KeyError, ValueError, YAMLError) as error:
        raise _explained(error, cfg, config_file) from error
    merge_options(cfg, opts or [])
    check_parts(cfg)
    check_ranges(cfg)
    check_pixel_statistics(cfg)
    check_choice("SOLVER.AMP.DTYPE", cfg.SOLVER.AMP.DTYPE, sorted(DTYPES))
    register_all()
    register_folders(cfg)
    use_metadata(cfg)
    cfg.freeze()
    return cfg


def merge_options(cfg: CfgNode, opts: Sequence[str]) -> None:
    """Override keys of ``cfg`` by ["KEY", "value", ...].

    Raises:
        KeyError, ValueError: if a key is unknown (the message names similar ones), or a value is invalid or missing.
    """
    if flags := [str(opt) for opt in opts if str(opt).startswith("--")]:
        raise ValueError(f"command line: {' '.join(flags)} comes after KEY VALUE; put flags first.")
    if len(opts) % 2:
        raise ValueError(f"command line {' '.join(map(str, opts))}: give options in pairs, KEY VALUE KEY VALUE ...")
    try:
        cfg.merge_from_list(_with_floats(cfg, opts))
    except (AssertionError, KeyError, ValueError) as error:
        raise _explained(error, cfg, f"command line {' '.join(map(str, opts))}") from error


def _with_floats(cfg: CfgNode, opts: Sequence[str]) -> list:
    """The options, with integers converted to floats for keys that hold a float: the config rejects 1 for 1.0."""
    opts = list(opts)
    for index, key in enumerate(opts[:-1:2]):
        node, value = cfg, opts[2 * index + 1]
        for name in str(key).split("."):
            node = node.get(name) if isinstance(node, CfgNode) else None
        if isinstance(node, float) and re.fullmatch(r"[+-]?\d+", str(value)):
            opts[2 * index + 1] = float(value)
    return opts


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


def use_machine(cfg: CfgNode, world_size: int, *, given: Collection[str] = ()) -> None:
    """Without a GPU, run on the CPU, and without float16 unless it is requested; use plain BatchNorm where torch's
    SyncBN cannot work. Changes are logged. ``given`` are the keys on the command line.
    """
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        logger.info("No GPU: MODEL.DEVICE becomes cpu.")
        cfg.MODEL.DEVICE = "cpu"
    amp = cfg.SOLVER.AMP
    if cfg.MODEL.DEVICE == "cpu" and amp.ENABLED and amp.DTYPE == "float16" and "SOLVER.AMP.ENABLED" not in given:
        logger.info("No GPU: float32 instead of float16 (SOLVER.AMP.ENABLED True on the command line keeps it).")
        amp.ENABLED = False
    if world_size == 1 or cfg.MODEL.DEVICE == "cpu":
        changed = _replace_norm(cfg.MODEL, "MODEL", "SyncBN", "BN")
        if changed:
            why = "one process" if world_size == 1 else "no GPU"
            logger.info("SyncBN becomes BN (%s): %s", why, ", ".join(changed))


def _replace_norm(node: CfgNode, path: str, old: str, new: str) -> list[str]:
    changed = []
    for key, value in node.items():
        if isinstance(value, CfgNode):
            changed += _replace_norm(value, f"{path}.{key}", old, new)
        elif key.endswith("NORM") and value == old and path != "MODEL.SGR":  # its own SyncBN works anywhere
            node[key] = new
            changed.append(f"{path}.{key}")
    return changed


def _explained(error: Exception, cfg: CfgNode, source: str) -> KeyError | ValueError:
    """The error with its source and, for an unknown key, similar keys; a KeyError stays a KeyError."""
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    match = re.search(r"Non-existent (?:config )?key: ([\w.]+)", text)
    if not match:
        if re.search(r"Type mismatch \(<class '(?:tuple|list)'> vs. <class '(?:str|int|float)'>\)", text):
            text += """. Give a list; on a command line: KEY "('value',)"."""
        return (KeyError if isinstance(error, KeyError) else ValueError)(f"{source}: {text}")
    near = difflib.get_close_matches(match[1], list(_keys(cfg)), n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return KeyError(f"{source}: there is no config key {match[1]}.{hint} Keys of your own need IMPORTS.")


def _keys(node: CfgNode, prefix: str = ""):
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
