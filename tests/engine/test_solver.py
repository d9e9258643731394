import pytest
import torch
from torch import nn
from toys import toy_cfg, toy_shape

from sgr_d2.engine.solver import build_optimizer, parameter_groups
from sgr_d2.modeling.mask2former.head import MaskFormerHead


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2))
        self.queries = nn.Embedding(5, 4)
        self.pos_embed = nn.Parameter(torch.zeros(1, 4))
        self.fixed = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.backbone_like = nn.Linear(2, 2, bias=False)
        self.shared = self.head[0]


@pytest.fixture
def cfg():
    cfg = toy_cfg()
    cfg.SOLVER.BASE_LR = 0.1
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.5
    cfg.SOLVER.WEIGHT_DECAY = 0.01
    cfg.SOLVER.WEIGHT_DECAY_NORM = 0.0
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.0
    return cfg


def test_every_trainable_parameter_is_in_one_group_with_its_rate_and_decay(cfg):
    model = Model()
    settings = {}
    for group in parameter_groups(cfg, model):
        for p in group["params"]:
            assert p not in settings
            settings[p] = (group["lr"], group["weight_decay"])
    assert len(settings) == len([p for p in model.parameters() if p.requires_grad])
    assert settings[model.backbone[0].weight] == (0.05, 0.01)
    assert settings[model.backbone[1].weight] == (0.05, 0.0)
    assert settings[model.head[0].weight] == (0.1, 0.01)
    assert settings[model.head[1].bias] == (0.1, 0.0)
    assert settings[model.queries.weight] == settings[model.pos_embed] == (0.1, 0.0)
    assert settings[model.backbone_like.weight] == (0.1, 0.01)
    assert model.fixed not in settings


def test_level_embeddings_decay_as_in_mask2former(cfg):
    cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS = 1
    head = MaskFormerHead(cfg, toy_shape())
    decays = {p: group["weight_decay"] for group in parameter_groups(cfg, head) for p in group["params"]}
    assert decays[head.pixel_decoder.transformer.level_embed] == 0.01  # a plain parameter
    assert decays[head.predictor.level_embed.weight] == 0.0  # an nn.Embedding


def test_biases_have_a_rate_of_their_own(cfg):
    cfg.SOLVER.BIAS_LR_FACTOR = 2.0
    model = Model()
    rates = {p: group["lr"] for group in parameter_groups(cfg, model) for p in group["params"]}
    assert rates[model.head[0].bias] == 0.2 and rates[model.backbone[0].bias] == 0.1
    assert rates[model.head[0].weight] == 0.1


@pytest.mark.parametrize(("name", "kind"), [("SGD", torch.optim.SGD), ("ADAMW", torch.optim.AdamW)])
def test_optimizers(cfg, name, kind):
    cfg.SOLVER.OPTIMIZER = name
    assert isinstance(build_optimizer(cfg, Model()), kind)


def test_unknown_optimizer_lists_the_choices(cfg):
    cfg.SOLVER.OPTIMIZER = "Adam"
    with pytest.raises(ValueError, match=r"SOLVER.OPTIMIZER = 'Adam'.*ADAMW.*SGD"):
        build_optimizer(cfg, Model())


def test_full_model_clipping_scales_all_gradients_by_one_factor(cfg):
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.MOMENTUM = "SGD", 0.0
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 1.0
    model = Model()
    optimizer = build_optimizer(cfg, model)
    for p in model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    norm = sum(p.numel() for p in model.parameters() if p.requires_grad) ** 0.5
    optimizer.step()
    torch.testing.assert_close(model.head[0].weight.grad, torch.full((2, 4), 1 / norm))
    torch.testing.assert_close(model.backbone[0].bias.grad, torch.full((4,), 1 / norm))


def test_sgr_in_a_backbone_learns_as_fast_as_a_head(cfg):
    model = Model()
    model.backbone.add_module("sgr", nn.Linear(2, 2))
    rates = {p: group["lr"] for group in parameter_groups(cfg, model) for p in group["params"]}
    assert rates[model.backbone.sgr.weight] == 0.1
    assert rates[model.backbone[0].weight] == 0.05
