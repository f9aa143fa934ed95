"""Every option of check and compare, under one name each: command line, config key and field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nanhunt.errors import NanhuntError

DTYPES = ("float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")
FAIL_ON = ("error", "warning", "note", "never")
REDUCTIONS = ("mean", "sum")
_SHORT = {
    "fp64": "float64", "double": "float64", "fp32": "float32", "float": "float32", "fp16": "float16",
    "half": "float16", "bf16": "bfloat16", "fp8": "float8_e4m3fn", "e4m3": "float8_e4m3fn", "e5m2": "float8_e5m2",
}  # fmt: skip
"""What people type for a dtype."""


@dataclass(frozen=True)
class Options:
    """What the user asked for. Validated where it is parsed, trusted everywhere below."""

    dtype: tuple[str, ...] = ()
    """Judge in these dtypes; empty: the dtype in the file."""
    logits: tuple[str, ...] = ()
    """Names or globs of the tensors to judge as logits; empty: found by shape and name."""
    targets: str | None = None
    """FILE, NAME or FILE:NAME of the labels or probability targets; NAME may be a glob."""
    shift: bool | None = None
    """Judge logits[:, :-1] against labels[:, 1:], as causal language models do; None: where that is recognised."""
    class_axis: int = -1
    temperature: float = 1.0
    ignore_index: int = -100
    label_smoothing: float = 0.0
    class_weights: str | None = None
    """FILE or FILE:NAME of one weight per class."""
    reduction: str = "mean"
    stored_dtype: str | None = None
    """What a |V1 or |V2 .npy holds, which its header cannot say."""
    fail_on: str = "warning"
    select: tuple[str, ...] = ()
    """Codes, names or code prefixes; empty: all rules."""
    ignore: tuple[str, ...] = ()
    max_rows: int = 10


def validate(options: Options) -> None:
    """Raises NanhuntError for a value that is not one of those allowed."""
    for dtype in options.dtype:
        one_of("--dtype", dtype, DTYPES)
    if options.stored_dtype is not None:
        one_of("--stored-dtype", options.stored_dtype, DTYPES)
    one_of("--reduction", options.reduction, REDUCTIONS)
    one_of("--fail-on", options.fail_on, FAIL_ON)
    if not 0.0 <= options.label_smoothing <= 1.0:
        raise NanhuntError(
            f"--label-smoothing {options.label_smoothing:g} is outside 0..1.", "Choose a share of the loss."
        )
    if options.max_rows < 1:
        raise NanhuntError(f"--max-rows {options.max_rows} shows nothing.", "Choose 1 or more.")


def one_of(option: str, value: str, allowed: Sequence[str]) -> None:
    """Raises NanhuntError, with the nearest one, unless ``value`` is one of ``allowed``."""
    import difflib

    if value not in allowed:
        near = [_SHORT[value]] if value in _SHORT else difflib.get_close_matches(value, allowed, n=1)
        meant = f"Did you mean {near[0]}? " if near else ""
        raise NanhuntError(f"{option} {value} is not known.", f"{meant}Choose from {', '.join(allowed)}.")
