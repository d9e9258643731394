import math
import warnings

import numpy as np
import pytest
import torch

from sgr_d2.evaluation import StreamingSemSegEvaluator


def test_figures_by_hand(make_dataset, read_png, scores_of):
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 255]], dtype=np.uint8)
    predicted = np.array([[0, 0, 1, 0], [0, 2, 1, 0]])
    data = make_dataset([labels])
    evaluator = StreamingSemSegEvaluator(data.name, read_label=read_png)
    evaluator.reset()
    evaluator.process(data.inputs, [{"sem_seg": scores_of(predicted)}])
    figures = evaluator.evaluate()["sem_seg"]
    # road: 3 hit, 1 missed, 1 false; sky: 2 hit, 1 missed; tree is not in the labels. The ignored pixel is free.
    assert figures["IoU-road"] == pytest.approx(100 * 3 / 5)
    assert figures["IoU-sky"] == pytest.approx(100 * 2 / 3)
    assert math.isnan(figures["IoU-tree"])
    assert figures["mIoU"] == pytest.approx(100 * (3 / 5 + 2 / 3) / 2)
    assert figures["fwIoU"] == pytest.approx(100 * (3 / 5 * 4 / 7 + 2 / 3 * 3 / 7))
    assert figures["mACC"] == pytest.approx(100 * (3 / 4 + 2 / 3) / 2)
    assert figures["pACC"] == pytest.approx(100 * 5 / 7)
    assert type(figures.pop("num_images")) is int
    assert all(type(value) is float for value in figures.values())
    assert not any("Boundary" in name or "B-Iou" in name for name in figures)


def test_keeps_no_predictions(make_dataset, make_labels, read_png, scores_of):
    data = make_dataset(make_labels((5, 7), (3, 3), (8, 2)))
    evaluator = StreamingSemSegEvaluator(data.name, read_label=read_png)
    evaluator.reset()
    for image, label in zip(data.inputs, data.labels, strict=True):
        evaluator.process([image], [{"sem_seg": scores_of(label % 3)}])
        assert evaluator._predictions == []
    figures = evaluator.evaluate()["sem_seg"]
    assert figures["mIoU"] == 100.0 and figures["num_images"] == 3
    evaluator.reset()
    assert evaluator.evaluate()["sem_seg"]["num_images"] == 0


def test_no_labelled_pixel_gives_nan_without_a_warning(make_dataset, read_png, scores_of):
    data = make_dataset([np.full((4, 5), 255, np.uint8)])
    evaluator = StreamingSemSegEvaluator(data.name, read_label=read_png)
    evaluator.reset()
    evaluator.process(data.inputs, [{"sem_seg": scores_of(np.zeros((4, 5)))}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = evaluator.evaluate()["sem_seg"]
    assert figures.pop("num_images") == 1
    assert all(math.isnan(value) for value in figures.values())


def test_size_mismatch_names_file_and_both_sizes(make_dataset, make_labels, read_png, scores_of):
    data = make_dataset(make_labels((6, 9)))
    evaluator = StreamingSemSegEvaluator(data.name, read_label=read_png)
    evaluator.reset()
    with pytest.raises(ValueError, match=r"_0\.png.*6x9.*9x6"):
        evaluator.process(data.inputs, [{"sem_seg": scores_of(np.zeros((9, 6)))}])


def test_input_size_resizes_the_labels(make_dataset, read_png, scores_of):
    labels = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    data = make_dataset([labels])
    evaluator = StreamingSemSegEvaluator(data.name, read_label=read_png, full_size=False)
    evaluator.reset()
    evaluator.process(data.inputs, [{"sem_seg": scores_of(labels.repeat(3, axis=0).repeat(2, axis=1))}])
    assert evaluator.evaluate()["sem_seg"]["mIoU"] == 100.0
    assert evaluator._conf_matrix.sum() == 24


@pytest.mark.parametrize("value", [3, 254])
def test_label_outside_the_classes_is_an_error(make_dataset, read_png, scores_of, value):
    data = make_dataset([np.full((4, 4), value, np.uint8)])
    evaluator = StreamingSemSegEvaluator(data.name, read_label=read_png)
    evaluator.reset()
    with pytest.raises(ValueError, match=rf"_0\.png: labels {value} are .*\[0, 3\).*255"):
        evaluator.process(data.inputs, [{"sem_seg": scores_of(np.zeros((4, 4)))}])


def test_colour_label_file_is_an_error(make_dataset, read_png, scores_of):
    data = make_dataset([np.zeros((4, 4, 3), np.uint8)])
    evaluator = StreamingSemSegEvaluator(data.name, read_label=read_png)
    evaluator.reset()
    with pytest.raises(ValueError, match=r"_0\.png.*one channel.*\(4, 4, 3\)"):
        evaluator.process(data.inputs, [{"sem_seg": scores_of(np.zeros((4, 4)))}])


def test_wrong_number_of_scores_is_an_error(make_dataset, make_labels, read_png):
    data = make_dataset(make_labels((4, 4)))
    evaluator = StreamingSemSegEvaluator(data.name, read_label=read_png)
    evaluator.reset()
    with pytest.raises(ValueError, match=r"0\.jpg: the model scores 5 classes.*has 3"):
        evaluator.process(data.inputs, [{"sem_seg": torch.zeros(5, 4, 4)}])


def test_an_output_without_scores_is_an_error(make_dataset, make_labels, read_png):
    data = make_dataset(make_labels((4, 4)))
    evaluator = StreamingSemSegEvaluator(data.name, read_label=read_png)
    evaluator.reset()
    with pytest.raises(ValueError, match=r"0\.jpg: the model returns \['panoptic_seg'\] and no 'sem_seg'"):
        evaluator.process(data.inputs, [{"panoptic_seg": None}])


def test_nan_scores_are_an_error(make_dataset, make_labels, read_png):
    data = make_dataset(make_labels((4, 4)))
    evaluator = StreamingSemSegEvaluator(data.name, read_label=read_png)
    evaluator.reset()
    scores = torch.zeros(3, 4, 4)
    scores[1, 2, 2] = math.nan
    with pytest.raises(ValueError, match=r"0\.jpg: the scores are NaN.*metrics.json"):
        evaluator.process(data.inputs, [{"sem_seg": scores}])


def test_missing_ignore_label_is_an_error(make_dataset, make_labels, read_png):
    data = make_dataset(make_labels((4, 4)), ignore_label=None)
    with pytest.raises(ValueError, match=rf"{data.name}.*'ignore_label'"):
        StreamingSemSegEvaluator(data.name, read_label=read_png)
