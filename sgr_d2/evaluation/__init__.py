"""Segmentation metrics and token semantics; see docs/metrics.md."""

from sgr_d2.evaluation.build import EVALUATORS, build_evaluator, build_sem_seg_evaluators
from sgr_d2.evaluation.exact_sum import ExactSum
from sgr_d2.evaluation.label_files import LastFileCache, resize_nearest
from sgr_d2.evaluation.report import format_table, metrics_path, write_metrics
from sgr_d2.evaluation.sem_seg_evaluator import StreamingSemSegEvaluator
from sgr_d2.evaluation.token_meter import TokenSemanticsMeter
from sgr_d2.evaluation.token_semantics import TokenSemantics, token_semantics
from sgr_d2.evaluation.token_semantics_evaluator import TokenSemanticsEvaluator

__all__ = [
    "EVALUATORS",
    "ExactSum",
    "LastFileCache",
    "StreamingSemSegEvaluator",
    "TokenSemantics",
    "TokenSemanticsEvaluator",
    "TokenSemanticsMeter",
    "build_evaluator",
    "build_sem_seg_evaluators",
    "format_table",
    "metrics_path",
    "resize_nearest",
    "token_semantics",
    "write_metrics",
]
