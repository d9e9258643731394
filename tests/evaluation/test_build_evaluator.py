import numpy as np
import pytest
import torch
from detectron2.evaluation import DatasetEvaluators

from sgr_d2.evaluation import EVALUATORS, evaluators_of
from sgr_d2.structures import ImageTokens


def test_both_evaluators_in_one_pass_read_each_file_once(make_dataset, make_labels, read_png, scores_of):
    data = make_dataset(make_labels((9, 12), (7, 5), (6, 6)))
    reads = []

    def read(path):
        reads.append(path)
        return read_png(path)

    def components_of(labels):
        assert not labels.flags.writeable  # it is shared
        return (labels == 0).astype(np.int32)

    evaluator = DatasetEvaluators(evaluators_of(data.name, read_label=read, components_of=components_of))
    evaluator.reset()
    for image, label in zip(data.inputs, data.labels, strict=True):
        tokens = ImageTokens(torch.ones(4, 3, 3), torch.zeros(4, 2), (3.0, 2.5))
        evaluator.process([image], [{"sem_seg": scores_of(label % 3), "sgr": tokens}])
    results = evaluator.evaluate()
    assert len(reads) == len(set(reads)) == 3
    # The segmentation evaluator marks ignored pixels in its own copy, so the token metrics still see label 255.
    assert results["sem_seg"]["mIoU"] == 100.0
    assert results["token_semantics"]["num_images"] == 3
    assert results["token_semantics"]["I_C"] == pytest.approx(0.0, abs=1e-12)
    assert results["token_semantics"]["D_C"] > 0.5


def test_baseline_has_segmentation_figures_only(make_dataset, make_labels, read_png, scores_of):
    data = make_dataset(make_labels((5, 5)))
    evaluator = DatasetEvaluators(evaluators_of(data.name, read_label=read_png, components_of=np.zeros_like))
    evaluator.reset()
    evaluator.process(data.inputs, [{"sem_seg": scores_of(data.labels[0] % 3)}])
    assert list(evaluator.evaluate()) == ["sem_seg"]


@pytest.mark.parametrize("kind", ["coco", None])
def test_unknown_type_lists_the_choices(make_dataset, kind):
    name = make_dataset([], evaluator_type=kind).name
    with pytest.raises(ValueError, match=rf"'{name}': unknown evaluator_type {kind!r}.*{sorted(EVALUATORS)[-1]}"):
        evaluators_of(name, read_label=None, components_of=None)
