from functools import partial

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from sgr_d2.data.components import label_components
from sgr_d2.data.datasets import load_image_label_folder, metadata_of, register_semantic
from sgr_d2.engine import Trainer, evaluate, load_config
from sgr_d2.engine.evaluate import check_evaluation
from sgr_d2.engine.semantic import build_semantic_evaluators
from sgr_d2.evaluation import token_semantics
from sgr_d2.structures import ImageTokens


@pytest.mark.parametrize("with_instances", [False, True])
def test_tokens_are_measured_by_the_keys_of_the_config(config_file, tmp_path, monkeypatch, with_instances):
    name, limits = "scenes_val", {"min_area": 8, "max_components": 2}
    options = [text for key, value in limits.items() for text in (f"INPUT.COMPONENTS.{key.upper()}", str(value))]
    cfg = load_config(str(config_file), [*options, "TEST.TOKEN_SEMANTICS.MIN_MASS", "0.2"])
    monkeypatch.setattr(MetadataCatalog.get(name), "first_instance_id", 1000, raising=False)
    record, instances = dict(DatasetCatalog.get(name)[0]), None
    labels = cv2.imread(record["sem_seg_file_name"], cv2.IMREAD_UNCHANGED)
    if with_instances:
        ids = np.full(labels.shape, 7, np.uint16)  # a group, below the first id of an instance
        ids[10:40, 10:30], ids[10:40, 30:60] = 1001, 1002
        record["instance_file_name"] = str(tmp_path / "instances.png")
        cv2.imwrite(record["instance_file_name"], ids)
        instances = np.where(ids >= 1000, ids, 0).astype(np.int32)
    regions = torch.rand(6, 9, 12, generator=torch.Generator().manual_seed(0))
    regions[0] *= 0.1  # inactive at this share, active at the usual one
    output = {"sem_seg": torch.zeros(3, *labels.shape), "sgr": ImageTokens(regions, torch.zeros(6, 2), (9.0, 12.0))}
    evaluators = build_semantic_evaluators(cfg, name, metadata_of([name]))
    evaluators.reset()
    evaluators.process([record], [output])
    figures = evaluators.evaluate()["token_semantics"]
    components = label_components(labels, ignore_label=255, **limits, instances=instances).ids
    measure = partial(token_semantics, regions, min_mass=0.2)
    assert figures["active_rate"] == 5 / 6
    for kind, expected in (("C", measure(labels, ignore_label=255)), ("I", measure(components, ignore_label=0))):
        assert (figures[f"S_{kind}"], figures[f"D_{kind}"]) == (expected.S, expected.D)


def test_labels_are_mapped_by_their_records(config_file, tmp_path):
    """Of a data set that is registered without LABEL_MAP, by records that have one, as in training."""
    labels = np.repeat(np.arange(3), 8)[None].repeat(6, 0)  # (6, 24)
    folders = [tmp_path / "images", tmp_path / "labels"]
    for folder in folders:
        folder.mkdir()
        cv2.imwrite(str(folder / "a.png"), (labels + 1).astype(np.uint8))
    load = partial(load_image_label_folder, *folders, label_map=[255, 0, 1, 2])
    options = {"owner": "test", "classes": ["left", "right", "disc"]}
    register_semantic("counted_from_1", load, **options, image_root=folders[0], sem_seg_root=folders[1])
    try:
        evaluators = build_semantic_evaluators(
            load_config(str(config_file)), "counted_from_1", metadata_of(["counted_from_1"])
        )
    finally:
        DatasetCatalog.remove("counted_from_1")
        MetadataCatalog.remove("counted_from_1")
    scores = torch.nn.functional.one_hot(torch.from_numpy(labels), 3).permute(2, 0, 1)
    evaluators.reset()
    evaluators.process(load(), [{"sem_seg": scores.float()}])
    assert evaluators.evaluate()["sem_seg"]["mIoU"] == 100


def test_kinds_of_errors_are_figures_and_a_picture(config_file, tmp_path):
    cfg = load_config(
        str(config_file), ["TEST.ERROR_KINDS.ENABLED", "True", "OUTPUT_DIR", str(tmp_path), "MODEL.DEVICE", "cpu"]
    )
    results = evaluate(cfg, Trainer.build_model(cfg).eval(), "scenes_val")
    lost = [results["error_kinds"][kind] for kind in ("segment", "boundary", "elsewhere", "absent")]
    assert sum(lost) + results["sem_seg"]["mIoU"] == pytest.approx(100)
    assert cv2.imread(str(tmp_path / "evaluation/scenes_val/error_kinds.png")) is not None


def test_a_negative_radius_is_refused_before_training(config_file):
    cfg = load_config(str(config_file), ["TEST.ERROR_KINDS.RADIUS", "-1", "MODEL.DEVICE", "cpu"])
    with pytest.raises(ValueError, match=r"TEST\.ERROR_KINDS\.RADIUS = -1"):
        check_evaluation(cfg, Trainer.build_model(cfg))
