"""Memory for the evaluation of a large image with many classes."""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from sgr_d2.data.datasets import metadata_of
from sgr_d2.engine import Trainer, load_config
from sgr_d2.engine.evaluate import evaluate

from .measure import Ratio, mib
from .report import Report
from .settings import CONFIGS, Settings

CASES = {"fpn": "coco_stuff/fpn_sgr.yaml", "m2f": "coco_stuff/m2f_sgr.yaml"}
HEIGHT, WIDTH = 1024, 2048


def benchmark_inference_memory(settings: Settings) -> Report:
    """memory, without the model, to evaluate 2048x1024 pixels with 171 classes: Semantic FPN, Mask2Former"""
    size = (64, 128) if settings.quick else (HEIGHT, WIDTH)
    report = Report(
        f"An image of {size[0]}x{size[1]}, 171 classes, ResNet-50 with SGR, on the CPU: reading, model, scores at full "
        "size, segmentation and token metrics. The resident memory of a process of its own at its peak, less that with "
        "the model loaded; the scores alone take 1368 MiB."
    )
    for name, config in CASES.items():
        loaded, peak = measure(config, size)
        above = (peak - loaded) / 2**30
        report.rows.append({"model": config, "MiB with the model": mib(loaded), "MiB at the peak": mib(peak)})
        report.ratios[f"inference_memory_{name}_gib"] = Ratio(above, above, above, "" if settings.quick else "<= 2")
    return report


def measure(config: str, size: tuple[int, int], opts: tuple = ()) -> tuple[int, int]:
    """(bytes resident with the model loaded, bytes at the peak) of an evaluation in its own process.

    Args:
        config: path below configs/.
        size: (height, width) of the image.
        opts: further ``KEY, value``.

    Raises:
        RuntimeError: if the process failed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_evaluate_one, args=(config, size, opts, sender))
    with without_gpus():
        process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError as error:
        raise RuntimeError(f"{config}: the process that measures failed; its error is above.") from error
    finally:
        process.join()


@contextmanager
def without_gpus() -> Iterator[None]:
    """Hide GPUs from processes started inside: Detectron2 synchronises with a visible one, which takes memory."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    os.environ[name] = ""
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _evaluate_one(config: str, size: tuple[int, int], opts: tuple, sender) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cfg = load_config(str(_write_data(Path(folder), config, size)), list(opts)).clone()
        model = Trainer.build_model(cfg)
        loaded = _resident()
        evaluate(cfg, model, "large")
        sender.send((loaded, _peak()))


def _write_data(folder: Path, config: str, size: tuple[int, int]) -> Path:
    """Write one image with its labels and a config that evaluates on it; returns the config's path."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 171, (size[0] // 32, size[1] // 32)).astype(np.uint8)
    labels = coarse.repeat(32, axis=0).repeat(32, axis=1)
    for kind, array in (("images", np.stack([labels, labels // 2, 255 - labels], axis=-1)), ("labels", labels)):
        (folder / kind).mkdir()
        Image.fromarray(array).save(folder / kind / "0.png")
    base = CONFIGS / config
    data = {"IMAGE_DIR": str(folder / "images"), "LABEL_DIR": str(folder / "labels")}
    data["CLASSES"] = list(metadata_of(load_config(str(base)).DATASETS.TEST).classes)
    content = {
        "_BASE_": str(base),
        "DATASETS": {"FOLDERS": {"large": data}, "TRAIN": [], "TEST": ["large"]},
        "INPUT": {"MIN_SIZE_TEST": size[0], "MAX_SIZE_TEST": size[1]},
        "DATALOADER": {"NUM_WORKERS": 0},
        "MODEL": {"DEVICE": "cpu", "WEIGHTS": "", "RESNETS": {"NORM": "BN"}},
        "OUTPUT_DIR": str(folder / "output"),
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def _resident() -> int:
    """Resident bytes of this process; where the system does not report them, its peak so far."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * 4096 if status.is_file() else _peak()


def _peak() -> int:
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
