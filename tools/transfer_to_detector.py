"""Extract backbone and SGR from a segmentation checkpoint, under the names of a detector; or the other way round.

python tools/transfer_to_detector.py --weights output/.../model_final.pth --output detector_init.pth
python tools/transfer_to_detector.py --weights SEGMENTATION.pth --output detector_init.pth \\
    --config-file configs/detection/mask_rcnn_sgr_effnet_lite0_camvid_instances.yaml
python tools/transfer_to_detector.py --weights DETECTOR.pth --output segmentation_init.pth

Give the result as MODEL.WEIGHTS. The checkpoint itself can also be given there, as sgr_d2 converts the names when it
loads weights; the file is for programs that load weights only by name, such as Detectron2's own train_net.py. It keeps
the config of the checkpoint, from which training with sgr_d2 sees on which input the backbone was trained.
"""

import argparse
import logging
import sys
from pathlib import Path

import torch
from command_line import failed

from sgr_d2.engine import load_config, load_weights
from sgr_d2.engine.build import build_model, without_initial_weights
from sgr_d2.engine.checkpoint.checkpoint_file import read_checkpoint, require_checkpoint
from sgr_d2.engine.checkpoint.detector_keys import is_detector, transfer_keys
from sgr_d2.engine.checkpoint.load_report import summary
from sgr_d2.engine.checkpoint.model_card import KEY
from sgr_d2.files import appearing_whole


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help="checkpoint of a segmentation model or detector"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="file to write (.pth)")
    parser.add_argument(
        "--config-file", metavar="FILE", help="of the target model: prints what will be loaded, skipped and missing"
    )
    args = parser.parse_args(arguments)
    try:
        require_checkpoint(args.weights)
        if args.config_file:
            compare(args.weights, args.config_file)
        transfer(args.weights, args.output)
    except (OSError, ValueError, KeyError) as error:
        return failed(parser.prog, error)
    return 0


def transfer(checkpoint: str, out: Path) -> None:
    """Write ``out``, and print what it contains and what was left out."""
    if out.exists() and out.samefile(checkpoint):
        raise ValueError(f"{out} is the checkpoint itself. Give another name for the result.")
    content = read_checkpoint(checkpoint)
    state = content["model"]
    try:
        names = transfer_keys(state)
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from error
    source, target = ("detector", "segmentation model")[:: 1 if is_detector(state) else -1]
    with appearing_whole(out) as temporary:
        card = {KEY: content[KEY]} if KEY in content else {}
        torch.save({"model": {new: state[old] for old, new in names.items()}, **card}, temporary)
    print(f"{out}: {len(names)} tensors of a {source}, named for a {target}: {summary(sorted(names.values()))}")
    left = sorted(set(state) - set(names))
    if left:
        print(f"Left out, {len(left)} tensors: {summary(left)}")


def compare(checkpoint: str, config_file: str) -> None:
    """Load the checkpoint into the model of a config, which logs what is skipped, missing and not used, and print the
    numbers.
    """
    cfg = without_initial_weights(load_config(config_file, ["MODEL.DEVICE", "cpu"]))
    print(f"{config_file}: {load_weights(build_model(cfg), checkpoint)}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    sys.exit(main())
