"""The table of configs against the published one of Mask2Former (Cheng et al. 2022, ADE20K)."""

import json
import re

import list_configs
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn
from toy_heads import with_head
from toys import toy_cfg

from sgr_d2.engine.analysis.model_cost import count_cost, count_parameters

PUBLISHED = {  # millions of parameters, GFLOPs
    "m2f": (44, 71),
    "m2f_r101": (63, 90),
    "m2f_swin_t": (47, 74),
    "m2f_swin_s": (69, 98),
    "m2f_swin_b": (107, 223),
    "m2f_swin_l": (215, 403),
}


@pytest.mark.parametrize("config", [pytest.param(c, marks=[] if c == "m2f" else pytest.mark.slow) for c in PUBLISHED])
def test_parameters_and_operations_are_the_published_ones(config):
    row = list_configs.describe(list_configs.CONFIGS / "ade20k" / f"{config}.yaml")
    parameters, operations = PUBLISHED[config]
    assert row["parameters"] / 1e6 == pytest.approx(parameters, rel=0.03)
    assert (row["operations"] + row["saved_operations"]) / 1e9 == pytest.approx(operations, rel=0.03)
    assert row["sgr_parameters"] == row["sgr_operations"] == 0


@pytest.mark.parametrize("head", ["SemSegFPNHead", "MaskFormerHead"])
def test_what_sgr_adds_is_the_difference(head):
    """With Mask2Former that includes the layers in which the queries attend to the tokens."""
    torch.manual_seed(0)
    plain, with_sgr = (build_model(with_head(toy_cfg(sgr=sgr), head)) for sgr in (False, True))
    a, b = count_cost(plain, (64, 96)), count_cost(with_sgr, (64, 96))
    assert b.sgr_parameters == b.parameters - a.parameters > 0
    assert b.sgr_operations == b.operations - a.operations > 0
    assert a.sgr_operations == 0 and (a.saved_operations == 0) == (head == "SemSegFPNHead")
    assert with_sgr.training  # as before


def test_operations_by_hand():
    class Head(nn.Module):
        """One of each that needs a handle of ours: (4, 6) x (6, 5), and attention of 3 queries to 7 keys."""

        def forward(self, batched_inputs):
            image = batched_inputs[0]["image"]
            a, b = image[0, :4, :6], image[1, :6, :5]
            product = torch.mm(a, b, out=image.new_empty(4, 5))
            query, key = image[:, None, :3, :4], image[:, None, :7, :4]
            attended = nn.functional.scaled_dot_product_attention(query, key, key)
            return [{"sem_seg": attended.sum() + product.sum() + self.weight}]

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

    cost = count_cost(Head(), (8, 8))
    assert cost.operations == 4 * 6 * 5 + 3 * (3 * 7 * 4 * 2)
    assert (cost.parameters, cost.saved_operations, cost.published_operations) == (1, 0, cost.operations)


def test_parameters_alone_need_no_memory():
    cfg = toy_cfg()
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    assert count_parameters(model).sgr_parameters == sum(p.numel() for p in model.sgr.parameters())


def test_tables(capsys):
    assert list_configs.main(["shapes/fpn*", "--no-flops"]) == 0
    text = capsys.readouterr().out.splitlines()
    assert text[0].split()[:4] == ["config", "head", "backbone", "params"]
    assert [line.split()[0] for line in text[2:]] == ["shapes/fpn", "shapes/fpn_sgr"]
    assert list_configs.main(["shapes/fpn_sgr", "--no-flops", "--markdown"]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("| shapes/fpn_sgr |")
    assert list_configs.main(["shapes/fpn_sgr", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["size"] == [128, 160] and row["operations"] > row["sgr_operations"] > 0


PAGE = (list_configs.ROOT / "docs/configs.md").read_text(encoding="utf-8")
OF_PAGE = re.findall(r"^\| (\w+/\S+) \| ([\d.]+) \| ([\d.]+) \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize(
    ("config", "parameters", "of_sgr"),
    [pytest.param(*row, marks=[pytest.mark.slow] if "swin" in row[0] else []) for row in OF_PAGE],
)
def test_the_table_in_the_docs_has_the_parameters_of_the_configs(config, parameters, of_sgr):
    row = list_configs.describe(list_configs.CONFIGS / f"{config}.yaml", flops=False)
    assert (f"{row['parameters'] / 1e6:.1f}", f"{row['sgr_parameters'] / 1e6:.1f}") == (parameters, of_sgr)


@pytest.mark.parametrize(
    ("config", "backbone"),
    [("detection/retinanet_sgr_R50_FPN_1x", "R50"), ("ade20k/fpn_swin_t", "Swin-T"), ("ade20k/m2f_r101", "R101")],
)
def test_backbones_have_the_names_of_papers(config, backbone):
    row = list_configs.describe(list_configs.CONFIGS / f"{config}.yaml", flops=False)
    assert row["backbone"] == backbone and row["operations"] is None


def test_a_path_is_a_pattern_too(capsys):
    assert list_configs.main(["configs/camvid/fpn_sgr_effnet_lite0.yaml", "--no-flops", "--json"]) == 0
    assert [row["config"] for row in json.loads(capsys.readouterr().out)] == ["camvid/fpn_sgr_effnet_lite0"]


def test_a_pattern_that_matches_nothing(capsys):
    with pytest.raises(SystemExit):
        list_configs.main(["nowhere/*"])
    assert "no config matches 'nowhere/*'" in capsys.readouterr().err
