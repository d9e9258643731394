from contextlib import contextmanager

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage
from fake_gpu import fake_gpu
from fvcore.nn.precise_bn import update_bn_stats
from torch import nn

from sgr_d2.engine.loop import TrainLoop, on_host


class Fragile(nn.Module):
    """Its loss is the input times a weight: as finite as the input."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.unused = nn.Parameter(torch.ones(1))

    def forward(self, data):
        return {"loss": self.weight.sum() * sum(x["value"] for x in data)}


def make(values, *, model=None, patience=2, amp=None, parts=1, batch=1):
    model = model or Fragile()
    loop = TrainLoop(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        device_type="cpu",
        amp_dtype=amp,
        max_nonfinite_steps=patience,
        accumulation_steps=parts,
    )
    images = [{"value": v, "file_name": f"image_{i}.png"} for i, v in enumerate(values)]
    loop.data_loader = [images[start : start + batch] for start in range(0, len(images), batch)]
    return loop


def steps(loop, number):
    """The storage with what they log."""
    with EventStorage() as storage:
        for loop.iter in range(number):
            loop.run_step()
    return storage


def test_a_step_that_is_not_finite_changes_nothing_and_is_logged_with_its_images(caplog):
    loop = make([1.0, float("nan"), 1.0])
    with caplog.at_level("ERROR", logger="sgr_d2"):
        steps(loop, 3)
    assert loop.model.weight.item() == pytest.approx(1 - 0.2)
    assert "image_1.png" in caplog.text and "Iteration 1 skipped" in caplog.text


def test_the_losses_come_to_the_host_in_one_copy():
    assert on_host({"a": torch.ones(1), "b": torch.tensor(2.0)}) == {"a": torch.tensor(1.0), "b": torch.tensor(2.0)}
    with fake_gpu(nn.Module()) as waits:
        losses = on_host({"a": torch.ones((), device="cuda"), "b": torch.ones(1, device="cuda")})
    assert waits.functions == ["on_host"]
    assert [(name, loss.device.type, loss.dim()) for name, loss in losses.items()] == [("a", "cpu", 0), ("b", "cpu", 0)]


class Normed(Fragile):
    """With a norm that follows the statistics of the batches."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(1)

    def forward(self, data):
        return {"loss": (self.weight * self.norm(torch.tensor([[x["value"]] for x in data]))).square().sum()}


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_that_is_not_finite_leaves_the_statistics_of_norms(parts):
    images, bad = [1.0, 2.0, 3.0, 5.0], [1.0, 2.0, 3.0, float("inf")]
    loop = make(images + bad + images, model=Normed(), parts=parts, batch=4)
    untroubled = make(images + images, model=Normed(), parts=parts, batch=4)
    steps(loop, 3)
    steps(untroubled, 2)
    assert loop.skipped_steps == 1 and loop.model.norm.num_batches_tracked == 2 * parts
    torch.testing.assert_close(loop.model.state_dict(), untroubled.model.state_dict())


def test_statistics_that_precise_bn_put_in_their_place_are_kept_too():
    loop = make([1.0, 2.0, float("inf"), 3.0], model=Normed(), batch=2)
    steps(loop, 1)
    update_bn_stats(loop.model, [[{"value": 5.0}, {"value": 7.0}]], num_iters=1)  # replaces the buffers
    before = {name: value.clone() for name, value in loop.model.state_dict().items()}
    assert before["norm.running_mean"].item() == pytest.approx(6.0)
    with EventStorage():
        loop.run_step()
    assert loop.skipped_steps == 1
    torch.testing.assert_close(loop.model.state_dict(), before, rtol=0, atol=0)


def test_too_many_in_a_row_stop_the_run_naming_images_and_key():
    loop = make([1.0, float("inf"), 1.0, float("nan"), float("nan"), 1.0])
    with pytest.raises(FloatingPointError, match=r"MAX_NONFINITE_STEPS.*iteration 4.*image_4.png"):
        steps(loop, 6)


class SteepAtZero(Fragile):
    """A finite loss; its gradient is not, where an image says so."""

    def forward(self, data):
        root = sum((self.weight * x["value"] - self.weight * x["value"] + (1 - x["steep"])).sqrt().sum() for x in data)
        return {"loss": self.weight.sum() + root}


def steep(flags, **options):
    loop = make([1.0] * len(flags), **options)
    loop.model.__class__ = SteepAtZero
    for (image,), flag in zip(loop.data_loader, flags, strict=True):
        image["steep"] = float(flag)
    return loop


def test_a_gradient_that_is_not_finite_changes_nothing(caplog):
    loop = steep([0, 1, 0])
    with caplog.at_level("ERROR", logger="sgr_d2"):
        steps(loop, 3)
    assert loop.model.weight.item() == pytest.approx(1 - 0.2) and loop.skipped_steps == 1
    assert "Iteration 1 skipped" in caplog.text and "the gradients of 1 parameters (weight" in caplog.text
    assert "image_1.png" in caplog.text
    with pytest.raises(FloatingPointError, match=r"2 steps in a row.*iteration 2.*gradients of 1.*image_2.png"):
        steps(steep([0, 1, 1]), 3)


def test_float16_looks_for_its_scale_before_steps_count(caplog):
    loop = make([64.0] * 8, amp="float16", patience=1)
    loop.scaler.load_state_dict(loop.scaler.state_dict() | {"scale": 2.0**127})
    with caplog.at_level("INFO", logger="sgr_d2"), EventStorage() as storage:
        for loop.iter in range(8):
            loop.run_step()
        assert storage.latest()["skipped_steps"][0] == 6  # until 64 * 2**121 fits into float32
    assert loop.model.weight.item() == pytest.approx(1 - 2 * 6.4)
    assert "gradients overflow in float16. The losses are scaled by 2.65846e+36" in caplog.text
    # a gradient that no scale saves
    loop = steep([1] * 40, amp="float16", patience=2)
    with pytest.raises(FloatingPointError, match=r"2 steps in a row"):
        steps(loop, 40)
    assert loop.scaler.get_scale() < 1 and loop.model.weight.item() == 1.0


def test_a_loss_that_is_not_a_number_counts_in_float16_too():
    """No scale of the loss saves it."""
    with pytest.raises(FloatingPointError, match=r"2 steps in a row.*iteration 2.*image_2.png"):
        steps(make([1.0, float("nan"), float("nan"), 1.0], amp="float16"), 4)


def test_a_resumed_float16_run_goes_on_with_its_scale():
    first, second = make([1.0, 1.0], amp="float16"), make([1.0], amp="float16")
    first.scaler.load_state_dict(first.scaler.state_dict() | {"scale": 1024.0})
    steps(first, 2)
    second.load_state_dict(first.state_dict())
    assert second.scaler.get_scale() == 1024.0
    assert second.scaler.state_dict() == first.scaler.state_dict()


class Look(HookBase):
    """Notes gradient and weight between the backward pass and the step."""

    seen = ()

    def after_backward(self):
        self.seen += ((self.trainer.model.weight.grad.item(), self.trainer.model.weight.item()),)


def test_hooks_see_the_gradients_before_the_step():
    loop, look = make([3.0, float("nan"), 5.0]), Look()
    loop.register_hooks([look])
    steps(loop, 3)
    assert look.seen == (pytest.approx((3.0, 1.0)), pytest.approx((5.0, 0.7)))


@pytest.mark.parametrize(("dtype", "expected"), [(None, torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_model_runs_in_the_precision_asked_for(dtype, expected):
    seen = []
    loop = make([1.0], amp=dtype)
    loop.model.register_forward_pre_hook(lambda *_: seen.append((torch.ones(1, 1) @ torch.ones(1, 1)).dtype))
    steps(loop, 1)
    assert seen == [expected]


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


class Mean(Fragile):
    """Its loss is the mean over the images, as the losses of real models are."""

    def forward(self, data):
        return {"loss": self.weight.square().sum() * sum(x["value"] for x in data) / len(data)}


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_parts_of_a_batch_give_the_gradient_and_the_logged_loss_of_the_whole(parts):
    values = [1.0, 2.0, 3.0, 4.0, 6.0, 5.0, 7.0, 0.5, 0.25, 1.5]
    loop, whole = make(values, parts=parts, batch=5), make(values, batch=5)
    for each in (loop, whole):
        each.model.__class__ = Mean
    logged = [steps(each, 2).latest()["total_loss"][0] for each in (loop, whole)]
    assert logged[0] == pytest.approx(logged[1], rel=1e-6)
    assert loop.model.weight.item() == pytest.approx(whole.model.weight.item(), rel=1e-6)


class Parallel(Fragile):
    """Notes, as a model of several processes does, which backward passes exchange gradients."""

    exchange, seen = True, ()

    @contextmanager
    def no_sync(self):
        self.exchange = False
        yield
        self.exchange = True

    def forward(self, data):
        self.seen += (self.exchange,)
        return super().forward(data)


def test_gradients_are_exchanged_once_with_the_last_part():
    loop = make([1.0] * 6, model=Parallel(), parts=3, batch=3)
    steps(loop, 2)
    assert loop.model.seen == (False, False, True) * 2


def test_a_part_that_is_not_finite_skips_the_whole_step():
    loop = make([1.0, float("nan"), 1.0, 1.0], parts=2, batch=2)
    steps(loop, 1)
    assert loop.model.weight.item() == 1.0
    steps(loop, 1)
    assert loop.model.weight.item() == pytest.approx(1 - 0.1)


def test_more_parts_than_images_and_no_part_name_the_key():
    with pytest.raises(ValueError, match=r"ACCUMULATION_STEPS = 3.*only 2 image"):
        steps(make([1.0, 1.0], parts=3, batch=2), 1)
    with pytest.raises(ValueError, match=r"ACCUMULATION_STEPS = 0"):
        make([1.0], parts=0)


def test_steps_with_one_bad_part_stop_the_run():
    loop = make([1.0, float("nan")] * 3, parts=2, batch=2, patience=3)
    with pytest.raises(FloatingPointError, match=r"3 steps in a row.*of images \['image_5.png'\]"):
        steps(loop, 3)


def test_a_float32_run_goes_on_in_float16_and_back(caplog):
    plain, half = make([1.0] * 2), make([1.0] * 2, amp="float16")
    for loop in (plain, half):
        steps(loop, 1)
    with caplog.at_level("INFO", logger="sgr_d2"):
        make([1.0], amp="float16").load_state_dict(plain.state_dict())
    assert "not trained in float16" in caplog.text
    make([1.0]).load_state_dict(half.state_dict())


def test_skipped_steps_go_on_counting_after_a_resume():
    bad = float("nan")
    first, second, old = (make(values, patience=3) for values in ([1.0, bad, bad], [bad], [bad]))
    steps(first, 3)
    saved = first.state_dict()
    second.load_state_dict(saved)
    with pytest.raises(FloatingPointError, match=r"3 steps in a row"):
        steps(second, 1)
    assert second.skipped_steps == 3
    old.load_state_dict({key: saved[key] for key in ("iteration", "optimizer", "grad_scaler")})
    steps(old, 1)
    assert old.skipped_steps == 1
