"""Setup, training and evaluation of a run."""

from .allocator import keep_freed_memory
from .analysis.explore import ExploreSettings, NamedModel, explore
from .checkpoint.checkpointer import load_weights
from .checkpoint.model_card import read_card
from .evaluate import evaluate
from .inference.prediction import Prediction
from .inference.predictor import SGRPredictor
from .processes import end_processes, run_process
from .refusals import refusals_in_a_line
from .run import evaluate_checkpoint, limit_threads, train
from .setup import load_config, read_command_line, setup
from .trainer import Trainer

__all__ = [
    "ExploreSettings",
    "NamedModel",
    "Prediction",
    "SGRPredictor",
    "Trainer",
    "end_processes",
    "evaluate",
    "evaluate_checkpoint",
    "explore",
    "keep_freed_memory",
    "limit_threads",
    "load_config",
    "load_weights",
    "read_card",
    "read_command_line",
    "refusals_in_a_line",
    "run_process",
    "setup",
    "train",
]
