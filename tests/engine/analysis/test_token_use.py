import pytest
import torch
from detectron2.modeling import build_model
from torch import nn
from toy_detectors import detector_cfg, detector_input
from toys import randomize_zeros, toy_cfg, toy_input

from sgr_d2.engine.analysis.token_use import Change, token_parts, token_use
from sgr_d2.modeling.sgr.fusion import Fusion


class Blocks(nn.Module):
    """Two levels of a model, of constant features and of tokens that an image gives by its mean."""

    def __init__(self, block):
        super().__init__()
        self.fusion = nn.ModuleDict({"p3": block})

    def forward(self, batch):
        for x in batch:
            features = x["image"][None]  # (1, 2, H, W)
            tokens = x["image"].mean((1, 2)).expand(1, 3, 2) * torch.tensor([1.0, 2.0, 3.0])[:, None]
            self.fusion["p3"](features, tokens, torch.ones(1, 3, *features.shape[-2:]))


def fusion_block(weight, bias):
    """F + bias + weight * (first channel of Y)."""

    class Plain(Fusion):
        def forward(self, features, tokens, regions):
            mean = tokens.mean(1)[:, :1, None, None]
            return features + bias + weight * mean * torch.ones_like(features)

    return Plain(2, 4)


def image(value, height=4, width=5):
    return {"image": torch.full((2, height, width), float(value))}


def test_tokens_by_hand():
    tokens = torch.tensor([[[4.0, 0.0], [2.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]])  # means 3 and 1, of both 2
    assert token_parts(tokens) == pytest.approx((4 / 5.5, 1 / 5.5, 0.5 / 5.5))
    assert token_parts(torch.zeros(2, 3, 4)) == (0, 0, 0)
    assert token_parts(torch.ones(1, 1, 4)) == (1, 0, 0)


def test_a_bias_is_constant_and_not_of_tokens():
    use = token_use(Blocks(fusion_block(0.0, 3.0)), [[image(1), image(2)], [image(3, 7, 1)]])
    squares = 2 * (20 * 1 + 20 * 4 + 7 * 9)
    assert use.changes == {"p3": pytest.approx(((2 * 47 * 9 / squares) ** 0.5, 1.0, 0.0))}


def test_what_tokens_add():
    use = token_use(Blocks(fusion_block(1.0, 0.0)), [[image(1), image(3)]])
    # tokens 1, 2, 3 and 3, 6, 9: the change is 2 and 6, the mean token 4
    assert use.changes["p3"] == pytest.approx(((40 / 10) ** 0.5, 16 / 20, 4 / 20))
    assert use.tokens == pytest.approx((16 / (70 / 3), 4 / (70 / 3), (2 / 3 + 6) / 2 / (70 / 3)))


@pytest.mark.parametrize("of", ["segmentor", "detector"])
def test_a_real_model(of):
    model = build_model(toy_cfg() if of == "segmentor" else detector_cfg(features=("p3", "p4"))).eval()
    sample = toy_input(64, 96) if of == "segmentor" else detector_input(64, 96)
    batches = [[sample, sample], [{**sample, "image": 255 - sample["image"]}]]
    assert set(token_use(model, batches).changes.values()) == {Change(0, 0, 0)}  # SGR starts as the identity
    randomize_zeros(model)
    use = token_use(model, batches)
    assert sum(use.tokens) == pytest.approx(1) and min(use.tokens) > 0
    for change in use.changes.values():
        assert change.size > 0 and 0 < change.constant < 1 and change.of_tokens > 0
    block = next(module for module in model.modules() if isinstance(module, Fusion))
    assert not block._forward_hooks and not block._forward_pre_hooks


def test_what_cannot_be_measured():
    with pytest.raises(ValueError, match="has no SGR"):
        token_use(nn.Linear(1, 1), [[image(1)]])
    with pytest.raises(ValueError, match="No batch"):
        token_use(Blocks(fusion_block(1.0, 0.0)), [])
