"""Real training of a small detector on generated instances: losses, metrics, pictures, resume, data that is poor."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pycocotools.mask as rle
import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BitMasks, Instances
from toy_detectors import detector_cfg, make_records
from toy_processes import run_program

import train_net
from sgr_d2.config import get_sgr_cfg
from sgr_d2.data.components import ComponentLimits
from sgr_d2.data.datasets import register_all, register_things
from sgr_d2.data.instance_maps import NO_INSTANCE
from sgr_d2.engine import load_config
from sgr_d2.engine.instance_truth import Truth
from sgr_d2.engine.tasks import DETECTION, SEMANTIC, task_of
from sgr_d2.structures import ImageTokens

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import diagnose

ROOT = Path(__file__).parents[2]
CLASSES = ["red", "green"]


@pytest.fixture
def records(tmp_path):
    (tmp_path / "images").mkdir()
    return make_records(tmp_path / "images", 6)


@pytest.fixture
def config_file(records, tmp_path):
    """A yaml of a small Mask R-CNN with SGR; data sets toy_things_train, toy_things_val on ``records``."""
    names = ["toy_things_train", "toy_things_val"]
    for name in names:
        register_things(name, lambda: records, owner="test", classes=CLASSES, image_root=str(tmp_path))
    cfg = detector_cfg()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = 80
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = cfg.MODEL.POINT_HEAD.NUM_CLASSES = 0
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_STD = [127.5] * 3
    model = yaml.safe_load(cfg.MODEL.dump())
    path = tmp_path / "toy.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "VERSION": 2,
                "SEED": 3,
                "OUTPUT_DIR": str(tmp_path / "output"),
                "DATASETS": {"TRAIN": names[:1], "TEST": names[1:]},
                "DATALOADER": {"NUM_WORKERS": 0},
                "INPUT": {"FORMAT": "RGB", "MIN_SIZE_TRAIN": [72], "MIN_SIZE_TEST": 0, "COMPONENTS": {"MIN_AREA": 16}},
                "MODEL": model,
                "SOLVER": {"OPTIMIZER": "ADAMW", "BASE_LR": 1e-3, "IMS_PER_BATCH": 2, "MAX_ITER": 4, "WARMUP_ITERS": 0},
                "TEST": {"BEST_METRIC": "segm/AP"},
            }
        )
    )
    yield path
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def run(config_file, *opts, **flags):
    args = {"eval_only": False, "resume": False, "num_gpus": 0, **flags}
    return train_net.main(SimpleNamespace(config_file=str(config_file), opts=[str(o) for o in opts], **args))


def test_training_evaluates_resumes_and_draws(config_file, tmp_path, capsys):
    output = tmp_path / "output"
    whole = run(config_file, "TEST.NUM_PICTURES", 2, "SOLVER.CHECKPOINT_PERIOD", 2)
    rows = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    losses = {"loss_rpn_cls", "loss_box_reg", "loss_mask", "loss_component", "loss_diversity"}
    assert losses <= set(rows[0]) and rows[0]["loss_component"] > 0
    written = json.loads((output / "evaluation/toy_things_val/metrics.json").read_text())
    assert set(written) == {"bbox", "segm", "token_semantics"}
    assert {"S_C", "S_I", "D_C", "D_I"} <= set(written["token_semantics"])
    assert written["token_semantics"]["num_unlabelled_C"] == 1  # the image without instances
    pictures = sorted((output / "evaluation/toy_things_val/pictures").glob("*.png"))
    assert len(pictures) == 2 and cv2.imread(str(pictures[0])).shape[1] > 900
    expected = torch.load(output / "model_final.pth", weights_only=True)["model"]
    # on from the middle, and an evaluation alone
    (output / "last_checkpoint").write_text("model_0000001.pth")
    run(config_file, resume=True)
    resumed = torch.load(output / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)
    again = run(config_file, "MODEL.WEIGHTS", output / "model_final.pth", eval_only=True)
    assert json.dumps(again) == json.dumps(whole)
    # what its tokens do
    command = ["--config-file", config_file, "--weights", output / "model_final.pth", "--batches", 1]
    assert diagnose.main([str(a) for a in [*command, "--output", tmp_path / "diagnosis"]]) == 0
    assert "| segm/AP" in capsys.readouterr().out
    figures = json.loads((tmp_path / "diagnosis/diagnosis.json").read_text())["evaluation"]["toy_things_val"]
    assert figures["with_tokens"]["bbox/AP"] == pytest.approx(whole["bbox"]["AP"])
    # COCO's evaluation takes the images without a prediction for missed
    assert diagnose.main([str(a) for a in [*command, "--output", tmp_path / "diagnosis", "--max-images", 1]]) == 2
    assert "--max-images: COCO's metrics are those of whole data sets" in capsys.readouterr().err


TWO_RANKS = """
import json, sys
from types import SimpleNamespace
from detectron2.engine import launch
from detectron2.structures import BoxMode
import train_net
from sgr_d2.data.datasets import register_things
from sgr_d2.engine import run_process

def main(folder):
    records = json.load(open(f"{folder}/records.json"))
    for record in records:
        for annotation in record["annotations"]:
            annotation["bbox_mode"] = BoxMode(annotation["bbox_mode"])
    for name in ("toy_things_train", "toy_things_val"):
        register_things(name, lambda: records, owner="test", classes=["red", "green"], image_root=folder)
    opts = ["DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False", "OUTPUT_DIR", f"{folder}/two", "SOLVER.MAX_ITER", "3"]
    args = SimpleNamespace(config_file=f"{folder}/toy.yaml", opts=opts, eval_only=False, resume=False, num_gpus=0)
    run_process(train_net.main, args)

if __name__ == "__main__":
    launch(main, 2, dist_url="auto", args=(sys.argv[1],))
"""


def test_two_processes_with_images_without_instances(config_file, records, tmp_path):
    """Three of six images without instances, one with a crowd: some steps leave a rank with nothing to learn."""
    records[3]["annotations"][0]["iscrowd"] = 1
    records[4]["annotations"] = records[5]["annotations"] = []
    (tmp_path / "records.json").write_text(json.dumps(records))
    run_program(TWO_RANKS, tmp_path)
    saved = torch.load(tmp_path / "two/model_final.pth", weights_only=True)["model"]
    assert all(torch.isfinite(value).all() for value in saved.values() if value.is_floating_point())
    figures = json.loads((tmp_path / "two/evaluation/toy_things_val/metrics.json").read_text())["token_semantics"]
    assert figures["num_images"] + figures["num_unlabelled_I"] >= 6 and figures["num_unlabelled_I"] == 3


def test_crowds_are_no_instances(records):
    records[0]["annotations"][1]["iscrowd"] = 1
    maps = Truth(records, ComponentLimits()).maps_of(records[0]["file_name"])
    assert set(np.unique(maps.labels)) == {NO_INSTANCE, 0} and set(np.unique(maps.ids)) == {0, 1}


def test_classes_come_from_the_data_set(config_file):
    cfg = load_config(str(config_file))
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == cfg.MODEL.RETINANET.NUM_CLASSES == 2
    with pytest.raises(ValueError, match=r"ROI_HEADS.NUM_CLASSES = 7.*toy_things_train.*2 classes \(red, green"):
        load_config(str(config_file), ["MODEL.ROI_HEADS.NUM_CLASSES", "7"])
    with pytest.raises(ValueError, match=r"TEST.FULL_SIZE False is for segmentation"):
        load_config(str(config_file), ["TEST.FULL_SIZE", "False"])


def test_boxes_alone_switch_the_losses_of_sgr_off(config_file, records, tmp_path, caplog):
    for record in records:
        for annotation in record["annotations"]:
            del annotation["segmentation"]
    with pytest.raises(ValueError, match=r"MODEL.MASK_ON is True, but no annotation of toy_things_train has a mask"):
        run(config_file)
    with pytest.raises(ValueError, match=r"SGR.CLASS_WEIGHT = 0.5, but no annotation of toy_things_train has a mask"):
        run(config_file, "MODEL.MASK_ON", False, "MODEL.SGR.CLASS_WEIGHT", 0.5)
    with caplog.at_level("INFO", logger="sgr_d2"):
        results = run(config_file, "MODEL.MASK_ON", False, "SOLVER.MAX_ITER", 2)
    log = caplog.text + (tmp_path / "output/log.txt").read_text()  # the first set-up of a process ends the propagation
    assert "TEST.BEST_METRIC = segm/AP, but MODEL.MASK_ON is False: there are no masks to measure" in log
    assert "toy_things_train has boxes but no masks: the losses of SGR (component, diversity) are off" in log
    rows = [json.loads(line) for line in (tmp_path / "output/metrics.json").read_text().splitlines()]
    assert "loss_box_reg" in rows[0] and "loss_component" not in rows[0]
    assert set(results) == {"bbox", "token_semantics"}


def test_images_without_annotations(config_file, records, caplog):
    cfg = load_config(str(config_file))
    with caplog.at_level("INFO", logger="sgr_d2"):
        DETECTION.build_train_loader(cfg)
    assert "Training on 5 of 5 images" in caplog.text
    cfg.defrost()
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    with caplog.at_level("INFO", logger="sgr_d2"):
        DETECTION.build_train_loader(cfg)
    assert "Training on 6 of 6 images" in caplog.text
    for record in records:
        record["annotations"] = []
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = True
    with pytest.raises(ValueError, match=r"toy_things_train: no image has an annotation"):
        DETECTION.build_train_loader(cfg)


def test_tasks_are_told_by_the_data_sets(config_file):
    assert task_of(["toy_things_train", "coco_2017_val"]) is DETECTION
    assert task_of(["ade20k_sem_seg_val"]) is task_of([]) is task_of(["unknown"]) is SEMANTIC
    with pytest.raises(ValueError, match=r"mix segmentation and detection: toy_things_val \(coco\), ade20k"):
        task_of(["toy_things_val", "ade20k_sem_seg_val"])
    metadata = MetadataCatalog.get("toy_things_val")
    vars(metadata)["evaluator_type"] = "lvis"
    with pytest.raises(
        ValueError, match=r"no semantic classes .*evaluator_type is 'lvis'; for detection it must be 'coco'"
    ):
        load_config(str(config_file), ["DATASETS.TRAIN", "('toy_things_val',)"])
    del metadata.evaluator_type  # as in Detectron2's tutorial
    assert task_of(["toy_things_val"]) is DETECTION
    with pytest.raises(ValueError, match=r"Unknown data set 'toy_things_trian'. Did you mean 'toy_things_train'"):
        load_config(str(config_file), ["DATASETS.TRAIN", "('toy_things_trian',)"])


def test_the_truth_as_prediction_is_perfect(tmp_path, monkeypatch):
    """On camvid_instances, made from labels: masks come as run lengths, and there is no annotation file."""
    labels = np.full((80, 120), 3, np.uint8)
    labels[20:50, 10:40] = labels[50:75, 80:110] = 8
    labels[5:45, 60:70] = 9
    for kind, pixels in (("images", np.zeros((80, 120, 3), np.uint8)), ("labels", labels)):
        (tmp_path / "camvid" / kind / "val").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "camvid" / kind / "val" / "a.png"), pixels)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    register_all()
    name = "camvid_instances_val"
    cfg = detector_cfg(classes=4)
    cfg.OUTPUT_DIR, cfg.DATASETS.TEST, cfg.DATALOADER.NUM_WORKERS = str(tmp_path / "output"), (name,), 0
    cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TEST, cfg.TEST.NUM_PICTURES = "RGB", 0, 1
    info = DETECTION.metadata_of([name])
    evaluators = DETECTION.build_evaluators(cfg, name, info)
    evaluators.reset()
    for batch in DETECTION.build_test_loader(cfg, name):
        masks = np.stack([rle.decode(a["segmentation"]) for a in DatasetCatalog.get(name)[0]["annotations"]])
        found = Instances((80, 120), pred_masks=torch.from_numpy(masks), scores=torch.tensor([0.9, 0.8, 0.7]))
        found.pred_boxes = BitMasks(found.pred_masks).get_bounding_boxes()
        found.pred_classes = torch.tensor([labels[mask > 0][0] - 8 for mask in masks])
        # a region for each instance: every token means one thing
        tokens = ImageTokens(torch.from_numpy(masks).float(), torch.zeros(3, 8), (80.0, 120.0))
        evaluators.process(batch, [{"instances": found, "sgr": tokens}])
    results = evaluators.evaluate()
    assert results["bbox"]["AP"] == results["segm"]["AP"] == pytest.approx(100)
    assert results["token_semantics"]["S_I"] == results["token_semantics"]["S_C"] == 0
    assert results["token_semantics"]["D_I"] == pytest.approx(np.log(3))
    assert (tmp_path / "output/evaluation" / name / "pictures/a.png").is_file()
    monkeypatch.undo()
    register_all()


@pytest.mark.slow
def test_it_learns_boxes_and_masks(config_file):
    """On its own training images, from random weights."""
    options = (
        "SOLVER.MAX_ITER",
        250,
        "SOLVER.IMS_PER_BATCH",
        3,
        "SOLVER.BASE_LR",
        0.003,
        "MODEL.BACKBONE.FREEZE_AT",
        0,
    )
    results = run(config_file, *options)
    assert results["bbox"]["AP50"] > 80
    assert results["segm"]["AP50"] > 80
    assert results["token_semantics"]["I_I"] > 0.1


def test_kinds_of_errors_are_refused():
    cfg = get_sgr_cfg()
    cfg.TEST.ERROR_KINDS.ENABLED = True
    with pytest.raises(ValueError, match=r"TEST\.ERROR_KINDS is for semantic segmentation, but toy_val"):
        DETECTION.check_evaluation(cfg, "toy_val")


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.META_ARCHITECTURE", "ProposalNetwork"], r"ProposalNetwork returns proposals"),
        (["MODEL.META_ARCHITECTURE", "RetinaNet"], r"MASK_ON is True, but RetinaNet .* predicts boxes alone"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_the_training(config_file, opts, message):
    with pytest.raises(ValueError, match=message):
        run(config_file, *opts)


@pytest.mark.parametrize("opts", [[], ["DATASETS.TEST", "()"]])
def test_missing_image_files_are_told_before_the_training(config_file, records, tmp_path, opts):
    """In the check of the evaluation or, without one, when the training images are loaded."""
    Path(records[1]["file_name"]).unlink()
    name = "toy_things_train" if opts else "toy_things_val"
    with pytest.raises(FileNotFoundError, match=rf"{name}: 1 of . image files do not exist: .*001\.png\. Put them"):
        run(config_file, *opts)
    assert not list((tmp_path / "output").glob("*.pth"))


def test_an_image_with_two_records_is_refused_before_the_training(config_file, records, tmp_path):
    records.append(records[1])
    with pytest.raises(ValueError, match=r"2 records .* have the image .*001\.png"):
        run(config_file)
    assert not list((tmp_path / "output").glob("*.pth"))
