import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from sgr_d2.evaluation import TokenSemanticsEvaluator, token_semantics
from sgr_d2.structures import ImageTokens

NUM_IMAGES = 5


def stripes(labels):
    """A stand-in for components: class and half of the image, ignored pixels and class 2 are 0."""
    half = np.arange(labels.shape[1]) >= labels.shape[1] // 2
    return np.where(labels >= 2, 0, 1 + labels + 2 * half).astype(np.int32)


def label_of(path):
    rng = np.random.default_rng(int(path))
    return rng.choice([0, 1, 2, 255], (11 + int(path), 14)).astype(np.uint8)


def output_of(path):
    generator = torch.Generator().manual_seed(int(path))
    regions = torch.rand(6, 4, 5, generator=generator)
    return {"sem_seg": torch.zeros(3, 8, 10), "sgr": ImageTokens(regions, torch.zeros(6, 2), (3.5, 4.75))}


def make_evaluator(**changes):
    arguments = {
        "maps_of": lambda image: (label_of(image["file_name"].removesuffix(".jpg")), None),
        "components_of": stripes,
        "num_classes": 3,
        "ignore_label": 255,
    }
    return TokenSemanticsEvaluator(**{**arguments, **changes})


def run(evaluator, indices):
    evaluator.reset()
    for index in indices:
        evaluator.process([{"file_name": f"{index}.jpg"}], [output_of(str(index))])
    return evaluator.evaluate()


def test_equals_the_plain_function_over_images():
    figures = run(make_evaluator(), range(NUM_IMAGES))["token_semantics"]
    classes, components = [], []
    for path in map(str, range(NUM_IMAGES)):
        tokens, labels = output_of(path)["sgr"], label_of(path)
        classes.append(token_semantics(tokens.regions, labels, ignore_label=255, extent=tokens.extent))
        components.append(token_semantics(tokens.regions, stripes(labels), ignore_label=0, extent=tokens.extent))
    assert figures["S_C"] == pytest.approx(np.mean([r.S for r in classes]), rel=1e-12)
    assert figures["D_I"] == pytest.approx(np.mean([r.D for r in components]), rel=1e-12)
    assert figures["I_I_normalized"] == pytest.approx(np.mean([r.normalized()[2] for r in components]), rel=1e-12)
    assert figures["active_rate"] == 1.0
    assert figures["num_images"] == NUM_IMAGES
    assert all(type(value) in (float, int) for value in figures.values())


def test_a_batch_equals_its_images_and_reset_forgets():
    evaluator = make_evaluator()
    run(evaluator, [0, 1])
    evaluator.reset()
    evaluator.process([{"file_name": "2.jpg"}, {"file_name": "3.jpg"}], [output_of("2"), output_of("3")])
    assert evaluator.evaluate() == run(evaluator, [2, 3])


def test_outputs_without_tokens_give_an_empty_result():
    evaluator = make_evaluator()
    evaluator.process([{"file_name": "0.jpg"}], [{"sem_seg": torch.zeros(3, 8, 10)}])
    assert evaluator.evaluate() == {}


def test_input_size_measures_resized_labels():
    labels = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    regions = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0))
    output = {"sem_seg": torch.zeros(3, 1, 1), "sgr": ImageTokens(regions, torch.zeros(3, 2), (2.0, 2.0))}
    evaluator = make_evaluator(maps_of=lambda _: (labels, None), full_size=False)
    evaluator.process([{"file_name": "0.jpg"}], [output])
    # At one pixel only one class is left.
    assert evaluator.evaluate()["token_semantics"]["num_single_label_C"] == 1


def test_components_of_ignored_classes_only_are_counted_not_averaged():
    evaluator = make_evaluator(maps_of=lambda _: (np.full((6, 6), 2, np.uint8), None))
    figures = run(evaluator, [0, 1])["token_semantics"]
    assert figures["S_C"] == 0.0 and math.isnan(figures["S_I"])
    assert figures["num_unlabelled_I"] == 2


def test_bad_labels_name_the_image():
    evaluator = make_evaluator(maps_of=lambda _: (np.full((6, 6), 17, np.uint8), None))
    with pytest.raises(ValueError, match=r"0\.jpg: labels 17 are neither"):
        run(evaluator, [0])


def test_bad_regions_name_the_image():
    output = {"sgr": ImageTokens(torch.full((2, 3, 3), math.nan), torch.zeros(2, 2), (3.0, 3.0))}
    with pytest.raises(ValueError, match=r"1\.jpg: regions must be finite"):
        make_evaluator().process([{"file_name": "1.jpg"}], [output])


def _rank(rank, address, results):
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    # 3 + 2 images, in an order of their own.
    results[rank] = run(make_evaluator(), [[4, 0, 2], [3, 1]][rank])
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_give_exactly_the_figures_of_one(tmp_path):
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_rank, args=(f"file://{tmp_path / 'rendezvous'}", results), nprocs=2)
        assert results[1] is None
        assert results[0] == run(make_evaluator(), range(NUM_IMAGES))
