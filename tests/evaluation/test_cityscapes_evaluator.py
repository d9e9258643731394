"""Cityscapes' official metrics: against Detectron2's evaluator, by hand, over processes, without the package."""

import logging
import math
import pickle
import sys

import miniatures
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators
from PIL import Image

from sgr_d2.evaluation import CityscapesEvaluator, check_truth, cityscapes_script, evaluators_of, format_table
from sgr_d2.evaluation.cityscapes_evaluator import CityscapesTotals
from sgr_d2.structures import ImageTokens

pytest.importorskip("cityscapesscripts")
NAMES = (
    "road sidewalk building wall fence pole traffic_light traffic_sign vegetation terrain sky person rider car truck "
    "bus train motorcycle bicycle"
).replace("_", "~")
CLASSES = [name.replace("~", " ") for name in NAMES.split()]


def streets(root, count=4):
    """The inputs of ``count`` images of a miniature, and predictions that are right in about three quarters."""
    folder = miniatures.cityscapes(root, train=0, val=count)
    inputs, outputs = [], []
    for index, path in enumerate(sorted((folder / "leftImg8bit/val").rglob("*.png"))):
        stem = str(path).replace("leftImg8bit/val", "gtFine/val").removesuffix("_leftImg8bit.png")
        inputs.append({"file_name": str(path), "instance_file_name": f"{stem}_gtFine_instanceIds.png"})
        ids = np.array(Image.open(f"{stem}_gtFine_labelIds.png"))
        order = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
        truth = np.array([order.index(value) if value in order else 0 for value in range(34)])[ids]
        rng = np.random.default_rng(index)
        noise = np.kron(rng.random((18, 24)) < 0.25, np.ones((4, 4), bool))
        predicted = np.where(noise, rng.integers(0, 19, truth.shape), truth)
        outputs.append({"sem_seg": torch.nn.functional.one_hot(torch.from_numpy(predicted), 19).permute(2, 0, 1)})
    return inputs, outputs


def run(inputs, outputs, **options):
    evaluator = CityscapesEvaluator(class_names=CLASSES, **options)
    evaluator.reset()
    for image, output in zip(inputs, outputs, strict=True):
        evaluator.process([image], [output])
    return evaluator.evaluate()


def test_equals_detectron2s_evaluator(tmp_path):
    from detectron2.evaluation import CityscapesSemSegEvaluator

    inputs, outputs = streets(tmp_path)
    name = "cityscapes_of_this_test"
    MetadataCatalog.get(name).set(gt_dir=str(tmp_path / "cityscapes/gtFine/val"))
    try:
        cityscapes_script.CityscapesScript()  # mends the official script for new numpy
        reference = CityscapesSemSegEvaluator(name)
        reference.reset()
        reference.process(inputs, outputs)
        expected = reference.evaluate()["sem_seg"]
    finally:
        MetadataCatalog.remove(name)
    found = run(inputs, outputs)["cityscapes"]
    assert expected == pytest.approx({key: found[key] for key in expected}, rel=1e-12, nan_ok=True)
    assert 20 < found["IoU"] < 100
    assert 20 < found["iIoU"] < 100


def write_truth(tmp_path, label_ids, instance_ids):
    paths = {}
    for kind, array in (("labelIds", np.uint8(label_ids)), ("instanceIds", np.uint16(instance_ids))):
        paths[kind] = tmp_path / f"town_000000_000019_gtFine_{kind}.png"
        Image.fromarray(array).save(paths[kind])
    return {"file_name": "town.png", "instance_file_name": str(paths["instanceIds"])}


def test_by_hand(tmp_path):
    # road (7) on the left, a small and a large person (24), one pixel out of the region of interest (3)
    label_ids = [[7, 7, 24, 24], [7, 7, 24, 24], [7, 3, 24, 24]]
    image = write_truth(tmp_path, label_ids, [[7, 7, 24001, 24002], [7, 7, 24002, 24002], [7, 3, 24002, 24002]])
    predicted = np.array([[0, 0, 0, 11], [0, 11, 11, 11], [0, 0, 11, 0]])
    scores = torch.from_numpy(np.eye(19)[predicted]).permute(2, 0, 1)
    figures = run([image], [{"sem_seg": scores}])["cityscapes"]
    # road: 4 hit, 1 missed, 2 false. person: 4 hit, 2 missed, 1 false. Ignored pixels are free.
    assert figures["IoU-road"] == pytest.approx(100 * 4 / 7)
    assert figures["IoU-person"] == pytest.approx(100 * 4 / 7)
    assert figures["IoU"] == pytest.approx(100 * 4 / 7)
    # each person weighs as the average one (3462.48 pixels); the small one is missed, 4 of the other's 5 pixels are hit
    weight = 3462.4756337644
    assert figures["iIoU-person"] == pytest.approx(100 * 0.8 * weight / (2 * weight + 1))
    assert figures["iIoU"] == figures["iIoU-person"]
    assert "iIoU-road" not in figures
    assert math.isnan(figures["IoU-sky"])


def test_merged_totals_equal_those_of_one_pass_bit_for_bit(tmp_path):
    inputs, outputs = streets(tmp_path)
    parts = []
    for chosen in ([3, 0], [2], [1]):
        evaluator = CityscapesEvaluator(class_names=CLASSES, distributed=False)
        evaluator.process([inputs[i] for i in chosen], [outputs[i] for i in chosen])
        parts.append(pickle.loads(pickle.dumps(evaluator._totals)))
    total = CityscapesTotals()
    for part in [CityscapesTotals(), *parts]:
        total.merge(part)
    assert total.num_images == 4
    assert str(total.scores(cityscapes_script.CityscapesScript())) == str(run(inputs, outputs)["cityscapes"])


def test_no_image_gives_an_empty_result():
    assert run([], []) == {}


def test_an_image_without_instance_ids(tmp_path):
    inputs, outputs = streets(tmp_path, 1)
    del inputs[0]["instance_file_name"]
    with pytest.raises(ValueError, match=r"frankfurt.*_leftImg8bit\.png: .* need its \*_gtFine_instanceIds\.png"):
        run(inputs, outputs)


@pytest.mark.parametrize("kind", ["instanceIds", "labelIds"])
def test_missing_files_of_the_official_metrics_are_told_before_the_training(tmp_path, kind, monkeypatch, caplog):
    inputs, _ = streets(tmp_path, 2)
    name = "cityscapes_with_gaps"
    MetadataCatalog.get(name).set(evaluator_type="cityscapes_sem_seg")
    try:
        check_truth(name, inputs, full_size=True)
        (next((tmp_path / "cityscapes/gtFine/val").rglob(f"munster*_{kind}.png"))).unlink()
        if kind == "instanceIds":
            del inputs[1]["instance_file_name"]
        message = rf"{name}: 1 of 2 images have no \*_gtFine_instanceIds.*munster.*both\. Unpack .*FULL_SIZE False"
        with pytest.raises(ValueError, match=message):
            check_truth(name, inputs, full_size=True)
        check_truth(name, inputs, full_size=False)
        monkeypatch.setitem(sys.modules, "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling", None)
        cityscapes_script._load.cache_clear()
        check_truth(name, inputs, full_size=True)
    finally:
        cityscapes_script._load.cache_clear()
        MetadataCatalog.remove(name)


def test_what_the_official_code_refuses_names_the_file(tmp_path, capsys):
    inputs, outputs = streets(tmp_path, 1)
    with pytest.raises(ValueError, match=r"_gtFine_labelIds\.png: ERROR: Image heights of .* are not equal"):
        run(inputs, [{"sem_seg": outputs[0]["sem_seg"][:, 1:]}])
    with pytest.raises(ValueError, match=r"_gtFine_labelIds\.png: ERROR: Unable to load"):
        run([{**inputs[0], "instance_file_name": str(tmp_path / "x_gtFine_instanceIds.png")}], outputs)
    assert capsys.readouterr().out == ""


def test_classes_that_cityscapes_does_not_have():
    with pytest.raises(ValueError, match="Cityscapes has no class soil, crop;"):
        CityscapesEvaluator(class_names=["road", "soil", "crop"])


@pytest.fixture
def street_set(tmp_path):
    """A registered miniature with train ids: its name, inputs and outputs."""
    inputs, outputs = streets(tmp_path, 2)
    miniatures.prepare(tmp_path, "cityscapes")
    name = "streets_of_this_test"
    suffixes = ("_instanceIds.png", "_labelTrainIds.png")
    records = [{**r, "sem_seg_file_name": r["instance_file_name"].replace(*suffixes)} for r in inputs]
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(stuff_classes=CLASSES, ignore_label=255, evaluator_type="cityscapes_sem_seg")
    yield name, records, outputs
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def build(name, **options):
    evaluators = evaluators_of(
        name,
        read_label=lambda path: np.array(Image.open(path)),
        read_instances=lambda path: np.array(Image.open(path)).astype(np.int32),
        components_of=lambda labels, instances: instances,
        **options,
    )
    evaluator = DatasetEvaluators(evaluators)
    evaluator.reset()
    return evaluator


def test_segmentation_official_and_token_figures_in_one_pass(street_set):
    name, inputs, outputs = street_set
    evaluator = build(name)
    for image, output in zip(inputs, outputs, strict=True):
        tokens = ImageTokens(torch.ones(4, 9, 12), torch.zeros(4, 2), (9.0, 12.0))
        evaluator.process([image], [{**output, "sgr": tokens}])
    results = evaluator.evaluate()
    assert list(results) == ["sem_seg", "token_semantics", "cityscapes"]
    # The official mean also counts classes that are predicted and not in the labels, as 0.
    occurring = {key for key, value in results["sem_seg"].items() if key.startswith("IoU-") and not math.isnan(value)}
    assert len(occurring) > 5
    for key in occurring:
        assert results["cityscapes"][key] == pytest.approx(results["sem_seg"][key], rel=1e-12)
    # uniform regions: D_I is the entropy of the instance ids themselves
    expected = []
    for image in inputs:
        pixels = np.unique(np.array(Image.open(image["instance_file_name"])), return_counts=True)[1]
        shares = pixels / pixels.sum()
        expected.append(-(shares * np.log(shares)).sum())
    assert results["token_semantics"]["D_I"] == pytest.approx(np.mean(expected), rel=1e-3)
    table = format_table(results, CLASSES)
    assert f"{results['cityscapes']['iIoU']:.2f}" in table
    assert "official" in table


def test_without_the_package_all_but_the_official_figures(street_set, monkeypatch, caplog):
    name, inputs, outputs = street_set
    monkeypatch.setitem(sys.modules, "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling", None)
    cityscapes_script._load.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            evaluator = build(name)
        evaluator.process(inputs, outputs)
        assert list(evaluator.evaluate()) == ["sem_seg"]
        assert "no official IoU and iIoU." in caplog.text
        assert "pip install cityscapesscripts" in caplog.text
    finally:
        cityscapes_script._load.cache_clear()


def test_at_input_size_all_but_the_official_figures(street_set, caplog):
    name, inputs, outputs = street_set
    evaluator = build(name, full_size=False)
    assert "TEST.FULL_SIZE is False: no official Cityscapes metrics" in caplog.text
    evaluator.process(inputs, [{"sem_seg": output["sem_seg"][:, ::2, ::2]} for output in outputs])
    assert list(evaluator.evaluate()) == ["sem_seg"]


def _rank(rank, address, inputs, outputs, results):
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    results[rank] = run(inputs[1 - rank :: 2], outputs[1 - rank :: 2])
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_give_exactly_the_figures_of_one(tmp_path):
    inputs, outputs = streets(tmp_path, 3)
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(_rank, args=(f"file://{tmp_path / 'rendezvous'}", inputs, outputs, results), nprocs=2)
        assert results[1] is None
        assert str(results[0]) == str(run(inputs, outputs))
