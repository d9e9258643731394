"""Real training of a small model: evaluation, best checkpoint, weights."""

import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from detectron2.evaluation import DatasetEvaluator
from torch import nn
from toy_runs import run, weights

from sgr_d2.engine import Trainer, evaluate_checkpoint, load_config, train
from sgr_d2.engine.evaluate import check_evaluation
from sgr_d2.engine.hooks import SeedEachStep


def test_an_error_in_the_last_step_is_not_followed_by_an_evaluation(config_file, tmp_path):
    class Fail(HookBase):
        def after_step(self):
            if self.trainer.iter + 1 == self.trainer.max_iter:
                raise ZeroDivisionError

    trainer = Trainer(load_config(str(config_file), ["OUTPUT_DIR", str(tmp_path), "SOLVER.MAX_ITER", "2"]))
    trainer.register_hooks([Fail()])
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert not (tmp_path / "evaluation").exists() and not (tmp_path / "model_best.pth").exists()


def test_records_without_labels_are_found_before_training(config_file):
    cfg = load_config(str(config_file)).clone()
    cfg.defrost()
    cfg.DATASETS.TEST = ("scenes_bare",)
    records = [{"file_name": "a.png", "sem_seg_file_name": "a_label.png"}, {"file_name": "b.png"}]
    DatasetCatalog.register("scenes_bare", lambda: records)
    MetadataCatalog.get("scenes_bare").set(stuff_classes=["a"], ignore_label=255, evaluator_type="sem_seg")
    try:
        with pytest.raises(ValueError, match=r"scenes_bare: 1 records have no sem_seg_file_name, e.g. that of b.png"):
            check_evaluation(cfg, nn.Identity())
    finally:
        DatasetCatalog.remove("scenes_bare")
        MetadataCatalog.remove("scenes_bare")


def test_a_trainer_of_ones_own_as_documented(config_file, tmp_path):
    """The class of docs/extend.md, and one with Detectron2's signatures."""
    page = (Path(__file__).parents[2] / "docs/extend.md").read_text(encoding="utf-8")
    scope = {}
    exec(page.split("```python\n")[-1].split("```")[0], scope)
    opts = ["SOLVER.MAX_ITER", "1", "DATALOADER.NUM_WORKERS", "0", "MODEL.DEVICE", "cpu"]
    cfg = load_config(str(config_file), [*opts, "OUTPUT_DIR", str(tmp_path / "own")])
    trained = train(cfg, trainer=scope["MyTrainer"])
    assert 0 <= trained["sem_seg"]["mIoU"] <= 100 and 50 < trained["input"]["brightness"] < 200
    rows = map(json.loads, (tmp_path / "own/metrics.json").read_text().splitlines())
    row = {key: value for row in rows for key, value in row.items()}
    assert row["largest_weight"] > 0 and row["input/brightness"] == trained["input"]["brightness"]
    again = evaluate_checkpoint(cfg, resume=True, trainer=scope["MyTrainer"])
    assert json.dumps(again) == json.dumps(trained)
    (image,) = next(iter(scope["MyTrainer"].build_train_loader(cfg)))[:1]
    assert image["image"].max() <= 127

    class Plain(Trainer):
        @classmethod
        def build_train_loader(cls, cfg):
            return Trainer.build_train_loader(cfg)

        @classmethod
        def build_test_loader(cls, cfg, dataset_name):
            return list(Trainer.build_test_loader(cfg, dataset_name))[:2]

        @classmethod
        def test(cls, cfg, model, evaluators=None):
            return super().test(cfg, model, evaluators=scope["Brightness"]())

    results = train(load_config(str(config_file), opts), trainer=Plain)
    assert set(results) == {"input"}
    with pytest.raises(ValueError, match=r"0 evaluators for DATASETS.TEST = .*scenes_val"):
        Trainer.test(cfg, nn.Identity(), evaluators=[])


def test_own_evaluators_take_data_sets_of_any_type(config_file, tmp_path, monkeypatch, caplog):
    """For which there are none of the project, and which it would refuse before the training."""

    class Count(DatasetEvaluator):
        def reset(self):
            self.number = 0

        def process(self, inputs, outputs):
            self.number += len(inputs)

        def evaluate(self):
            return {"mine": {"images": self.number}}

    class Own(Trainer):
        @classmethod
        def build_evaluator(cls, cfg, dataset_name):
            return Count()

    monkeypatch.setattr(logging.getLogger("sgr_d2.engine.evaluate"), "handlers", [caplog.handler])
    cfg = load_config(str(config_file), ["OUTPUT_DIR", str(tmp_path), "SOLVER.MAX_ITER", "1"])
    assert Own(cfg) and "build_evaluator" not in caplog.text
    monkeypatch.setitem(vars(MetadataCatalog.get("scenes_val")), "evaluator_type", "mine")
    with pytest.raises(ValueError, match=r"unknown evaluator_type 'mine'"):
        Trainer(cfg)
    assert train(cfg, trainer=Own)["mine"]["images"] == len(DatasetCatalog.get("scenes_val"))
    assert "if your build_evaluator calls that of Trainer: data set 'scenes_val': unknown evaluator_type" in caplog.text


def test_detectron2s_own_segmentor_trains(config_file, tmp_path):
    opts = ["MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.SGR.ENABLED", False, "SOLVER.MAX_ITER", 1]
    assert run(config_file, *opts, "OUTPUT_DIR", tmp_path)["sem_seg"]["mIoU"] >= 0


def test_an_ignore_label_other_than_255(config_file, scenes, tmp_path):
    """The same scenes, half of every label 7, in training (images that are padded too) and evaluation."""
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for file in sorted((scenes / split / "labels").iterdir()):
            label = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            label[: label.shape[0] // 2] = 7
            cv2.imwrite(str(tmp_path / split / file.name), label)
    text = config_file.read_text()
    for split in ("train", "val"):
        text = text.replace(str(scenes / split / "labels"), str(tmp_path / split))
    config_file.write_text(text.replace("CLASSES:", "IGNORE_LABEL: 7\n      CLASSES:"))
    # scaled to 24 pixels an image is smaller than the crop, and padded with ignored pixels
    results = run(config_file, "SOLVER.MAX_ITER", 2, "INPUT.MIN_SIZE_TRAIN", "(24,)", "OUTPUT_DIR", tmp_path / "out")
    assert 0 <= results["sem_seg"]["mIoU"] <= 100
    row = json.loads((tmp_path / "out/metrics.json").read_text().splitlines()[0])
    assert 0 < row["loss_sem_seg"] < 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("TEST.SLIDING_WINDOW.ENABLED", True, "TEST.SLIDING_WINDOW.STRIDE", "[128, 128]"), "SLIDING_WINDOW"),
        (("MODEL.SEM_SEG_HEAD.NAME", "MaskFormerHead", "MODEL.MASK_FORMER.TEST.SEMANTIC_ON", False), "SEMANTIC_ON is"),
    ],
)
def test_an_evaluation_that_cannot_be_is_found_before_training(config_file, options, message):
    options = [*options, "TEST.SLIDING_WINDOW.SIZE", "[64, 64]", "MODEL.MASK_FORMER.TEST.INSTANCE_ON", True]
    cfg = load_config(str(config_file), [str(option) for option in options])
    with pytest.raises(ValueError, match=message):
        check_evaluation(cfg, SimpleNamespace(sem_seg_head=nn.Identity(), size_divisibility=32))


def test_the_best_checkpoint_of_a_run_and_of_a_longer_one(config_file, tmp_path):
    results = run(config_file, "OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 4)
    record = json.loads((tmp_path / "model_best.json").read_text())
    best = {"value": pytest.approx(results["sem_seg"]["mIoU"]), "iteration": 3, "earlier": []}
    assert record == {"metric": "sem_seg/mIoU", **best}
    assert torch.load(tmp_path / "model_best.pth", weights_only=True)["iteration"] == 3
    # an evaluation at the end that no later one beats stays the best when the run goes on
    (tmp_path / "model_best.json").write_text(json.dumps(record | {"value": 100.0}))
    run(config_file, "OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 6, "TEST.EVAL_PERIOD", 1, resume=True)
    assert json.loads((tmp_path / "model_best.json").read_text())["value"] == 100.0


def test_the_best_checkpoint_of_two_data_sets_is_that_of_the_first(config_file, tmp_path, caplog):
    names = "('scenes_val', 'scenes_train')"
    with caplog.at_level("INFO", logger="sgr_d2"):
        results = run(config_file, "OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", names)
    record = json.loads((tmp_path / "model_best.json").read_text())
    assert record["metric"] == "scenes_val/sem_seg/mIoU" and (tmp_path / "model_best.pth").is_file()
    assert record["value"] == pytest.approx(results["scenes_val"]["sem_seg"]["mIoU"])
    assert "model_best.pth: by scenes_val/sem_seg/mIoU" in caplog.text


def test_missing_images_are_found_before_the_model_is_built(config_file):
    no_model = ("MODEL.SEM_SEG_HEAD.NORM", "GN", "MODEL.SEM_SEG_HEAD.CONVS_DIM", 48)  # 32 groups
    config = config_file.read_text().replace("val/images", "nowhere/images")
    config_file.write_text(config)
    with pytest.raises(FileNotFoundError, match=r"scenes_val: image folder .*nowhere/images does"):
        run(config_file, *no_model)
    with pytest.raises(FileNotFoundError, match=r"scenes_val: image folder .*nowhere/images does"):
        run(config_file, *no_model, eval_only=True)


def test_weights_are_reported(config_file, tmp_path):
    run(config_file, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", tmp_path / "a")
    saved = torch.load(tmp_path / "a/model_final.pth", weights_only=True)
    model = saved["model"]
    model["sem_seg_head.predictor.weight"] = torch.zeros(9, 16, 1, 1)
    del model["sgr.value.weight"]
    model["extra.weight"] = torch.zeros(1)
    torch.save({"model": model}, tmp_path / "changed.pth")
    changed = ["MODEL.WEIGHTS", tmp_path / "changed.pth"]
    with pytest.raises(ValueError, match=r"changed.pth: 2 parameters .*sgr.value.weight, sem_seg.*config.yaml"):
        run(config_file, *changed, eval_only=True)
    # in training what is missing keeps its initial values
    run(config_file, *changed, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", tmp_path / "b")
    log = (tmp_path / "b/log.txt").read_text()
    kept = len(model) - 2
    assert f"{kept} tensors loaded, 1 skipped for their shape, 1 missing in the file, 1 of the file not used" in log
    assert "Skipped sem_seg_head.predictor.weight" in log and "sgr.value.weight" in log and "extra.weight" in log


def test_no_checkpoint_is_no_start_from_scratch(config_file, tmp_path):
    """The backbone may have weights of its own."""
    run(config_file, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()", "OUTPUT_DIR", tmp_path)
    log = (tmp_path / "log.txt").read_text()
    assert "Starting training" in log and "from scratch" not in log and "Loading from" not in log


def test_weights_of_another_model_tell_in_which_keys_it_differs(config_file, tmp_path):
    steps = ["SOLVER.MAX_ITER", 1, "DATASETS.TEST", "()"]
    run(config_file, *steps, "OUTPUT_DIR", tmp_path / "a", "MODEL.SGR.NORM", "LN", "MODEL.SGR.POSITION", False)
    start = ["MODEL.WEIGHTS", tmp_path / "a/model_final.pth"]
    changed = r"was trained with other settings: MODEL.SGR.POSITION False -> True, MODEL.SGR.NORM LN -> SyncBN\."
    with pytest.raises(ValueError, match=rf"a/model_final.pth: \d+ parameters .* It {changed} Give the config"):
        run(config_file, *start, eval_only=True)
    with pytest.raises(ValueError, match=rf"--resume: .* lacks \d+ parameters .* It {changed} --resume needs"):
        run(config_file, *steps, "OUTPUT_DIR", tmp_path / "a", resume=True)
    run(config_file, *steps, *start, "OUTPUT_DIR", tmp_path / "b")
    assert re.search(rf"MODEL.WEIGHTS = \S+ {changed}", (tmp_path / "b/log.txt").read_text())
    start = ["MODEL.WEIGHTS", tmp_path / "b/model_final.pth"]
    run(config_file, *steps, *start, "OUTPUT_DIR", tmp_path / "c", "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", 0.5)
    assert "other settings" not in (tmp_path / "c/log.txt").read_text()  # all its tensors fit


def test_weights_that_fit_nothing_are_an_error(config_file, tmp_path):
    torch.save({"model": {"other.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"nothing loaded.*other.weight"):
        run(config_file, "MODEL.WEIGHTS", tmp_path / "other.pth", eval_only=True)
    with pytest.raises(FileNotFoundError, match=r"MODEL.WEIGHTS = .*nowhere.pth"):
        run(config_file, "MODEL.WEIGHTS", tmp_path / "nowhere.pth", eval_only=True)


def test_a_trainer_without_setup_draws_its_seed_once(config_file):
    trainer = Trainer(load_config(str(config_file), ["SEED", "-1"]))
    (hook,) = (hook for hook in trainer._hooks if isinstance(hook, SeedEachStep))
    assert hook.seed == trainer.cfg.SEED >= 0


def test_regions_and_statistics_of_norms_count_as_parameters(config_file, tmp_path):
    run(config_file, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", tmp_path, "MODEL.TIMM.NORM", "BN", "DATASETS.TEST", "()")
    found = torch.load(tmp_path / "model_final.pth", weights_only=True)
    options = ("MODEL.WEIGHTS", tmp_path / "model_final.pth", "MODEL.TIMM.NORM", "BN")
    losses = ("MODEL.SGR.COMPONENT_WEIGHT", 0.0, "MODEL.SGR.DIVERSITY_WEIGHT", 0.0)
    with pytest.raises(ValueError, match=r"2 parameters.*untrained: .*region_predictor.centres"):
        run(config_file, *options, *losses, "MODEL.SGR.REGIONS", "fixed", eval_only=True)
    found["model"] = {name: value for name, value in found["model"].items() if "running" not in name}
    torch.save(found, tmp_path / "model_final.pth")
    with pytest.raises(ValueError, match=r"untrained: .*bn1\.\* \(2\).*sgr\.encoder\.norm\.norm\.\* \(2\)"):
        run(config_file, *options, eval_only=True)


def test_mixed_precision_trains(config_file, tmp_path):
    for dtype in ("float16", "bfloat16"):
        output = tmp_path / dtype
        run(
            config_file,
            *("SOLVER.MAX_ITER", 2, "SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", dtype, "OUTPUT_DIR", output),
        )
        assert all(torch.isfinite(w).all() for w in weights(output).values() if w.is_floating_point())


def test_a_warm_up_longer_than_the_run_is_logged(config_file, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sgr_d2.engine.trainer"), "handlers", [caplog.handler])
    Trainer(load_config(str(config_file), ["SOLVER.MAX_ITER", "2"]))
    assert "WARMUP_ITERS" not in caplog.text
    Trainer(load_config(str(config_file), ["SOLVER.MAX_ITER", "1"]))
    assert "SOLVER.WARMUP_ITERS = 2 is longer than the run, SOLVER.MAX_ITER = 1:" in caplog.text


def test_the_log_tells_about_the_regions(config_file, tmp_path):
    run(config_file, "SOLVER.MAX_ITER", 20, "DATASETS.TEST", "()", "OUTPUT_DIR", tmp_path)
    row = json.loads((tmp_path / "metrics.json").read_text().splitlines()[-1])
    assert {"loss_sem_seg", "loss_component", "loss_diversity"} <= set(row)
    assert 0 <= row["sgr/active_token_rate"] <= 1
    assert 0 < row["sgr/region_mass"] < 1
    assert row["sgr/components_per_image"] >= 2
