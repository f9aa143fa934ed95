"""Every option of check and compare, under one name each: command line, config key and field."""

from __future__ import annotations

from dataclasses import dataclass

DTYPES = ("float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")
FAIL_ON = ("error", "warning", "note", "never")
REDUCTIONS = ("mean", "sum")


@dataclass(frozen=True)
class Options:
    """What the user asked for. Validated where it is parsed, trusted everywhere below."""

    dtype: tuple[str, ...] = ()
    """Judge in these dtypes; empty: the dtype in the file."""
    logits: tuple[str, ...] = ()
    """Names or globs of the tensors to judge as logits; empty: found by shape and name."""
    targets: str | None = None
    """FILE, NAME or FILE:NAME of the labels or probability targets."""
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
