"""A tensor that is not logits -> TensorReport: its health, and what a cast would lose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from nanhunt.floats import FORMATS
from nanhunt.load.tensor import Tensor
from nanhunt.numerics import health
from nanhunt.numerics.formats import Array
from nanhunt.numerics.rows import Rows
from nanhunt.options import Options
from nanhunt.report import Finding, Health, RemedyResult, TensorReport
from nanhunt.rules import RULES
from nanhunt.threads import THREADS, in_order

CHUNK_BYTES = 1 << 23
"""The most that a thread takes at once; a few times that is all that a pass holds in memory."""
SMALL_BYTES = 1 << 22
"""A tensor of up to this size is not worth starting threads for."""


def check_values(
    tensor: Tensor, dtype: str, options: Options, codes: frozenset[str], advance: Callable[[int], None]
) -> TensorReport:
    """Counts, extremes and first bad positions of ``tensor``, and what casting it to ``dtype`` would lose."""
    found = _measured(tensor, dtype, options.max_rows, advance)
    counts, casting = found.counts, found.casting
    findings = [*_nonfinite(tensor, counts, found.first_nonfinite), *_lossy(tensor, dtype, counts, casting)]
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


def _measured(tensor: Tensor, dtype: str, most: int, advance: Callable[[int], None]) -> health.Measured:
    def measure(chunk: tuple[int, Array]) -> tuple[int, health.Measured]:
        start, values = chunk
        return values.nbytes, health.measure(values, tensor.dtype, dtype, start, most)

    total, small = health.Measured(), tensor.data.nbytes <= SMALL_BYTES
    for size, part in (map if small else in_order)(measure, _chunks(tensor.data)):
        total = (total + part).keep(most)
        advance(size)
    return total


def _chunks(data: Array) -> Iterator[tuple[int, Array]]:
    """(flat position in C order, values of shape (values,)) over all of them; copies where the layout differs."""
    step = max(1, min(CHUNK_BYTES, data.nbytes // THREADS) // data.itemsize)
    if data.flags.c_contiguous:
        flat = data.reshape(-1)
        yield from ((start, flat[start : start + step]) for start in range(0, flat.size, step))
    elif data.size:
        rows = Rows(data, -1)
        for row, block in rows.blocks(step // rows.classes):
            yield row * rows.classes, block.reshape(-1)


def _nonfinite(tensor: Tensor, counts: health.Counts, bad: tuple[int, ...]) -> Iterator[Finding]:
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
        yield Finding(rule.code, rule.name, rule.severity, total, bad, message)


def _lossy(tensor: Tensor, dtype: str, counts: health.Counts, casting: health.Casting) -> Iterator[Finding]:
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


def _wider(tensor: Tensor, dtype: str, casting: health.Casting) -> tuple[RemedyResult, ...]:
    """Casting the same values to bfloat16, run on the first that were lost."""
    if dtype == "bfloat16":
        return ()
    where = np.unravel_index(np.array(casting.first, np.intp), tensor.shape) if tensor.shape else ()
    lost = health.measure(np.atleast_1d(tensor.data[where]), tensor.dtype, "bfloat16").casting
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


def _notes(tensor: Tensor, dtype: str, casting: health.Casting) -> tuple[str, ...]:
    if dtype == tensor.dtype:
        return ()
    return (
        f"cast to {dtype}: {casting.overflow:,} overflow, {casting.zero:,} become 0, "
        f"{casting.subnormal:,} become subnormal",
    )
