import pytest
import torch
from torch import nn
from toy_heads import build, with_head
from toys import toy_cfg, toy_shape

from sgr_d2.engine import Trainer
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
        self.attention = nn.MultiheadAttention(4, 1)
        self.shared = self.head[0]
        self.tied = nn.Conv2d(3, 4, 1, bias=False)
        self.tied.weight = self.backbone[0].weight  # its first place counts, as in Detectron2


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


def test_sgr_and_what_attends_to_its_tokens_have_a_rate_of_their_own(cfg):
    cfg.SOLVER.SGR_MULTIPLIER = 0.25
    model = build(with_head(toy_cfg(), "MaskFormerHead"))
    rates = {p: group["lr"] for group in parameter_groups(cfg, model) for p in group["params"]}
    assert {rates[p] for p in model.sgr.parameters()} == {0.025}
    for name, p in model.sem_seg_head.named_parameters():
        assert rates[p] == (0.025 if "token_attention" in name else 0.1)
    assert {rates[p] for p in model.backbone.parameters()} == {0.05}
    # in a detector SGR lies in the backbone, and a peer takes the place of SGR
    for model in ({"backbone": nn.ModuleDict({"sgr": nn.Linear(1, 1)})}, {"peer": nn.Linear(1, 1)}):
        assert [group["lr"] for group in parameter_groups(cfg, nn.ModuleDict(model))] == [0.025]


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
    assert rates[model.head[1].bias] == 0.2  # of a norm, as in Detectron2
    assert rates[model.head[0].weight] == 0.1
    assert rates[model.attention.in_proj_bias] == 0.1  # also as in Detectron2, which goes by the name "bias"


@pytest.mark.parametrize(("decay", "expected"), [(None, 0.01), (0.0, 0.0), (0.03, 0.03)])
def test_biases_have_a_decay_of_their_own_where_one_is_given(cfg, decay, expected):
    cfg.SOLVER.WEIGHT_DECAY_BIAS = decay
    model = Model()
    decays = {p: group["weight_decay"] for group in parameter_groups(cfg, model) for p in group["params"]}
    assert decays[model.head[0].bias] == expected
    assert decays[model.head[1].bias] == (decay or 0.0)  # of a norm: as in Detectron2
    assert decays[model.head[0].weight] == decays[model.attention.in_proj_bias] == 0.01


def test_every_norm_and_every_table_of_positions_is_known(cfg):
    cfg.SOLVER.WEIGHT_DECAY_NORM, cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.02, 0.03
    norms = [nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.SyncBatchNorm(4), nn.GroupNorm(2, 4), nn.LayerNorm(4)]
    norms = nn.ModuleList([*norms, nn.InstanceNorm2d(4, affine=True)])
    names = ("pos_embed", "absolute_pos_embed", "relative_position_bias_table", "cls_token")
    tables = nn.ParameterDict({name: nn.Parameter(torch.zeros(4)) for name in names})
    groups = parameter_groups(cfg, nn.ModuleDict({"norms": norms, "tables": tables}))
    decays = {p: group["weight_decay"] for group in groups for p in group["params"]}
    assert {decays[p] for p in norms.parameters()} == {0.02}
    assert {decays[p] for p in tables.parameters()} == {0.03}


@pytest.mark.parametrize(("name", "kind"), [("SGD", torch.optim.SGD), ("ADAMW", torch.optim.AdamW)])
def test_optimizers(cfg, name, kind):
    cfg.SOLVER.OPTIMIZER = name
    assert isinstance(build_optimizer(cfg, Model()), kind)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.8, False), (0.8, True)])
def test_momentum_of_sgd(cfg, momentum, nesterov):
    """Two steps against the formula, with the rate and the decay of a layer."""
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.MOMENTUM, cfg.SOLVER.NESTEROV = "SGD", momentum, nesterov
    model = Model()
    optimizer, weight = build_optimizer(cfg, model), model.head[0].weight
    expected, velocity = weight.detach().clone(), 0.0
    for gradient in (1.0, -3.0):
        weight.grad = torch.full_like(weight, gradient)
        optimizer.step()
        slope = gradient + 0.01 * expected
        velocity = momentum * velocity + slope
        expected = expected - 0.1 * (slope + momentum * velocity if nesterov else velocity)
    torch.testing.assert_close(weight.detach(), expected)


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


@pytest.mark.parametrize(
    ("kind", "power", "expected"),
    [
        ("full_model", 1.0, (2.0 * 0.5 / 12.2, 0.1 * 0.5 / 12.2)),
        ("norm", 2.0, (0.5 / 6**0.5, 0.1)),
        ("value", 2.0, (0.5, 0.1)),
    ],
)
def test_clipping_by_kind_and_norm(cfg, kind, power, expected):
    """Gradients of six numbers 2 and two numbers 0.1, clipped to 0.5."""
    cfg.SOLVER.OPTIMIZER, clip = "SGD", cfg.SOLVER.CLIP_GRADIENTS
    clip.ENABLED, clip.CLIP_TYPE, clip.CLIP_VALUE, clip.NORM_TYPE = True, kind, 0.5, power
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 1, bias=False))
    optimizer = build_optimizer(cfg, model)
    for p, value in zip(model.parameters(), (2.0, 0.1), strict=True):
        p.grad = torch.full_like(p, value)
    optimizer.step()
    for p, value in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, torch.full_like(p, value), rtol=1e-4, atol=0)


def test_unknown_kinds_list_the_choices(cfg):
    clip = cfg.SOLVER.CLIP_GRADIENTS
    clip.ENABLED, clip.CLIP_TYPE = True, "whole"
    with pytest.raises(ValueError, match=r"CLIP_TYPE = 'whole': choose from \['full_model', 'norm', 'value'\]"):
        build_optimizer(cfg, Model())
    clip.ENABLED, cfg.SOLVER.OPTIMIZER = False, "ADAM"
    with pytest.raises(ValueError, match=r"SOLVER.OPTIMIZER = 'ADAM': choose from \['ADAMW', 'SGD'\]"):
        build_optimizer(cfg, Model())
    cfg.SOLVER.LR_SCHEDULER_NAME = "Poly"
    with pytest.raises(ValueError, match=r"SOLVER.LR_SCHEDULER_NAME = 'Poly': choose from \['WarmupPolyLR'"):
        Trainer.build_lr_scheduler(cfg, None)


def test_sgr_in_a_backbone_learns_as_fast_as_a_head(cfg):
    model = Model()
    model.backbone.add_module("sgr", nn.Linear(2, 2))
    rates = {p: group["lr"] for group in parameter_groups(cfg, model) for p in group["params"]}
    assert rates[model.backbone.sgr.weight] == 0.1
    assert rates[model.backbone[0].weight] == 0.05
