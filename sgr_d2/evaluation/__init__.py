"""Segmentation metrics and token semantics; see docs/metrics.md."""

from sgr_d2.evaluation.build import (
    EVALUATORS,
    build_sem_seg_evaluators,
    check_evaluator_type,
    check_truth,
    evaluators_of,
)
from sgr_d2.evaluation.cityscapes_evaluator import CityscapesEvaluator
from sgr_d2.evaluation.coco_report import format_detection_table
from sgr_d2.evaluation.error_kinds import ERROR_KINDS, ErrorKindsEvaluator, error_kinds
from sgr_d2.evaluation.exact_sum import ExactSum
from sgr_d2.evaluation.report import format_table, metrics_path, write_metrics
from sgr_d2.evaluation.sem_seg_evaluator import StreamingSemSegEvaluator
from sgr_d2.evaluation.token_meter import TokenSemanticsMeter
from sgr_d2.evaluation.token_semantics import (
    TOKEN_FIGURES,
    LabelMasses,
    TokenSemantics,
    label_masses,
    token_semantics,
)
from sgr_d2.evaluation.token_semantics_evaluator import TokenSemanticsEvaluator

__all__ = [
    "ERROR_KINDS",
    "EVALUATORS",
    "TOKEN_FIGURES",
    "CityscapesEvaluator",
    "ErrorKindsEvaluator",
    "ExactSum",
    "LabelMasses",
    "StreamingSemSegEvaluator",
    "TokenSemantics",
    "TokenSemanticsEvaluator",
    "TokenSemanticsMeter",
    "build_sem_seg_evaluators",
    "check_evaluator_type",
    "check_truth",
    "error_kinds",
    "evaluators_of",
    "format_detection_table",
    "format_table",
    "label_masses",
    "metrics_path",
    "token_semantics",
    "write_metrics",
]
