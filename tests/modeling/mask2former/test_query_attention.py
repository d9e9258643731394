"""Queries that attend to the tokens of SGR, in the whole model; the layer alone is in test_transformer_decoder.py."""

import pytest
import torch
from toy_heads import build, with_head
from toys import randomize_zeros, toy_cfg, toy_input

from sgr_d2.modeling.segmentor import SGRSegmentor
from sgr_d2.structures import TOKENS


def mask_former(*, sgr=True, query_attention=True) -> SGRSegmentor:
    cfg = with_head(toy_cfg(sgr=sgr), "MaskFormerHead")
    cfg.MODEL.SGR.QUERY_ATTENTION = query_attention
    return build(cfg)


def scores(model, size=(45, 77)):
    with torch.no_grad():
        return model.eval()([{"image": toy_input(*size)["image"]}])[0]["sem_seg"]


def test_starts_as_the_baseline_and_then_hands_the_tokens_on():
    model = mask_former()
    expected = scores(mask_former(sgr=False))
    torch.testing.assert_close(scores(model), expected, rtol=0, atol=1e-6)
    randomize_zeros(model.sem_seg_head.predictor.transformer_token_attention_layers)
    assert not torch.allclose(scores(model), expected, atol=1e-4)


@pytest.mark.parametrize("options", [{"sgr": False}, {"query_attention": False}])
def test_without_it_there_is_nothing_of_it(options):
    model = mask_former(**options)
    assert not any("token_attention" in name for name in model.state_dict())
    assert not model.sem_seg_head.reads_tokens
    features = model.backbone(torch.rand(1, 3, 64, 64))
    assert TOKENS not in model.refine(features, torch.tensor([[64, 64]]))[0]


def test_every_parameter_gets_a_gradient():
    model = mask_former().train()
    randomize_zeros(model)
    losses = model([toy_input(64, 96), toy_input(45, 77, seed=1)])
    assert {"loss_component", "loss_diversity", "loss_ce"} <= set(losses)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_loss_of_the_head_teaches_the_tokens_through_the_queries():
    model = mask_former().train()
    randomize_zeros(model.sem_seg_head.predictor.transformer_token_attention_layers)
    losses = model([toy_input(64, 96)])
    losses["loss_ce"].backward()  # the fusion blocks still start at zero
    assert model.sgr.value.weight.grad.any()
    assert model.sgr.region_predictor.weight.grad.any()


def test_a_head_without_queries_is_refused():
    cfg = with_head(toy_cfg(), "SemSegFPNHead")
    cfg.MODEL.SGR.QUERY_ATTENTION = True
    with pytest.raises(ValueError, match=r"QUERY_ATTENTION = True: the head SemSegFPNHead .* has no queries"):
        build(cfg)
    cfg.MODEL.SGR.ENABLED = False  # the baseline has no tokens to attend to
    build(cfg)
