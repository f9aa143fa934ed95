"""The table of ``compare``: implementations and truth as columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nanhunt.render.phrases import count, error_bound, number, unit
from nanhunt.results.tensor import Implementation, TensorReport


@dataclass(frozen=True)
class Comparison:
    """The side-by-side table: implementations and truth as columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    """(label, one cell per column)."""
    remarks: tuple[str, ...]


def comparison(tensor: TensorReport) -> Comparison | None:
    """The table of ``compare``; None for a check, which tells no losses and no errors."""
    if tensor.role == "operands":
        return _comparison_of_forms(tensor)
    runs = tensor.implementations
    if all(run.loss is None for run in runs.values()):
        return None
    truth = tensor.truth.loss if tensor.truth else None
    loss = (_loss_label(tensor), (*(_cell(run, "loss") for run in runs.values()), number(truth)))
    rest = [(label, (*(_cell(run, name) for run in runs.values()), "")) for label, name in _MEASURES]
    return Comparison((*runs, "truth"), (loss, *rest), tuple(_remarks(tensor)))


def _comparison_of_forms(tensor: TensorReport) -> Comparison | None:
    """The same for an operation that has no rows of classes: its forms are the columns."""
    runs = tensor.implementations
    if all(run.loss is None and run.max_error is None for run in runs.values()):
        return None
    lines = [
        (label.format(unit=unit(tensor)), (*(_cell(run, name) for run in runs.values()), ""))
        for label, name in _FORM_MEASURES
    ]
    truth = tensor.truth.loss if tensor.truth else None
    if truth is not None:
        losses = (*(_cell(run, "loss") for run in runs.values()), number(truth))
        lines.insert(0, (_reduced_loss(tensor), losses))
    return Comparison((*runs, "truth"), tuple(lines), ())


_FORM_MEASURES = (
    ("bad {unit}s", "bad_value_rows"),
    ("bad-gradient {unit}s", "bad_gradient_rows"),
    ("wrong {unit}s", "wrong_rows"),
    ("largest error", "max_error"),
)


_MEASURES = (
    ("NaN-probability rows", "nan_probability_rows"),
    ("zero target p, rows", "zero_target_probability_rows"),
    ("infinite-loss rows", "inf_loss_rows"),
    ("NaN-loss rows", "nan_loss_rows"),
    ("bad-gradient rows", "nonfinite_gradient_rows"),
    ("largest loss error", "max_loss_error"),
)


def _cell(run: Implementation, name: str) -> str:
    value = getattr(run, name)
    if name in ("max_loss_error", "max_error") and value is not None:
        return error_bound(value)
    return number(value) if value is None or isinstance(value, float) else count(value)


def _reduced_loss(tensor: TensorReport) -> str:
    return {"mean": "mean loss", "sum": "summed loss"}.get(str(tensor.options.get("reduction")), "loss")


def _loss_label(tensor: TensorReport) -> str:
    reduction = _reduced_loss(tensor)
    return reduction if tensor.targets else f"{reduction}, worst label"


def _remarks(tensor: TensorReport) -> Iterable[str]:
    if not tensor.targets and not any("worst label" in note for note in tensor.notes):
        yield "No labels: the losses are for each row's worst label, its least likely unmasked class."
    cast = tensor.truth.cast_loss_error if tensor.truth else None
    if cast:
        yield f"Casting the logits to {tensor.dtype} alone moves a true row loss by up to {error_bound(cast)}."
