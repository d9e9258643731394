"""What needs no real GPU: every tensor is on the device, and the host waits for it no more than it has to."""

import pytest
import torch
from fake_gpu import fake_gpu, needs_driverless_torch
from toy_heads import HEADS, build, with_head
from toys import toy_cfg, toy_input

from sgr_d2.modeling.peers import KINDS
from sgr_d2.modeling.sliding_window import SlidingWindow

pytestmark = needs_driverless_torch
DTYPES = [None, torch.float16, torch.bfloat16]


def train(model, dtype):
    """Where the host waits in a step with images of two sizes."""
    model.train()
    with fake_gpu(model, dtype) as waits:
        losses = model([toy_input(64, 96), toy_input(45, 77, seed=1)])
    assert {(loss.device.type, loss.dtype, loss.dim()) for loss in losses.values()} == {("cuda", torch.float32, 0)}
    return waits.functions


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", HEADS)
def test_a_step_waits_for_its_matchings_alone(head, dtype):
    matchings = ["_to_host", "assign_tokens"] if head == "MaskFormerHead" else ["assign_tokens"]
    assert train(build(with_head(toy_cfg(), head)), dtype) == matchings


@pytest.mark.parametrize("dtype", DTYPES)
def test_options_add_no_wait(dtype):
    cfg = toy_cfg()
    sgr = cfg.MODEL.SGR
    sgr.CLASS_WEIGHT, sgr.AREA_POWER, sgr.UNION, sgr.REGIONS, sgr.REGION_LAYERS = 1.0, 0.5, "sum", "softmax", 1
    sgr.NORM, sgr.NUM_PLACES, sgr.FUSION_POSITION = "BN", 3, True
    assert train(build(cfg), dtype) == ["assign_tokens"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_peers_wait_for_nothing(kind, dtype):
    cfg = toy_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.PEER.NAME, cfg.MODEL.PEER.DIM = "PeerSegmentor", kind, 16
    assert train(build(cfg), dtype) == []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_results_stay_on_the_gpu(head, windows, dtype):
    model = build(with_head(toy_cfg(), head)).eval()
    predict = SlidingWindow(model, size=(64, 64), stride=(32, 32), batch_size=2) if windows else model
    images = [{"image": toy_input(64, 96)["image"], "height": 90, "width": 131}, {"image": toy_input(45, 77)["image"]}]
    with fake_gpu(model, dtype) as waits, torch.no_grad():
        results = predict(images)
    assert [tuple(result["sem_seg"].shape) for result in results] == [(5, 90, 131), (5, 45, 77)]
    tensors = [t for r in results for t in (r["sem_seg"], r["sgr"].regions, r["sgr"].tokens)]
    assert {t.device.type for t in tensors} == {"cuda"} and waits.functions == []
