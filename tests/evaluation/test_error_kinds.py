"""Kinds of errors: by hand, against a slow reference, and what they add up to."""

import math

import numpy as np
import pytest
from scipy import ndimage

from sgr_d2.data.components import label_components
from sgr_d2.evaluation import ERROR_KINDS, ErrorKindsEvaluator, error_kinds, evaluators_of

IGNORE = 255
SEGMENT, BOUNDARY, ELSEWHERE, ABSENT = 1, 2, 3, 4


def segments_of(labels):
    return label_components(labels, ignore_label=IGNORE, min_area=0, max_components=labels.size).ids


def kinds_of(predicted, truth, radius=1):
    predicted, truth = np.asarray(predicted), np.asarray(truth, np.uint8)
    return error_kinds(predicted, truth, segments_of(truth), ignore_label=IGNORE, radius=radius)


def test_by_hand():
    truth = [[0, 0, 0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 0, 0, 0, 1, 1, IGNORE]]
    # a 3 that is nowhere; a 1 far off and one beside the contour; the only 2 is overlooked; what is ignored is free
    predicted = [[3, 0, 1, 0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 1, 1, 0]]
    expected = [[ABSENT, 0, ELSEWHERE, 0, 0, BOUNDARY, 0, 0, SEGMENT], [0] * 9]
    assert kinds_of(predicted, truth).tolist() == expected
    # a wider contour reaches the 1 that is four columns off; without any, neighbours are elsewhere
    assert kinds_of(predicted, truth, radius=4)[0].tolist() == [ABSENT, 0, BOUNDARY, 0, 0, BOUNDARY, 0, 0, SEGMENT]
    assert kinds_of(predicted, truth, radius=0)[0].tolist() == [ABSENT, 0, ELSEWHERE, 0, 0, ELSEWHERE, 0, 0, SEGMENT]


def test_a_segment_is_lost_if_more_than_half_of_it_is_wrong():
    truth = [[0, 0, 0, 0, IGNORE, 1, 1, 1]]
    assert kinds_of([[1, 1, 0, 0, 0, 0, 0, 1]], truth)[0].tolist() == [ELSEWHERE] * 2 + [0] * 3 + [SEGMENT] * 2 + [0]


def test_pixels_of_no_segment_are_of_the_other_kinds():
    predicted, truth = np.array([[1, 1, 0]]), np.array([[0, 0, 1]])
    found = error_kinds(predicted, truth, np.zeros_like(truth), ignore_label=IGNORE, radius=1)
    assert found.tolist() == [[ELSEWHERE, BOUNDARY, BOUNDARY]]


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (23, 31)])
@pytest.mark.parametrize("radius", [0, 1, 3])
def test_against_a_slow_reference(size, radius):
    rng = np.random.default_rng(radius)
    for _ in range(20):
        truth = rng.choice([0, 0, 0, 1, 1, 2, IGNORE], size).astype(np.uint8)
        predicted = np.where(rng.random(size) < 0.6, np.minimum(truth, 3), rng.integers(0, 4, size))
        expected = np.zeros(size, int)
        for label in np.unique(truth[truth != IGNORE]):
            pieces, number = ndimage.label(truth == label, np.ones((3, 3)))
            for piece in range(1, number + 1):
                wrong = (pieces == piece) & (predicted != truth)
                expected[wrong] = SEGMENT if 2 * wrong.sum() > (pieces == piece).sum() else -1
        for y, x in zip(*np.nonzero(expected == -1), strict=True):
            rows, columns = np.nonzero(truth == predicted[y, x])
            distances = np.maximum(abs(rows - y), abs(columns - x))
            near = distances.size and distances.min() <= radius
            expected[y, x] = BOUNDARY if near else ELSEWHERE if distances.size else ABSENT
        assert np.array_equal(kinds_of(predicted, truth, radius), expected)


@pytest.mark.parametrize("truth", [np.zeros((0, 4), np.uint8), np.full((3, 4), IGNORE, np.uint8)])
def test_nothing_labelled(truth):
    assert not kinds_of(np.zeros(truth.shape, int), truth).any()


def test_maps_of_several_sizes_and_a_negative_radius_are_refused():
    maps = np.zeros((2, 3), int)
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        error_kinds(maps, maps.T, maps, ignore_label=IGNORE, radius=1)
    with pytest.raises(ValueError, match="radius -1"):
        error_kinds(maps, maps, maps, ignore_label=IGNORE, radius=-1)


def evaluate(data, read_png, outputs, **options):
    evaluator = ErrorKindsEvaluator(data.name, read_label=read_png, segments_of=segments_of, **options)
    evaluator.reset()
    evaluator.process(data.inputs, outputs)
    return evaluator.evaluate()


def test_figures_by_hand(make_dataset, read_png, scores_of):
    labels = np.array([[0, 0, 0, 0, 0, 0, 1, 1]], np.uint8)
    data = make_dataset([labels])
    predicted = np.array([[2, 0, 0, 1, 0, 1, 1, 1]])
    figures = evaluate(data, read_png, [{"sem_seg": scores_of(predicted)}], radius=1)["error_kinds"]
    # road: a union of six, of which three are missed; sky: a union of four, of which two are false; no tree is labelled
    assert [figures[f"{kind}-road"] for kind in ERROR_KINDS] == pytest.approx([0, 100 / 6, 100 / 6, 100 / 6])
    assert [figures[f"{kind}-sky"] for kind in ERROR_KINDS] == pytest.approx([0, 25, 25, 0])
    assert all(math.isnan(figures[f"{kind}-tree"]) for kind in ERROR_KINDS)
    assert [figures[kind] for kind in ERROR_KINDS] == pytest.approx([0, 125 / 6, 125 / 6, 50 / 6])
    assert [figures[f"pixels-{kind}"] for kind in ERROR_KINDS] == pytest.approx([0, 12.5, 12.5, 12.5])
    assert all(type(value) is float for value in figures.values())


def test_reset_forgets(make_dataset, read_png, scores_of):
    data = make_dataset([np.array([[0, 0, 0, 0, 0, 0, 1, 1]], np.uint8)])
    evaluator = ErrorKindsEvaluator(data.name, read_label=read_png, segments_of=segments_of)
    found = []
    for predicted in ([2, 0, 0, 1, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1]):
        evaluator.reset()
        evaluator.process(data.inputs, [{"sem_seg": scores_of([predicted])}])
        figures = evaluator.evaluate()["error_kinds"]
        found.append(sum(figures[f"pixels-{kind}"] for kind in ERROR_KINDS))
    assert found == pytest.approx([100 * 3 / 8, 0])


def test_iou_and_what_is_lost_add_up_to_all(make_dataset, make_labels, read_png, scores_of):
    data = make_dataset(make_labels((15, 17), (9, 30), (21, 4)))
    rng = np.random.default_rng(1)
    predicted = [np.where(rng.random(x.shape) < 0.7, x, rng.integers(0, 3, x.shape)) % 3 for x in data.labels]
    results = evaluate(data, read_png, [{"sem_seg": scores_of(x)} for x in predicted], radius=1)
    sem_seg, errors = results["sem_seg"], results["error_kinds"]
    assert errors["segment"] > 0 and errors["boundary"] > 0 and errors["elsewhere"] > 0
    assert sem_seg["mIoU"] + sum(errors[kind] for kind in ERROR_KINDS) == pytest.approx(100)
    for name in ("road", "sky", "tree"):
        assert sem_seg[f"IoU-{name}"] + sum(errors[f"{kind}-{name}"] for kind in ERROR_KINDS) == pytest.approx(100)
    assert sem_seg["pACC"] + sum(errors[f"pixels-{kind}"] for kind in ERROR_KINDS) == pytest.approx(100)


def test_no_labelled_pixel_gives_nan(make_dataset, read_png, scores_of):
    data = make_dataset([np.full((4, 5), IGNORE, np.uint8)])
    figures = evaluate(data, read_png, [{"sem_seg": scores_of(np.zeros((4, 5)))}])["error_kinds"]
    assert all(math.isnan(value) for value in figures.values())


def test_only_where_segments_are_given(make_dataset, make_labels, read_png):
    data = make_dataset(make_labels((4, 4)))
    options = {"read_label": read_png, "components_of": lambda labels, instances=None: segments_of(labels)}
    without, _ = evaluators_of(data.name, **options)
    with_kinds, _ = evaluators_of(data.name, **options, segments_of=segments_of, error_radius=2)
    assert not isinstance(without, ErrorKindsEvaluator)
    assert isinstance(with_kinds, ErrorKindsEvaluator) and with_kinds.radius == 2
