"""A GPU that is not there: torch's fake tensors have a device, a type and a shape, but no values.

Whatever mixes devices is an error with them, and so is a shape that depends on values. Backward passes need a real one.
"""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import sgr_d2

PACKAGE = os.path.dirname(sgr_d2.__file__)
aten = torch.ops.aten

# Before 2.10, torch asks the driver about copies and gradients of fake tensors, and aborts where there is none.
needs_driverless_torch = pytest.mark.skipif(
    not (torch.cuda.is_available() or hasattr(torch._C, "_ensureCUDADeviceGuardSet")),
    reason="needs torch 2.10 or newer where there is no GPU",
)


class Waits(TorchDispatchMode):
    """Notes the functions of sgr_d2 in which the host waits for the GPU; what is copied to the host falls from 1 to 0.

    Attributes:
        functions: names, in order. That of a copy to the GPU without ``non_blocking`` is among them.
    """

    def __init__(self):
        super().__init__()
        self.functions: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        target = kwargs.get("device")
        moves = func is aten._to_copy.default and target is not None and target.type != args[0].device.type
        if moves and target.type == "cpu":
            self._note()
            return _falling(args[0].shape, kwargs.get("dtype") or args[0].dtype)
        if func is aten._local_scalar_dense.default or (moves and not kwargs.get("non_blocking")):
            self._note()
        return func(*args, **kwargs)

    def _note(self) -> None:
        codes = (frame.f_code for frame, _ in traceback.walk_stack(None))
        self.functions.append(next((code.co_name for code in codes if code.co_filename.startswith(PACKAGE)), "?"))


class RealArrays(TorchFunctionMode):
    """Lets what came to the host become an array of its numbers; FakeTensorMode would take it for fake, too."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        with unset_fake_temporarily() if func is torch.Tensor.numpy else nullcontext():
            return func(*args, **(kwargs or {}))


def _falling(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    with unset_fake_temporarily():
        return torch.linspace(1, 0, shape.numel()).view(shape).to(dtype)


@contextmanager
def fake_gpu(model: nn.Module, dtype: torch.dtype | None = None) -> Iterator[Waits]:
    """Inside, ``model`` is on a fake GPU, under autocast to ``dtype`` if it is given; it cannot be used afterwards.

    torch.autocast itself would turn itself off where there is no GPU.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), Waits() as waits, RealArrays():
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    fake = torch.empty_like(parameter, device="cuda")
                    module._parameters[name] = nn.Parameter(fake, parameter.requires_grad)
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else torch.empty_like(buffer, device="cuda")
        torch.set_autocast_enabled("cuda", dtype is not None)
        torch.set_autocast_dtype("cuda", dtype or torch.float16)
        try:
            yield waits
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.clear_autocast_cache()
