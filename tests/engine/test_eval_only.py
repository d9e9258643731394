"""Evaluations of checkpoints: what they give, what they leave alone, and what they refuse."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from toy_runs import run

from sgr_d2.evaluation import StreamingSemSegEvaluator


def test_an_evaluation_leaves_the_config_of_the_training(config_file, tmp_path):
    opts = ["OUTPUT_DIR", tmp_path, "SEED", 5]
    run(config_file, *opts, "SOLVER.MAX_ITER", 1)
    before = (tmp_path / "config.yaml").read_text()
    assert (tmp_path / "evaluation/scenes_val/config.yaml").read_text() == before
    run(config_file, *opts, "MODEL.WEIGHTS", tmp_path / "model_final.pth", "SEED", 3, eval_only=True)
    assert (tmp_path / "config.yaml").read_text() == before and "SEED: 5" in before
    assert "SEED: 3" in (tmp_path / "evaluation/scenes_val/config.yaml").read_text()


def test_checkpoints_that_do_not_name_their_classes_are_evaluated(config_file, trained, tmp_path):
    saved = torch.load(trained.checkpoint, weights_only=True)
    torch.save({"model": saved["model"]}, tmp_path / "bare.pth")
    config_file.write_text(config_file.read_text().replace("- left\n      - right", "- right\n      - left"))
    results = run(config_file, "MODEL.WEIGHTS", tmp_path / "bare.pth", eval_only=True)
    assert "IoU-right" in results["sem_seg"]
    assert "with other settings" not in (tmp_path / "output/log.txt").read_text()  # there is nothing to compare with


def test_training_evaluates_and_eval_only_repeats_it(config_file, tmp_path):
    output = tmp_path / "output"
    trained = run(config_file, "SOLVER.MAX_ITER", 4, "TEST.EVAL_PERIOD", 2, "TEST.NUM_PICTURES", 2)
    again = run(config_file, "MODEL.WEIGHTS", output / "model_final.pth", eval_only=True)
    assert json.dumps(trained) == json.dumps(again)
    written = json.loads((output / "evaluation/scenes_val/metrics.json").read_text())
    assert written["sem_seg"]["mIoU"] == trained["sem_seg"]["mIoU"]
    names = {"S_C", "S_I", "D_C", "D_I", "I_C", "I_I"}
    assert names | {f"{name}_normalized" for name in names} | {"active_rate"} <= set(written["token_semantics"])
    assert {"mIoU", "pACC", "mACC", "fwIoU"} <= set(written["sem_seg"])
    assert len(list((output / "evaluation/scenes_val/pictures").glob("*.png"))) == 2
    assert (output / "curves.png").is_file()
    resumed = run(config_file, eval_only=True, resume=True)
    assert json.dumps(resumed) == json.dumps(again)


@pytest.mark.parametrize("full", [True, False])
def test_a_label_of_another_size_than_its_image_is_refused(config_file, trained, tmp_path, full):
    """Also where labels are resized to the model's input, so that any size would fit."""
    content = yaml.safe_load(config_file.read_text())
    folder = content["DATASETS"]["FOLDERS"]["scenes_val"]
    turned = tmp_path / "turned"
    turned.mkdir()
    for path in Path(folder["LABEL_DIR"]).glob("*.png"):
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(turned / path.name)
    content["DATASETS"]["FOLDERS"]["turned"] = folder | {"LABEL_DIR": str(turned)}
    config_file.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r"turned.*\.png: the label map is 96x72 \(height x width\), the"):
        run(
            config_file,
            *("MODEL.WEIGHTS", trained.checkpoint, "DATASETS.TEST", "('turned',)", "OUTPUT_DIR", tmp_path),
            *("TEST.FULL_SIZE", full, "DATASETS.TRAIN", "()"),
            eval_only=True,
        )


def test_an_evaluation_of_nothing_or_of_another_model_is_told(config_file, trained, tmp_path):
    opts = ["MODEL.WEIGHTS", trained.checkpoint, "OUTPUT_DIR", tmp_path]
    with pytest.raises(ValueError, match=r"--eval-only: DATASETS.TEST is empty"):
        run(config_file, *opts, "DATASETS.TEST", "()", eval_only=True)
    run(config_file, *opts, eval_only=True)
    assert "with other settings" not in (tmp_path / "log.txt").read_text()
    run(config_file, *opts, "MODEL.SGR.REGIONS", "softmax", "MODEL.SGR.COMPONENT_WEIGHT", 0.5, eval_only=True)
    log = (tmp_path / "log.txt").read_text()
    assert "was trained with other settings: MODEL.SGR.REGIONS sigmoid -> softmax. Unless this is" in log


@pytest.mark.parametrize(("full", "pixels"), [(True, 72 * 96), (False, 48 * 64)])
def test_the_input_size_can_be_evaluated_instead_of_the_label_size(config_file, tmp_path, full, pixels, monkeypatch):
    counted = []
    original = StreamingSemSegEvaluator.evaluate
    monkeypatch.setattr(
        StreamingSemSegEvaluator, "evaluate", lambda self: (counted.append(self._conf_matrix.sum()), original(self))[1]
    )
    options = ("TEST.FULL_SIZE", full, "INPUT.MIN_SIZE_TEST", 48, "OUTPUT_DIR", tmp_path)
    results = run(config_file, "SOLVER.MAX_ITER", 1, *options)
    assert counted == [5 * pixels] and 0 <= results["sem_seg"]["mIoU"] <= 100


def test_eval_only_without_weights_is_an_error(config_file):
    with pytest.raises(ValueError, match=r"--eval-only needs a checkpoint"):
        run(config_file, eval_only=True)


def test_a_backbone_alone_is_not_evaluated(config_file, trained, tmp_path):
    state = torch.load(trained.checkpoint, weights_only=True)["model"]
    torch.save({"model": {name: state[name] for name in state if name.startswith("backbone.")}}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"net.pth holds only a backbone.*MODEL.WEIGHTS, or --resume"):
        run(config_file, "MODEL.WEIGHTS", tmp_path / "net.pth", eval_only=True)


def test_a_baseline_is_not_evaluated_as_if_it_had_tokens(config_file, tmp_path):
    run(config_file, "SOLVER.MAX_ITER", 1, "OUTPUT_DIR", tmp_path, "MODEL.SGR.ENABLED", False, "DATASETS.TEST", "()")
    with pytest.raises(ValueError, match=r"model_final.pth: \d+ parameters of the model are missing from the.*sgr\."):
        run(config_file, "MODEL.WEIGHTS", tmp_path / "model_final.pth", eval_only=True)


def test_tokens_are_not_left_out_of_an_evaluation(config_file, trained, tmp_path):
    opts = ["MODEL.WEIGHTS", trained.checkpoint, "OUTPUT_DIR", tmp_path, "MODEL.SGR.ENABLED", False]
    with pytest.raises(ValueError, match=r"has SGR, and this model has not: \d+ tensors .*SGR.ENABLED True -> F"):
        run(config_file, *opts, eval_only=True)


def test_a_peer_is_not_left_out_of_an_evaluation(config_file, tmp_path):
    peer = ["OUTPUT_DIR", tmp_path, "MODEL.META_ARCHITECTURE", "PeerSegmentor"]
    run(config_file, *peer, "SOLVER.MAX_ITER", 1, "MODEL.SGR.ENABLED", False, "DATASETS.TEST", "()")
    opts = ["MODEL.WEIGHTS", tmp_path / "model_final.pth", "MODEL.SGR.ENABLED", False, "OUTPUT_DIR", tmp_path / "again"]
    with pytest.raises(ValueError, match=r"has a peer of SGR, and this model has not"):
        run(config_file, *opts, eval_only=True)
