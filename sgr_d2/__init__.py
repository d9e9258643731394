"""SGR, semantically aware global reasoning for segmentation (arXiv 2212.03338), as a Detectron2 project."""

import importlib
import warnings
from typing import Any

__version__ = "0.1.0"

# Imported when they are used: `import sgr_d2` alone needs neither PyTorch nor Detectron2.
_LAZY = {"SGRPredictor": "sgr_d2.engine", "config_file": "sgr_d2.config_files"}

# The imports of fvcore and Detectron2 compile functions with it; nobody who runs a command can do anything about that.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
