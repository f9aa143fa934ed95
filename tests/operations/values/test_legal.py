"""What may be infinite without being a fault, and what may not however it is called."""

from __future__ import annotations

import numpy as np
import pytest

from nanhunt.load.tensor import Tensor
from nanhunt.operations.options import JudgeOptions
from nanhunt.operations.rules import RULES
from nanhunt.operations.values.check import check_values
from nanhunt.parallel import Fastest
from nanhunt.results.tensor import TensorReport

INF, NAN = np.inf, np.nan
CHECKPOINT = "callbacks.ModelCheckpoint{'monitor': None, 'mode': 'min'}"


def judged(name: str, values: object, dtype: str = "float32") -> TensorReport:
    """The report on values of that name in a checkpoint."""
    data = np.asarray(values, np.float32)
    tensor = Tensor("x.ckpt", name, "float32", data.shape, lambda: data)
    ((_, reports),) = check_values(
        (tensor,), lambda _: (dtype,), JudgeOptions(), frozenset(RULES), lambda _: None, Fastest()
    )
    assert not isinstance(reports, Exception)
    return reports[0]


def codes(report: TensorReport) -> list[str]:
    return [finding.code for finding in report.findings]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (f"{CHECKPOINT}.kth_value", INF),
        (f"{CHECKPOINT}.best_model_score", -INF),
        (f"{CHECKPOINT}.best_k_models./runs/a/epoch=1.ckpt", INF),
        ("callbacks.EarlyStopping.best_score", INF),
        ("best_val_loss", INF),
        ("best_acc", [-INF]),
        ("lr_schedulers.0.best", INF),
        ("lr_schedulers.0.mode_worse", INF),
        ("args.max_grad_norm", INF),
        ("hyper_parameters.clip", INF),
        ("val_losses", [1.0, INF]),
        ("model.act.activation_post_process.min_val", INF),
        ("state_dict.act.max_val", -INF),
    ],
)
def test_bookkeeping_starts_at_infinity(name: str, value: object) -> None:
    report = judged(name, value)
    assert not report.findings
    assert "beside the weights" in report.notes[0]


@pytest.mark.parametrize("name", ["best_val_loss", f"{CHECKPOINT}.best_model_score", "loss", "args.lr"])
def test_a_metric_that_is_nan_is_a_note(name: str) -> None:
    (finding,) = judged(name, NAN).findings
    assert (finding.code, finding.severity) == ("NH503", "note")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logit_scale", INF),
        ("model.logit_scale", NAN),
        ("state_dict.criterion.loss", NAN),
        ("state_dict.act.max_val", NAN),
        ("optimizer.state.0.step", INF),
        ("optimizer.param_groups.0.lr", NAN),
        ("param_groups.0.betas", [0.9, NAN]),
        ("lr_schedulers.0.base_lrs.0", NAN),
        ("_last_lr", [NAN]),
        ("scaler.scale", INF),
        ("callbacks.EMA.ema_weights.bias", [NAN]),
        ("callbacks.WeightAveraging.average_model_state.score", NAN),
        ("ema_model.loss", NAN),
        ("loss.weight", INF),
        ("scores", [[INF]]),
        ("loss", [[INF, 1.0]]),
        ("state_dict.act.min_val", [INF, 1.0]),
        ("callbacks.Swa.vector", [1.0, NAN]),
    ],
)
def test_what_training_goes_on_with_is_never_bookkeeping(name: str, value: object) -> None:
    assert codes(judged(name, value)) == ["NH501"]


def causal(rows: int, columns: int, shift: int = 0) -> np.ndarray:
    return np.triu(np.full((rows, columns), -INF, np.float32), 1 + shift)


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("state_dict.mask", causal(6, 6)),
        ("transformer.h.0.attn.bias", np.broadcast_to(causal(5, 5), (1, 1, 5, 5))),
        ("attn_mask", causal(3, 3)),
        ("alibi", causal(4, 4) - np.tril(np.ones((4, 4), np.float32))),
        ("cache", causal(3, 5, 2)),
        ("wide", causal(3, 5)),
        ("padding_mask", [[0, 0, -INF], [0, -INF, -INF]]),
        ("window.attn_mask", [-INF, 0, -INF, 0]),
    ],
)
def test_masks_are_legal(name: str, mask: object) -> None:
    report = judged(name, mask)
    assert not report.findings
    assert "mask" in report.notes[0]


def with_one(values: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    values = values.copy()
    values[place] = value
    return values


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("mask", with_one(causal(6, 6), (3, 0), NAN)),
        ("mask", with_one(causal(6, 6), (3, 0), INF)),
        ("attn_mask", with_one(np.ones((3, 3)), (0, 0), -INF)),
        ("bias", with_one(causal(6, 6), (3, 0), -INF)),
        ("bias", with_one(with_one(causal(6, 6), (3, 0), -INF), (0, 5), 0)),
        ("bias", causal(6, 6).T),
        ("weight", causal(2, 2)),
        ("weight", np.full((4, 4), -INF)),
        ("lora_b", with_one(np.zeros((3, 3)), (0, 2), -INF)),
        ("bias", [0, -INF, -INF]),
    ],
)
def test_what_only_looks_like_a_mask_is_a_fault(name: str, values: object) -> None:
    assert codes(judged(name, values)) == ["NH501"]


def test_the_lowest_number_of_a_mask_may_overflow_in_a_cast() -> None:
    lowest = np.where(np.triu(np.ones((4, 4)), 1) > 0, np.finfo(np.float32).min, 0)
    assert not judged("attn_mask", lowest, "float16").findings
    assert codes(judged("attn.weight", lowest, "float16")) == ["NH504"]
    for other in (1e6, -1.0):
        assert codes(judged("attn_mask", with_one(lowest, (3, 0), other), "float16")) == ["NH504"]
    assert codes(judged("attn_mask", [0, -70_000, -70_000], "float16")) == ["NH504"]


def test_a_complex_value_is_said_to_be_judged_by_parts() -> None:
    from nanhunt.load.tensor import as_real

    data = np.array([1, complex(0, NAN)])
    tensor = as_real(Tensor("x.pt", "z", "complex128", (2,), lambda: data))
    ((_, reports),) = check_values(
        (tensor,), lambda _: ("float64",), JudgeOptions(), frozenset(RULES), lambda _: None, Fastest()
    )
    assert not isinstance(reports, Exception)
    assert reports[0].findings[0].rows == (3,)
    assert "[1, 1]" in reports[0].findings[0].message
    assert "complex128" in reports[0].notes[0]
