import json
import sys
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from torch import nn
from toy_detectors import detector_cfg, detector_input
from toy_heads import with_head
from toys import randomize_zeros, toy_cfg, toy_input

from sgr_d2.engine.analysis.diagnose import _parts, pulls, without_tokens

sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))
import diagnose


class TwoLosses(nn.Module):
    """Gradients on the backbone: (1, 0) of the head, (3, 4) of the component loss; none of it on the head."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.ParameterDict({"w": nn.Parameter(torch.ones(2))})
        self.sem_seg_head = nn.Linear(1, 1, bias=False)

    def forward(self, batch):
        w = self.backbone["w"]
        head = w[0] + self.sem_seg_head.weight.sum()
        return {"loss_a": 0.25 * head, "loss_b": 0.75 * head, "loss_component": w @ torch.tensor([3.0, 4.0])}


def test_norms_and_cosines_by_hand():
    found = pulls(TwoLosses(), [[], []])
    assert found["backbone"]["head"] == pytest.approx((1.0, 1.0))
    assert found["backbone"]["loss_component"] == pytest.approx((5.0, 0.6))
    assert found["head"]["loss_component"] == (0.0, None)  # it has no gradient there, hence no direction


def test_a_cosine_is_of_the_batches_that_have_both_gradients():
    class Sometimes(TwoLosses):
        def forward(self, batch):
            losses = super().forward(batch)
            return losses | {"loss_component": losses["loss_component"] * len(batch)}

    assert pulls(Sometimes(), [[], [{}]])["backbone"]["loss_component"] == pytest.approx((2.5, 0.6))


def test_every_part_of_a_real_model():
    model = build_model(toy_cfg())
    randomize_zeros(model)
    found = pulls(model, [[toy_input(64, 64)]])
    assert set(found) == {"backbone", "sgr", "head"}
    assert set(found["sgr"]) == {"head", "loss_component", "loss_diversity"}
    assert found["sgr"]["head"].norm > 0 and found["head"]["loss_component"].norm == 0


def test_the_attention_of_queries_to_tokens_is_part_of_sgr():
    model = build_model(with_head(toy_cfg(), "MaskFormerHead"))
    layers = model.sem_seg_head.predictor.transformer_token_attention_layers
    of_sgr = {id(parameter) for parameter in _parts(model)["sgr"]}
    assert of_sgr == {id(p) for module in (model.sgr, layers) for p in module.parameters()}


def test_losses_of_a_frozen_sgr_have_no_gradient():
    cfg = toy_cfg()
    cfg.MODEL.SGR.FREEZE = True
    found = pulls(build_model(cfg), [[toy_input(64, 64)]])
    assert set(found) == {"backbone", "head"}
    assert found["backbone"]["loss_component"].norm == 0 and found["backbone"]["head"].norm > 0


@pytest.mark.parametrize("features", [("p3", "p4"), ("res3", "res4")])
def test_every_part_of_a_detector(features):
    model = build_model(detector_cfg(features=features))
    randomize_zeros(model)
    found = pulls(model, [[detector_input(64, 96)]])
    assert set(found) == {"bottom_up", "neck", "sgr", "head"}
    assert found["sgr"]["head"].norm > 0 and found["sgr"]["loss_component"].norm > 0
    assert found["head"]["loss_component"].norm == 0


@pytest.mark.parametrize("head", ["SemSegFPNHead", "MaskFormerHead"])
def test_without_tokens_features_and_queries_pass_unchanged(head):
    cfg = with_head(toy_cfg(), head)
    model = build_model(cfg).eval()
    randomize_zeros(model)
    images = [{"image": toy_input(64, 64)["image"]}]
    with torch.no_grad():
        before = model(images)[0]["sem_seg"]
        with without_tokens(model):
            off = model(images)[0]["sem_seg"]
        cfg.MODEL.SGR.ENABLED = False
        baseline = build_model(cfg).eval()
        baseline.load_state_dict(model.state_dict(), strict=False)
        plain = baseline(images)[0]["sem_seg"]
        assert torch.equal(model(images)[0]["sem_seg"], before)
    assert torch.equal(off, plain) and not torch.equal(off, before)
    with pytest.raises(ValueError, match=r"has no SGR"), without_tokens(nn.Linear(1, 1)):
        pass


def test_command_line_on_a_machine_without_a_gpu(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    command = ["--config-file", str(trained.config), "--weights", str(trained.checkpoint), "--output", str(tmp_path)]
    assert diagnose.main([*command, "--batches", "1", "--opts", "MODEL.DEVICE", "cuda"]) == 0


def test_command_line(trained, plain_checkpoint, tmp_path, capsys):
    command = ["--config-file", str(trained.config), "--weights", str(trained.checkpoint), "--output", str(tmp_path)]
    assert diagnose.main([*command, "--batches", "2"]) == 0
    printed, said = capsys.readouterr()
    assert "## scenes_val, 5 images" in printed and "| mIoU" in printed and "loss_component" in printed
    assert "num_images" not in printed  # its table is in percent
    written = json.loads((tmp_path / "diagnosis.json").read_text())
    assert set(written["evaluation"]["scenes_val"]) == {"with_tokens", "without_tokens"}
    assert "between tokens" in printed and "decided by tokens" in printed
    assert sum(written["tokens"].values()) == pytest.approx(1)
    assert all(set(change) == {"size", "constant", "of_tokens"} for change in written["changes"].values())
    # a line for each phase, and for each table how to read it
    phases = ("load", "evaluate without tokens on 5 images", "evaluate with tokens", "measure tokens", "measure grad")
    assert [phase for phase in phases if f"] {phase}" not in said] == []
    lessons = (diagnose.READ_EVALUATION, diagnose.READ_TOKENS, diagnose.READ_CHANGES, diagnose.READ_GRADIENTS)
    assert all(printed.count(lesson) == 1 for lesson in lessons)
    assert written["pulls"]["head"]["loss_component"]["cosine"] is None and "0.000 (n/a)" in printed
    assert diagnose.main([*command, "--batches", "1", "--max-images", "2"]) == 0
    assert json.loads((tmp_path / "diagnosis.json").read_text())["images"] == {"scenes_val": 2}
    assert diagnose.main([*command, "--batches", "0"]) == 2
    assert "--batches 0" in capsys.readouterr().err
    command[command.index("--weights") + 1] = str(plain_checkpoint)
    assert diagnose.main([*command, "--opts", "MODEL.SGR.ENABLED", "False"]) == 2
    assert "has no SGR" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["", "sem_seg/"])
def test_accuracies_of_classes_are_left_out_of_the_page(task):
    figures = {f"{task}mIoU": 50.0, f"{task}IoU-road": 60.0, f"{task}ACC-road": 70.0}
    evaluation = {"toy_val": {"with_tokens": figures, "without_tokens": figures}}
    use = {"tokens": {"common": 0.5, "between_images": 0.2, "between_tokens": 0.3}, "changes": {}}
    text = diagnose.to_markdown({"evaluation": evaluation, "images": {"toy_val": 3}, "pulls": {}, "batches": 1} | use)
    assert f"{task}IoU-road" in text and "ACC-" not in text
