import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from sgr_d2.engine.loop import TrainLoop


class Fragile(nn.Module):
    """Its loss is the input times a weight: as finite as the input."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.unused = nn.Parameter(torch.ones(1))

    def forward(self, data):
        return {"loss": self.weight.sum() * sum(x["value"] for x in data)}


def make(values, *, patience=2, amp=None):
    model = Fragile()
    loop = TrainLoop(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        device_type="cpu",
        amp_dtype=amp,
        max_nonfinite_steps=patience,
    )
    loop.data_loader = [[{"value": v, "file_name": f"image_{i}.png"}] for i, v in enumerate(values)]
    return loop


def steps(loop, number):
    with EventStorage():
        for loop.iter in range(number):
            loop.run_step()


def test_a_step_that_is_not_finite_changes_nothing_and_is_logged_with_its_images(caplog):
    loop = make([1.0, float("nan"), 1.0])
    with caplog.at_level("ERROR", logger="sgr_d2"):
        steps(loop, 3)
    assert loop.model.weight.item() == pytest.approx(1 - 0.2)
    assert "image_1.png" in caplog.text and "Iteration 1 skipped" in caplog.text


def test_too_many_in_a_row_stop_the_run_naming_images_and_key():
    loop = make([1.0, float("inf"), 1.0, float("nan"), float("nan"), 1.0])
    with pytest.raises(FloatingPointError, match=r"MAX_NONFINITE_STEPS.*iteration 4.*image_4.png"):
        steps(loop, 6)


def test_a_parameter_outside_the_loss_is_named(caplog):
    with caplog.at_level("WARNING", logger="sgr_d2"):
        steps(make([1.0, 1.0]), 2)
    assert caplog.text.count("take no part in the loss: unused") == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_mixed_precision_on_the_cpu(dtype):
    loop = make([1.0, 2.0], amp=dtype)
    steps(loop, 2)
    assert loop.model.weight.item() == pytest.approx(1 - 0.3, abs=1e-6)
    assert loop.scaler.is_enabled() == (dtype == "float16")
    assert "grad_scaler" in loop.state_dict()


def test_unknown_precision_lists_the_choices():
    with pytest.raises(ValueError, match=r"AMP.DTYPE = 'fp8'.*bfloat16.*float16"):
        make([1.0], amp="fp8")
