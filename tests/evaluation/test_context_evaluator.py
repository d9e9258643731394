import math

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from toy_processes import run_two

from sgr_d2.evaluation import evaluators_of
from sgr_d2.evaluation.context_evaluator import ContextEvaluator


def scores(classes: np.ndarray) -> dict:
    return {"sem_seg": torch.eye(4)[torch.from_numpy(classes)].permute(2, 0, 1)}


def image(*objects, size=(6, 10)) -> dict:
    items = [{"label": label, "box": box, "distance": distance} for label, box, distance in objects]
    return {"file_name": "a.png", "height": size[0], "width": size[1], "context_objects": items}


def evaluate(*pairs, **options) -> dict:
    evaluator = ContextEvaluator(context_labels=[2, 3], distributed=False, **options)
    for record, classes in pairs:
        evaluator.process([record], [scores(classes)])
    return evaluator.evaluate()["context"]


def test_by_hand():
    classes = np.zeros((6, 10), int)
    classes[0:2, 0:2] = 2  # four pixels of the first object, all right
    classes[0:2, 4:6] = [[3, 2], [3, 1]]  # of the second, a 2: one right, two wrong
    classes[4:6, 0:2] = [[2, 3], [0, 0]]  # of the third, a 3: one each
    record = image((2, (0, 0, 3, 3), 10.0), (2, (0, 4, 2, 6), 60.0), (3, (4, 0, 6, 2), 500.0))
    figures = evaluate((record, classes))
    assert figures["objects"] == pytest.approx(100 * 1.5 / 3)
    assert figures["pixels"] == pytest.approx(100 * 6 / 9)
    assert (figures["objects_0_60"], figures["objects_60_120"], figures["objects_300_up"]) == (100, 0, 50)
    assert (figures["pixels_60_120"], figures["count_60_120"]) == (pytest.approx(100 / 3), 1)
    assert math.isnan(figures["objects_120_200"]) and figures["count_120_200"] == 0


def test_three_classes_share_the_pixels():
    classes = np.zeros((6, 10), int)
    classes[0, :6] = [1, 1, 1, 2, 3, 3]
    evaluator = ContextEvaluator(context_labels=[1, 2, 3], distributed=False)
    evaluator.process([image((1, (0, 0, 1, 6), 1.0))], [scores(classes)])
    figures = evaluator.evaluate()["context"]
    assert (figures["objects"], figures["pixels"]) == (100, pytest.approx(100 * 3 / 6))
    with pytest.raises(ValueError, match=r"context_labels = \[2, 2\]: give two classes or more"):
        ContextEvaluator(context_labels=[2, 2])


def test_images_add_up_and_reset_forgets():
    right = np.full((6, 10), 3)
    record = image((3, (0, 0, 6, 10), 1.0))
    figures = evaluate((record, right), (record, right - 1), (record, right))
    assert figures["objects"] == pytest.approx(200 / 3) and figures["count"] == 3
    evaluator = ContextEvaluator(context_labels=[2, 3], distributed=False)
    evaluator.process([record], [scores(right)])
    evaluator.reset()
    assert math.isnan(evaluator.evaluate()["context"]["objects"])


OF_TWO_PROCESSES = """
import sys
import numpy as np
import torch
from detectron2.engine import launch
from detectron2.utils import comm

from sgr_d2.engine import run_process
from sgr_d2.evaluation.context_evaluator import ContextEvaluator


def main(folder):
    rank = comm.get_rank()
    evaluator = ContextEvaluator(context_labels=[2, 3])
    truths = [[3], [3, 2, 2]][rank]  # three objects in the second process, one of them right
    for label in truths:
        objects = [{"label": label, "box": (0, 0, 6, 10), "distance": 3.0}]
        record = {"file_name": "a.png", "height": 6, "width": 10, "context_objects": objects}
        evaluator.process([record], [{"sem_seg": torch.eye(4)[torch.full((6, 10), 3)].permute(2, 0, 1)}])
    torch.save(evaluator.evaluate(), f"{folder}/{rank}.pth")


if __name__ == "__main__":
    launch(run_process, 2, dist_url="auto", args=(main, sys.argv[1]))
"""


def test_processes_are_summed(tmp_path):
    first, second = run_two(OF_TWO_PROCESSES, tmp_path)
    assert first["context"]["count"] == 4 and first["context"]["objects"] == pytest.approx(100 * 2 / 4)
    assert not second  # as Detectron2's evaluators


def test_an_object_that_is_not_found_counts_half():
    nothing = np.zeros((5, 7), int)
    figures = evaluate((image((2, (0, 0, 2, 2), 3.0), size=(5, 7)), nothing))
    assert figures["objects"] == 50 and math.isnan(figures["pixels"])
    assert evaluate((image(size=(5, 7)), nothing))["count"] == 0


def test_wrong_input_names_the_file():
    with pytest.raises(ValueError, match=r"a\.png: prediction \(3, 5\); TEST\.FULL_SIZE must be True"):
        evaluate((image(), np.zeros((3, 5), int)))
    with pytest.raises(KeyError, match=r"a\.png: the record has no context_objects"):
        evaluate(({"file_name": "a.png"}, np.zeros((6, 10), int)))


def test_it_is_built_for_the_data_set_at_full_size_only(make_dataset, make_labels, read_png, caplog):
    data = make_dataset(make_labels((4, 5)), context_labels=[1, 2], evaluator_type="shapes_context")
    options = {"read_label": read_png, "components_of": lambda labels: labels, "distributed": False}
    kinds = [{type(e).__name__ for e in evaluators_of(data.name, full_size=size, **options)} for size in (True, False)]
    assert kinds[0] - kinds[1] == {"ContextEvaluator"}
    assert "no accuracy against distance" in caplog.text
    assert MetadataCatalog.get(data.name).context_labels == [1, 2]
