"""What the caller has set in PyTorch and NumPy does not change a verdict, and is as it was afterwards."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import numpy as np

_depth = [0]
"""Judgements under way in this process. They use threads of their own, so no thread can say whether it is in one."""


def judging() -> bool:
    """Whether nanhunt itself is computing: what goes wrong meanwhile is no fault of the program around it."""
    return _depth[0] > 0


@contextlib.contextmanager
def defaults_of_libraries() -> Iterator[None]:
    """PyTorch and NumPy as they are when a program starts, in this thread and those it starts; then as before.

    no_grad, inference mode, autocast, anomaly mode, default dtype and device, modes that intercept calls,
    flush-to-zero, np.errstate. Verdicts are about what PyTorch does as it is, gradients included.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        if "torch" in sys.modules:  # else nobody can have changed anything in it
            _defaults_of_torch(stack)
        _depth[0] += 1
        try:
            yield
        finally:
            _depth[0] -= 1


def _defaults_of_torch(stack: contextlib.ExitStack) -> None:
    import torch
    from torch.utils._python_dispatch import _disable_current_modes

    stack.enter_context(torch._C.DisableTorchFunction())  # the default device too
    stack.enter_context(_disable_current_modes())
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.enable_grad())
    stack.enter_context(torch.autocast("cpu", enabled=False))
    stack.enter_context(torch.autograd.set_detect_anomaly(False))
    dtype = torch.get_default_dtype()
    if dtype != torch.float32:
        torch.set_default_dtype(torch.float32)
        stack.callback(torch.set_default_dtype, dtype)
    if sys.float_info.min / 2 == 0.0:
        torch.set_flush_denormal(False)
        stack.callback(torch.set_flush_denormal, True)


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Blocks are small: two of them side by side, a thread each, beat two threads that meet after every operation.

    And a sum is the same on every machine: torch splits it over as many parts as it has threads.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
