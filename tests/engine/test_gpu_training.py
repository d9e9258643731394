"""Training on one GPU, against the CPU and across a stop. `-m gpu` runs it."""

import pytest
import torch
from toy_runs import run

pytestmark = pytest.mark.gpu


def load(folder):
    return torch.load(folder / "model_final.pth", map_location="cpu", weights_only=True)


def test_a_gpu_trains_what_the_cpu_trains(config_file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # convolutions that round to ten bits
    # SGD: Adam would blow rounding up where a gradient is zero but for it
    options = ("SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", 0.01, "SOLVER.MAX_ITER", 4, "DATASETS.TEST", "()")
    for device, num_gpus in (("cpu", 0), ("cuda", 1)):
        run(config_file, *options, "MODEL.DEVICE", device, "OUTPUT_DIR", tmp_path / device, num_gpus=num_gpus)
    cpu, gpu = (load(tmp_path / device)["model"] for device in ("cpu", "cuda"))
    for key, expected in cpu.items():
        # of biases that a norm takes away again rounding is all there is (1e-9)
        error = (expected.float() - gpu[key].float()).norm() / expected.float().norm().clamp(min=1e-4)
        assert error < 1e-3, f"{key}: relative difference {error:.2e} after 4 steps"


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_mixed_precision_goes_on_after_a_stop(config_file, tmp_path, dtype, norm):
    options = ("MODEL.DEVICE", "cuda", "OUTPUT_DIR", tmp_path, "SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", dtype)
    options = (*options, "MODEL.TIMM.NORM", norm)
    run(config_file, *options, "SOLVER.MAX_ITER", 4, num_gpus=1)
    first = load(tmp_path)["trainer"]["_trainer"]["grad_scaler"]
    results = run(config_file, *options, "SOLVER.MAX_ITER", 8, num_gpus=1, resume=True)
    saved = load(tmp_path)
    second = saved["trainer"]["_trainer"]["grad_scaler"]
    assert bool(first) == bool(second) == (dtype == "float16")
    assert not first or (second["scale"] <= first["scale"] and second["_growth_tracker"] <= 8)
    assert all(value.isfinite().all() for value in saved["model"].values())
    assert 0 <= results["sem_seg"]["mIoU"] <= 100
