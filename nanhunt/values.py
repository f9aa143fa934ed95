"""A tensor that is not logits -> TensorReport: its health, and what a cast would lose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from nanhunt.floats import FORMATS
from nanhunt.load.tensor import Tensor
from nanhunt.numerics import health
from nanhunt.numerics.formats import Array, to_floats
from nanhunt.options import Options
from nanhunt.report import Finding, Health, RemedyResult, TensorReport
from nanhunt.rules import RULES

BLOCK_VALUES = 1 << 18


@dataclass(frozen=True)
class Casting:
    """What a cast would do to finite values; adds up with ``+``."""

    overflow: int = 0
    zero: int = 0
    """Values that are not 0 and flush to it."""
    subnormal: int = 0
    """Values that are not subnormal and become so."""
    first: tuple[int, ...] = ()
    """The first flat positions that overflow or flush, ascending."""

    def __add__(self, other: Casting) -> Casting:
        """Over both ranges; the other one comes later."""
        return Casting(
            self.overflow + other.overflow, self.zero + other.zero, self.subnormal + other.subnormal,
            self.first + other.first,
        )  # fmt: skip


def check_values(
    tensor: Tensor, dtype: str, options: Options, codes: frozenset[str], advance: Callable[[int], None]
) -> TensorReport:
    """Counts, extremes and first bad positions of ``tensor``, and what casting it to ``dtype`` would lose."""
    counts, casting, bad = health.Counts(), Casting(), list[int]()
    for start, block in _blocks(tensor.data):
        part = health.count(block, tensor.dtype)
        if (part.nan or part.posinf or part.neginf) and len(bad) < options.max_rows:
            where = np.flatnonzero(~np.isfinite(to_floats(block, tensor.dtype)))
            bad += (where[: options.max_rows - len(bad)] + start).tolist()
        if dtype != tensor.dtype:
            lost = _cast(block, tensor.dtype, dtype, start, options.max_rows)
            casting = replace(casting + lost, first=(casting.first + lost.first)[: options.max_rows])
        counts += part
        advance(block.nbytes)
    findings = [*_nonfinite(tensor, counts, bad), *_lossy(tensor, dtype, counts, casting)]
    findings = [finding for finding in findings if finding.code in codes]
    return TensorReport(
        file=tensor.file, tensor=tensor.name, role="values", stored_dtype=tensor.dtype, dtype=dtype,
        shape=tensor.shape, rows=0, classes=0, targets=None, health=as_health(counts), implementations={},
        truth=None, findings=tuple(findings), affected_rows=sum(finding.count for finding in findings),
        notes=_notes(tensor, dtype, casting),
    )  # fmt: skip


def as_health(counts: health.Counts) -> Health:
    """Counts as they are reported; no finite value, no extremes."""
    some = counts.min <= counts.max
    return Health(
        counts.nan, counts.posinf, counts.neginf, counts.zero, counts.subnormal,
        counts.min if some else None, counts.max if some else None,
    )  # fmt: skip


def _blocks(data: Array) -> Iterator[tuple[int, Array]]:
    """(flat position in C order, block) over all values."""
    if not data.flags.c_contiguous and data.ndim > 1:
        inner = math.prod(data.shape[1:])
        for index in range(data.shape[0]):
            for start, block in _blocks(data[index]):
                yield index * inner + start, block
        return
    flat = data.reshape(-1)
    for start in range(0, flat.size, BLOCK_VALUES):
        yield start, flat[start : start + BLOCK_VALUES]


def _cast(block: Array, stored: str, dtype: str, start: int, most: int) -> Casting:
    values, target = to_floats(block, stored), FORMATS[dtype]
    nonzero, finite = values != 0, np.isfinite(values)
    was_normal = np.abs(values) >= FORMATS[stored].smallest_normal
    size = _before_rounding(values, dtype)
    with np.errstate(over="ignore"):  # no float32 reaches the limit of float32 itself, which becomes inf here
        limit = size.dtype.type(target.overflow)
    beyond = size > limit if dtype == "float8_e4m3fn" else size >= limit
    overflow = beyond & finite
    # Halfway is a tie and rounds to even: to 0 at the bottom, to the smallest normal below that.
    flushed = (size <= target.smallest_subnormal / 2) & nonzero
    subnormal = (size < target.smallest_normal - target.smallest_subnormal / 2) & ~flushed & was_normal
    where = np.flatnonzero(overflow | flushed)[:most] + start
    return Casting(
        int(np.count_nonzero(overflow)), int(np.count_nonzero(flushed)), int(np.count_nonzero(subnormal)),
        tuple(where.tolist()),
    )  # fmt: skip


def _before_rounding(values: Array, dtype: str) -> Array:
    """Magnitudes as the last rounding to ``dtype`` sees them: PyTorch takes float64 to narrow formats by float32."""
    size = np.abs(values)
    if size.dtype != np.float64 or dtype in ("float64", "float32"):
        return size
    with np.errstate(over="ignore", invalid="ignore"):
        return size.astype(np.float32)


def _nonfinite(tensor: Tensor, counts: health.Counts, bad: list[int]) -> Iterator[Finding]:
    total = counts.nan + counts.posinf + counts.neginf
    if total:
        rule = RULES["NH501"]
        kinds = [(counts.nan, "NaN"), (counts.posinf, "+inf"), (counts.neginf, "-inf")]
        what = ", ".join(f"{number:,} {kind}" for number, kind in kinds if number)
        message = (
            f"{what} of {math.prod(tensor.shape):,} values, the first at {position(tensor, bad[0])}"
            if bad
            else what
        )
        yield Finding(rule.code, rule.name, rule.severity, total, tuple(bad), message)


def _lossy(tensor: Tensor, dtype: str, counts: health.Counts, casting: Casting) -> Iterator[Finding]:
    if casting.overflow or casting.zero:
        rule, target = RULES["NH502"], FORMATS[dtype]
        total = math.prod(tensor.shape)
        parts = []
        if casting.overflow:
            verb = "saturate" if dtype == "float8_e4m3fn" else "overflow"
            largest = max(abs(counts.min), abs(counts.max))
            parts.append(
                f"{casting.overflow:,} of {total:,} values {verb} in {dtype} (largest {largest:.6g} > {target.max:.6g})"
            )
        if casting.zero:
            parts.append(
                f"{casting.zero:,} of {total:,} values become 0 in {dtype} (below {target.smallest_subnormal / 2:.3g})"
            )
        yield Finding(
            rule.code, rule.name, rule.severity, casting.overflow + casting.zero, casting.first, "; ".join(parts),
            _wider(tensor, dtype, casting),
        )  # fmt: skip


def _wider(tensor: Tensor, dtype: str, casting: Casting) -> tuple[RemedyResult, ...]:
    """Casting the same values to bfloat16, run on the first that were lost."""
    if dtype == "bfloat16":
        return ()
    where = np.unravel_index(np.array(casting.first, np.intp), tensor.shape) if tensor.shape else ()
    lost = _cast(np.atleast_1d(tensor.data[where]), tensor.dtype, "bfloat16", 0, 0)
    after = lost.overflow + lost.zero
    rows = len(casting.first)
    return (
        RemedyResult(
            "use bfloat16 for this tensor",
            "tensor = tensor.to(torch.bfloat16)",
            after == 0,
            rows,
            after,
            None,
        ),
    )


def position(tensor: Tensor, flat: int) -> str:
    """A flat position as indices: "[3, 17]"."""
    indices = np.unravel_index(flat, tensor.shape) if tensor.shape else ()
    return f"[{', '.join(str(int(index)) for index in indices)}]"


def _notes(tensor: Tensor, dtype: str, casting: Casting) -> tuple[str, ...]:
    if dtype == tensor.dtype:
        return ()
    return (
        f"cast to {dtype}: {casting.overflow:,} overflow, {casting.zero:,} become 0, "
        f"{casting.subnormal:,} become subnormal",
    )
