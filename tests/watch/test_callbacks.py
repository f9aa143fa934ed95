"""``nanhunt.watch()``: torch is left as it was found, and trainers can call it."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

import nanhunt.watch
from nanhunt.errors import NanhuntError
from nanhunt.options import declared
from nanhunt.watch import NanFoundError, Watch, watch
from nanhunt.watch.options import WatchOptions

OPTIMIZER = importlib.import_module("torch.optim.optimizer")


def bad_step() -> None:
    x = torch.nn.Parameter(torch.tensor([1.0, 100.0]))
    e = x.exp()
    (e / e.sum()).max().backward()


def patched_names() -> list[Any]:
    return [
        torch.autograd.backward,
        torch.autograd.grad,
        torch.compile,
        torch.nn.Module.__call__,
        torch.autograd.Function.__dict__["apply"],
        torch.optim.Optimizer.zero_grad,
        torch.amp.GradScaler.scale,
        torch.amp.GradScaler.step,
        torch._C._len_torch_function_stack(),
        len(OPTIMIZER._global_optimizer_pre_hooks),
        len(OPTIMIZER._global_optimizer_post_hooks),
    ]


def test_torch_is_left_as_it_was_found(tmp_path: Path) -> None:
    before = patched_names()
    with nanhunt.watch(capture_dir=str(tmp_path)):
        assert patched_names() != before
    assert patched_names() == before
    with pytest.raises(NanFoundError), nanhunt.watch(capture_dir=str(tmp_path)):
        bad_step()
    assert patched_names() == before


def test_the_exception_is_the_report_and_holds_the_incident(tmp_path: Path) -> None:
    expected = r"NH101 exp-overflow: max 100 > 88\.7228"
    with pytest.raises(NanFoundError, match=expected) as caught, nanhunt.watch(capture_dir=str(tmp_path)):
        bad_step()
    [culprit] = caught.value.incident.culprits
    assert (culprit.operation, culprit.rule, culprit.site.function) == ("exp", "NH101", "bad_step")


def test_keep_going_collects_up_to_the_limit(tmp_path: Path) -> None:
    reports: list[Any] = []
    with nanhunt.watch(
        keep_going=True, max_reports=2, capture_dir=str(tmp_path), report=reports.append
    ) as watch:
        for _ in range(4):
            bad_step()
    assert len(watch.incidents) == len(reports) == 2


class Trainer:
    """Calls callbacks in the order Lightning and Transformers do."""

    def __init__(self, hooks: tuple[str, ...], callback: Watch) -> None:
        self.hooks, self.callback = hooks, callback

    def fit(self, step: Any) -> None:
        first, last = self.hooks[: len(self.hooks) // 2], self.hooks[len(self.hooks) // 2 :]
        for name in first:
            getattr(self.callback, name)(self, object(), batch=None)
        step()
        for name in last:
            getattr(self.callback, name)(self, object())


@pytest.mark.parametrize(
    "hooks",
    [
        ("setup", "on_fit_start", "on_train_batch_start", "on_train_batch_end", "on_fit_end", "teardown"),
        ("on_init_end", "on_train_begin", "on_step_begin", "on_step_end", "on_log", "on_train_end"),
    ],
)
def test_a_trainer_starts_and_stops_it(hooks: tuple[str, ...], tmp_path: Path) -> None:
    before = patched_names()
    callback = nanhunt.watch(capture_dir=str(tmp_path))
    with pytest.raises(NanFoundError):
        Trainer(hooks, callback).fit(bad_step)
    callback.stop()
    assert patched_names() == before
    Trainer(hooks, callback).fit(lambda: None)
    assert patched_names() == before


def test_an_unknown_attribute_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'step'"):
        _ = nanhunt.watch().step


def test_tensorboard_logs_each_step(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with nanhunt.watch(tensorboard=str(tmp_path / "log"), capture_dir=str(tmp_path)):
        weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
        for _ in range(2):
            (weight * 2).log_softmax(-1)[0, 0].neg().backward()
    log = events.EventAccumulator(str(tmp_path / "log"))
    log.Reload()
    assert sorted(log.Tags()["scalars"]) == [
        f"nanhunt/{name}" for name in ("gradient_norm", "headroom", "largest_logit", "loss")
    ]
    assert [event.value for event in log.Scalars("nanhunt/largest_logit")] == [8.0, 8.0]
    assert log.Scalars("nanhunt/headroom")[0].value == pytest.approx(80.7228, abs=1e-4)


def test_the_keywords_of_watch_are_the_options_of_run(tmp_path: Path) -> None:
    given = inspect.signature(nanhunt.watch).parameters
    assert set(given) == {*declared(WatchOptions), "report"}
    assert all(f"\n        {name}: " in (watch.__doc__ or "") for name in given)
    settings = nanhunt.watch(max_reports=3, every_op=True, capture_dir=tmp_path).settings
    assert (settings.max_reports, settings.every_op, settings.capture_dir) == (3, True, str(tmp_path))


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"max_report": 3}, "keyword max_report is not known"),
        ({"max_reports": 0}, "max_reports = 0 is out of its range"),
        ({"keep_going": 1}, "keep_going = 1 is not true or false"),
    ],
)
def test_a_wrong_keyword_of_watch_is_said_as_python_spells_it(keywords: dict[str, Any], said: str) -> None:
    with pytest.raises(NanhuntError, match=said):
        nanhunt.watch(**keywords)
