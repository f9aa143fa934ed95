"""Whatever the caller has set in PyTorch and NumPy, the verdict is the same, and the setting is as it was."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import nanhunt

INF = float("inf")
LOGITS = torch.tensor(
    [[1000.0, 1.0, -1000.0], [-103.0, -103.5, -104.0], [0.0, -104.0, 1.0], [0.0, -95.0, 1.0], [2.0, -INF, 1.0],
     [20.0, 0.0, 0.0], [1e-40, -1e-40, 0.0], [88.5, 88.5, 88.5], [float("nan"), 0.0, 1.0], [0.5, 0.25, 1.0]]
)  # fmt: skip
LABELS = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 0, -100])
SOFT = torch.eye(3)[LABELS.clamp_min(0)]
WEIGHTS = torch.tensor([1.0, 2.0, 0.5])


def verdicts() -> str:
    """Everything that is said, of labels, probabilities and none."""
    reports = [
        nanhunt.compare(LOGITS, LABELS),
        nanhunt.check(LOGITS, LABELS, "float16", reduction="sum"),
        nanhunt.check(LOGITS, SOFT, label_smoothing=0.1, class_weights=WEIGHTS, temperature=0.7),
        nanhunt.check(LOGITS, None, "float64"),
    ]
    return "\n".join(report.to_json() for report in reports)


class Refuses(TorchFunctionMode):
    """A mode that lets nothing through."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(func)


class RefusesDispatch(TorchDispatchMode):
    """The same, lower down."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(func)


@contextlib.contextmanager
def setting(change: Callable[[Any], object], now: Any, before: Any) -> Iterator[None]:
    """A setting without a context manager of its own."""
    change(now)
    try:
        yield
    finally:
        change(before)


STATES: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "anomaly mode": lambda: torch.autograd.set_detect_anomaly(True),
    "default float64": lambda: setting(torch.set_default_dtype, torch.float64, torch.float32),
    "default float16": lambda: setting(torch.set_default_dtype, torch.float16, torch.float32),
    "default device": lambda: torch.device("meta"),
    "flush to zero": lambda: setting(torch.set_flush_denormal, True, False),
    "np.errstate": lambda: np.errstate(all="raise"),
    "function mode": Refuses,
    "dispatch mode": RefusesDispatch,
    "three threads": lambda: setting(torch.set_num_threads, 3, torch.get_num_threads()),
}


def state() -> dict[str, Any]:
    """What a caller may have set."""
    return {
        "grad": torch.is_grad_enabled(), "inference": torch.is_inference_mode_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "anomaly": torch.is_anomaly_enabled(), "dtype": torch.get_default_dtype(),
        "flushes": sys.float_info.min / 2 == 0, "errstate": np.geterr(), "threads": torch.get_num_threads(),
        "modes": (torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()),
    }  # fmt: skip


@pytest.fixture(scope="module")
def usual() -> str:
    """The verdicts of a caller who has set nothing."""
    return verdicts()


@pytest.mark.parametrize("name", STATES)
def test_the_callers_state_changes_no_verdict_and_is_left_as_it_was(name: str, usual: str) -> None:
    before = state()
    with STATES[name]():
        during = state()
        assert name in ("default device",) or during != before
        said = verdicts()
        assert state() == during
    assert state() == before
    assert said == usual


def test_no_random_number_is_drawn() -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    verdicts()
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    assert torch.equal(before[0], after[0])
    assert (before[1] == after[1]).all()
    assert before[2] == after[2]


def test_an_error_puts_the_state_back_too() -> None:
    with torch.inference_mode():
        with pytest.raises(nanhunt.NanhuntError):
            nanhunt.check(torch.ones(3, dtype=torch.int64))
        assert torch.is_inference_mode_enabled()
