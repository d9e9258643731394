"""The results of a detector as a text table."""

from collections.abc import Sequence

from tabulate import tabulate

from sgr_d2.evaluation.report import Results, format_table, number_text

_TASKS = {"bbox": "boxes", "segm": "masks"}
_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def format_detection_table(results: Results, class_names: Sequence[str]) -> str:
    """Return COCO's average precision of boxes and masks, in percent, followed by `format_table` of the other results.

    The precision of each class is in the log of Detectron2's evaluator and in ``metrics.json``.
    """
    found = {title: results[task] for task, title in _TASKS.items() if results.get(task)}
    rows = [[title, *(number_text(metrics, name, 2) for name in _FIGURES)] for title, metrics in found.items()]
    parts = []
    if rows:
        headers = ["", *_FIGURES]
        parts.append(tabulate(rows, headers=headers, tablefmt="pipe", stralign="right", disable_numparse=True))
    rest = {task: metrics for task, metrics in results.items() if task not in _TASKS}
    if text := format_table(rest, class_names):
        parts.append(text)
    return "\n\n".join(parts)
