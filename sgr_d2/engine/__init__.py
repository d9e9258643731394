"""Set-up, training and evaluation of a run."""

from .evaluate import evaluate
from .setup import load_config, setup
from .trainer import Trainer, evaluate_checkpoint, limit_threads, train

__all__ = ["Trainer", "evaluate", "evaluate_checkpoint", "limit_threads", "load_config", "setup", "train"]
