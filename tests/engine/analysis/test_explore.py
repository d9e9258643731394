"""The explorer of a trained model holds the figures of an evaluation."""

import base64
import json
import logging
import re

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from toy_processes import train_net

from sgr_d2.data.components import ComponentLimits
from sgr_d2.data.datasets import get_dataset_records
from sgr_d2.engine import ExploreSettings, NamedModel, SGRPredictor, evaluate, explore, load_config


def content(path):
    return json.loads(re.fullmatch(r'explorer\.receive\("[^"]+",(.*)\);\n', path.read_text(encoding="utf-8"), re.S)[1])


@pytest.fixture(scope="module")
def predictor(trained):
    return SGRPredictor.from_checkpoint(trained.checkpoint, device="cpu")


def test_classes_that_one_image_lacks_are_no_warning(predictor, tmp_path, caplog):
    """Each of two images lacks a class that the other one has."""
    records = [dict(record) for record in get_dataset_records("scenes_val")[:2]]
    for label, record in enumerate(records):
        labels = cv2.imread(record["sem_seg_file_name"], cv2.IMREAD_UNCHANGED)
        record["sem_seg_file_name"] = str(tmp_path / f"{label}.png")
        cv2.imwrite(record["sem_seg_file_name"], np.where(labels == label, 255, labels))
    models = [NamedModel("run", "model.pth", predictor)]
    logger = logging.getLogger("sgr_d2.evaluation.sem_seg_evaluator")
    logger.addHandler(caplog.handler)  # setup_logger ends propagation
    explore(models, records, tmp_path / "out", title="t", dataset_name="scenes_val")
    logger.removeHandler(caplog.handler)
    assert "no pixel is labelled" not in caplog.text


def test_figures_are_those_of_an_evaluation(trained, predictor, tmp_path):
    cfg = load_config(str(trained.config), ["OUTPUT_DIR", str(tmp_path / "evaluated")])
    expected = evaluate(cfg, predictor.model, "scenes_val")
    limits = ComponentLimits.from_config(cfg, is_train=False)
    settings = ExploreSettings(cfg.TEST.TOKEN_SEMANTICS.MIN_MASS, limits)
    records = get_dataset_records("scenes_val")
    model = NamedModel("run", "model.pth", predictor)
    explore([model], records, tmp_path / "out", title="t", dataset_name="scenes_val", settings=settings)
    index = content(tmp_path / "out/data/index.js")
    (run,) = index["runs"]
    figures = {**expected["sem_seg"], **expected["token_semantics"]}
    for name in ("mIoU", "pACC", "S_C", "S_I", "D_C", "D_I", "active_rate"):
        assert run["figures"][name] == pytest.approx(figures[name], rel=1e-3), name
    # over all images they are the means of the images' own
    assert run["figures"]["S_C"] == pytest.approx(np.mean([figures["S_C"] for figures in run["images"]]), rel=1e-3)
    assert len(run["images"]) == len(index["images"]) == 5 and index["images"][0]["truth"]
    assert run["tokens"] == 6 and run["attention"]["layers"] == 1
    active = np.array(run["active"]) > 0
    assert np.sum(run["histogram"], axis=1)[active] == pytest.approx(1, abs=1e-3)
    assert (tmp_path / "out/data/run0/token5.js").is_file()


@pytest.mark.parametrize("shown", [1, 2])
def test_records_without_labels_are_told(predictor, tmp_path, shown):
    """Also that of an image which is not among those to show."""
    records = [dict(record) for record in get_dataset_records("scenes_val")[:2]]
    del records[1]["sem_seg_file_name"]
    DatasetCatalog.register("scenes_bare", lambda: records)
    MetadataCatalog.get("scenes_bare").set(**MetadataCatalog.get("scenes_val").as_dict() | {"name": "scenes_bare"})
    models = [NamedModel("run", "", predictor)]
    try:
        with pytest.raises(ValueError, match=r"scenes_bare: 1 records have no sem_seg_file_name.*\(no dataset_name"):
            explore(models, records[:shown], tmp_path / "out", title="t", dataset_name="scenes_bare")
    finally:
        DatasetCatalog.remove("scenes_bare")
        MetadataCatalog.remove("scenes_bare")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"scenes_val: 1 records have no sem_seg_file_name"):
        explore(models, records, tmp_path / "out", title="t", dataset_name="scenes_val")


def test_without_truth_classes_are_the_predicted_ones(predictor, scenes, tmp_path):
    records = [{"file_name": str(path)} for path in sorted((scenes / "val/images").glob("*.png"))[:2]]
    explore([NamedModel("run", "", predictor)], records, tmp_path, title="t")
    index = content(tmp_path / "data/index.js")
    figures = index["runs"][0]["figures"]
    assert not index["hasTruth"] and "mIoU" not in figures and figures["D_C"] >= figures["S_C"] >= 0
    labels = predictor(records[0]["file_name"]).labels
    means = {entry[2] for entry in content(tmp_path / "data/run0/0000.js")["tokens"]}
    assert means <= set(np.unique(labels).tolist())
    assert not (tmp_path / "data/truth").exists()


def test_tokens_of_places_are_not_shown(trained, scenes, tmp_path):
    train_net(trained.config, tmp_path / "run", "SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()", "MODEL.SGR.NUM_PLACES", 3)
    predictor = SGRPredictor.from_checkpoint(tmp_path / "run/model_final.pth", device="cpu")
    assert predictor.model.sgr.places.centres.shape == (3, 2)
    explore([NamedModel("", "", predictor)], [{"file_name": str(scenes / "val/images/009.png")}], tmp_path, title="t")
    (run,) = content(tmp_path / "data/index.js")["runs"]
    assert run["tokens"] == 6 and run["attention"]["layers"] == 1
    assert len(base64.b64decode(content(tmp_path / "data/run0/0000.js")["attention"]["bytes"])) == 6 * 6


def test_a_model_without_tokens_comes_second_only(plain_checkpoint, predictor, scenes, tmp_path):
    baseline = SGRPredictor.from_checkpoint(plain_checkpoint, device="cpu")
    records = [{"file_name": str(scenes / "val/images/009.png")}]
    models = [NamedModel("with", "", predictor), NamedModel("without", "", baseline)]
    explore(models, records, tmp_path, title="t")
    assert [run["tokens"] for run in content(tmp_path / "data/index.js")["runs"]] == [6, 0]
    with pytest.raises(ValueError, match=r"The first model has no SGR"):
        explore(models[::-1], records, tmp_path / "b", title="t")
    with pytest.raises(ValueError, match=r"no image to explore"):
        explore(models, [], tmp_path / "b", title="t")
    other = SGRPredictor(model=predictor.model, metadata=predictor.metadata._replace(classes=["a", "b", "c"]))
    with pytest.raises(ValueError, match=r"x and y have different classes"):
        explore([NamedModel("x", "", predictor), NamedModel("y", "", other)], records, tmp_path / "b", title="t")
