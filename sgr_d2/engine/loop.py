"""One training step, the same on CPU and GPU, with or without mixed precision."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from sgr_d2.checks import check_choice
from sgr_d2.messages import first_few

from .norm_statistics import NormStatistics

logger = logging.getLogger(__name__)

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def split_batch(data: list[dict], parts: int) -> list[list[dict]]:
    """Split a batch into parts of nearly equal size.

    Raises:
        ValueError: if there are fewer images than parts.
    """
    if len(data) < parts:
        raise ValueError(
            f"SOLVER.ACCUMULATION_STEPS = {parts}, but a process has only {len(data)} image(s) per step "
            "(SOLVER.IMS_PER_BATCH is the batch of all processes and parts together)."
        )
    bounds = [len(data) * part // parts for part in range(parts + 1)]
    return [data[start:end] for start, end in pairwise(bounds)]


def on_host(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy the losses to the CPU at once; Detectron2's log would fetch them from a GPU one by one."""
    values = torch.stack([loss.reshape(()) for loss in losses.values()]).cpu()
    return dict(zip(losses, values.unbind(), strict=True))


class TrainLoop(SimpleTrainer):
    """Detectron2's step, with autocast on any device; skips and reports steps with non-finite losses or gradients.

    In float16, overflowing gradients are normal while the loss scale is being found: such a step is skipped, too, but
    it does not count towards ``max_nonfinite_steps`` until the scale is below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        device_type: str,
        amp_dtype: str | None,
        max_nonfinite_steps: int,
        accumulation_steps: int = 1,
        watch: Callable[[list[dict]], None] | None = None,
    ):
        """
        Args:
            model: returns a dict of losses in training.
            optimizer: of its parameters.
            device_type: "cpu" or "cuda".
            amp_dtype: "float16" or "bfloat16" for mixed precision, None for float32.
            max_nonfinite_steps: stop the run after this many steps in a row with non-finite losses or gradients.
            accumulation_steps: pass each batch through the model in this many parts and add up their gradients.
            watch: called with each batch, before the step.

        Raises:
            ValueError: for an unknown dtype.
        """
        super().__init__(model, None, optimizer)
        if amp_dtype is not None:
            check_choice("SOLVER.AMP.DTYPE", amp_dtype, sorted(DTYPES))
        self.device_type = device_type
        self.amp_dtype = DTYPES.get(amp_dtype)
        self.scaler = torch.amp.GradScaler(device_type, enabled=self.amp_dtype is torch.float16)
        self.max_nonfinite_steps = max_nonfinite_steps
        if accumulation_steps < 1:
            raise ValueError(f"SOLVER.ACCUMULATION_STEPS = {accumulation_steps}: give 1 or more.")
        self.accumulation_steps = accumulation_steps
        self.watch = watch
        self.norm_statistics = NormStatistics(model)
        self.nonfinite_steps = 0
        self.skipped_steps = 0
        self._gradients_checked = False

    def run_step(self) -> None:
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        if self.watch is not None:
            self.watch(data)
        self.optimizer.zero_grad()
        self.norm_statistics.keep()
        parts = split_batch(data, self.accumulation_steps)
        losses: list[dict[str, Tensor]] = []
        for number, part in enumerate(parts, 1):
            with self._exchange_gradients(number == len(parts)):
                losses.append(self._backward(part, len(part) / len(data)))
        self.scaler.unscale_(self.optimizer)
        if not self._finite(losses, parts):
            return
        self.nonfinite_steps = 0
        self._check_gradients()
        self.after_backward()
        shares = [len(part) / len(data) for part in parts]
        mean = {name: sum(share * of[name] for share, of in zip(shares, losses, strict=True)) for name in losses[0]}
        on_cpu = on_host(mean)  # no extra wait: `_finite` has already synchronised
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._write_metrics(on_cpu, data_time)  # while the device steps: here the ranks exchange them

    def _backward(self, data: list[dict], share: float) -> dict[str, Tensor]:
        """Add the gradients of ``share`` times the losses of ``data``, and return the losses."""
        with torch.autocast(self.device_type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
            losses = self.model(data)
        self.scaler.scale(sum(losses.values()) * share).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def _exchange_gradients(self, wanted: bool) -> AbstractContextManager:
        """Several processes add up their gradients once per step, in the backward pass of the last part."""
        return nullcontext() if wanted or not hasattr(self.model, "no_sync") else self.model.no_sync()

    def _finite(self, losses: list[dict[str, Tensor]], parts: list[list[dict]]) -> bool:
        """Whether all losses and gradients are finite on every rank; if not, the step counts as skipped.

        Costs one exchange and one device sync per step. All ranks get the same answer, so they skip together.
        """
        here = torch.stack([torch.isfinite(sum(of.values())) for of in losses])
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flags = torch.stack([here.all(), torch.isfinite(get_total_norm(gradients))]).float()
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MIN)
        losses_finite, gradients_finite = flags.bool().tolist()
        if losses_finite and gradients_finite:
            return True
        self.norm_statistics.put_back()
        self.skipped_steps += 1
        get_event_storage().put_scalar("skipped_steps", self.skipped_steps, smoothing_hint=False)
        if self.scaler.is_enabled():
            self.scaler.update()
            if losses_finite and self.scaler.get_scale() >= 1:
                logger.info(
                    "Iteration %d skipped: gradients overflow in float16. The losses are scaled by %g from now on.",
                    *(self.iter, self.scaler.get_scale()),
                )
                return False
        if not losses_finite:
            self._skip(_blame_losses(losses, parts, here.tolist()))
        else:
            self._skip(_blame_gradients(self.model, parts))
        return False

    def _skip(self, blame: str) -> None:
        self.nonfinite_steps += 1
        logger.error("Iteration %d skipped, not finite: %s", self.iter, blame)
        if self.nonfinite_steps >= self.max_nonfinite_steps:
            raise FloatingPointError(
                f"{self.nonfinite_steps} steps in a row without finite losses and gradients "
                f"(SOLVER.MAX_NONFINITE_STEPS); last, at iteration {self.iter}: {blame}. Look at these images and "
                "labels, lower SOLVER.BASE_LR, or use SOLVER.AMP.DTYPE bfloat16."
            )

    def _check_gradients(self) -> None:
        """After the first step: parameters without a gradient never learn, and make multi-process training fail."""
        if self._gradients_checked:
            return
        self._gradients_checked = True
        unused = [name for name, p in self.model.named_parameters() if p.requires_grad and p.grad is None]
        if not unused:
            return
        text = f"{len(unused)} parameters take no part in the loss: {', '.join(unused)}."
        if comm.get_world_size() > 1:
            raise ValueError(
                f"{text} Leave out what is not used: features (OUT_FEATURES of the backbone), or a loss for which the "
                "data have no target (set its weight to 0)."
            )
        logger.warning("%s They never learn, and training in several processes would fail.", text)

    def state_dict(self) -> dict:
        counts = {"nonfinite_steps": self.nonfinite_steps, "skipped_steps": self.skipped_steps}
        return super().state_dict() | counts | {"grad_scaler": self.scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        self.nonfinite_steps = state_dict.get("nonfinite_steps", 0)  # not in older files
        self.skipped_steps = state_dict.get("skipped_steps", 0)
        if state_dict["grad_scaler"]:
            self.scaler.load_state_dict(state_dict["grad_scaler"])
        elif self.scaler.is_enabled():
            logger.info("The checkpoint was not trained in float16: the loss scale starts from its initial value.")


def _blame_losses(losses: list[dict[str, Tensor]], parts: list[list[dict]], finite: list[bool]) -> str:
    if all(finite):
        return "the loss of another rank"
    index = finite.index(False)
    return f"losses { {name: loss.item() for name, loss in losses[index].items()} } of images {_names(parts[index])}"


def _blame_gradients(model: nn.Module, parts: list[list[dict]]) -> str:
    broken = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    images = [name for part in parts for name in _names(part)]
    return f"the gradients of {len(broken)} parameters ({first_few(broken, 3)}), with images {images}"


def _names(images: list[dict]) -> list[str]:
    return [x.get("file_name", "?") for x in images]
