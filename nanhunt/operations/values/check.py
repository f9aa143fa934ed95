"""A tensor that is not logits -> TensorReport: its health, and what a cast would lose."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from nanhunt.dtypes.bits import layout
from nanhunt.dtypes.convert import Array
from nanhunt.dtypes.formats import FORMATS
from nanhunt.errors import NanhuntError
from nanhunt.load.tensor import Tensor
from nanhunt.operations.options import JudgeOptions
from nanhunt.operations.values import health, legal
from nanhunt.operations.values.rules import BOOKKEEPING, CAST_LOSS, NON_FINITE
from nanhunt.results.report import Finding, Health, RemedyResult, TensorReport

BATCH_BYTES = 1 << 24
"""What a thread takes at once; a few times that is all that a pass holds in memory.

NumPy asks for huge pages from 4 MiB on, the size of a mask of that many float32: fresh small ones cost more than
the comparison that fills them."""
SMALL_VALUES = 1 << 20
"""Up to this many values are not worth starting threads for."""

Dtypes = Callable[[Tensor], tuple[str, ...]]
Found = list[health.Measured] | Exception
"""Per dtype; or why the tensor cannot be read."""


def check_values(
    tensors: Sequence[Tensor],
    dtypes: Dtypes,
    options: JudgeOptions,
    codes: frozenset[str],
    advance: Callable[[int], None],
    executor: Executor,
) -> Iterator[tuple[Tensor, list[TensorReport] | Exception]]:
    """Per tensor: counts, extremes, first bad positions and what casting it would lose, a report per dtype.

    One that cannot be read comes with the reason, a NanhuntError, OSError or MemoryError.
    """
    for tensor, found in _measured(tensors, dtypes, options.max_rows, advance, executor):
        if isinstance(found, Exception):
            yield tensor, found
        else:
            names = dtypes(tensor)
            yield tensor, [_report(tensor, *each, codes) for each in zip(names, found, strict=True)]


def _report(tensor: Tensor, dtype: str, found: health.Measured, codes: frozenset[str]) -> TensorReport:
    counts, casting = found.counts, found.casting
    excuse = legal.excuse(tensor, counts) if counts.nan + counts.posinf + counts.neginf else ""
    findings = list(_nonfinite(tensor, counts, found.first_nonfinite, excuse))
    if not legal.lowest_mask(tensor, counts, casting):
        findings += _lossy(tensor, dtype, counts, casting)
    findings = [finding for finding in findings if finding.code in codes]
    return TensorReport(
        file=tensor.file, tensor=tensor.name, role="values", stored_dtype=tensor.dtype, dtype=dtype,
        shape=tensor.shape, rows=0, classes=0, targets=None, health=as_health(counts), implementations={},
        truth=None, findings=tuple(findings), affected_rows=sum(finding.count for finding in findings),
        notes=tuple(filter(None, (tensor.note, excuse, *_notes(tensor, dtype, casting)))),
    )  # fmt: skip


def as_health(counts: health.Counts) -> Health:
    """Counts as they are reported; no finite value, no extremes."""
    some = counts.min <= counts.max
    return Health(
        counts.nan, counts.posinf, counts.neginf, counts.zero, counts.subnormal,
        counts.min if some else None, counts.max if some else None,
    )  # fmt: skip


@dataclass(frozen=True)
class _Part:
    """Some values of one tensor, not read yet: every process must come to the same parts, whatever it can read."""

    number: int
    """Of the tensor."""
    tensor: Tensor
    start: int
    """Flat position of the first, in C order."""
    stop: int
    dtypes: tuple[str, ...]

    def measured(self, most: int) -> tuple[int, Found]:
        """(bytes, what is known per dtype)."""
        try:
            values = self.values()
            found = [
                health.measure(values, self.tensor.dtype, each, self.start, most) for each in self.dtypes
            ]
            return values.nbytes, found
        except (NanhuntError, OSError, MemoryError) as error:
            return 0, error

    def values(self) -> Array:
        """Shape (values,); a copy where the layout differs."""
        if not self.tensor.shards:
            data = self.tensor.data
            if data.flags.c_contiguous or data.ndim == 1:
                return data.reshape(-1)[self.start : self.stop]
        rows = self.tensor.rows(-1)
        first, last = self.start // rows.classes, -(-self.stop // rows.classes)
        skipped = self.start - first * rows.classes
        return rows.range(first, last).reshape(-1)[skipped : skipped + self.stop - self.start]


def _measured(
    tensors: Sequence[Tensor],
    dtypes: Dtypes,
    most: int,
    advance: Callable[[int], None],
    executor: Executor,
) -> Iterator[tuple[Tensor, Found]]:
    """What is known of every tensor, per dtype; a tensor is begun while the one before it is being finished."""

    def each() -> Iterator[tuple[int, Found]]:
        small = sum(math.prod(tensor.shape) for tensor in tensors) <= SMALL_VALUES
        for tensor in tensors:
            # Now, and not by every process: what is compressed is unpacked into a file of its own.
            with contextlib.suppress(NanhuntError, OSError, MemoryError):
                _ = tensor.shards or tensor.data  # cached
        work = functools.partial(_measure, most)
        batches = _batches(tensors, dtypes)
        for batch in map(work, batches) if small else executor.map(work, batches):
            for number, size, found in batch:
                yield number, found
                advance(size)  # after the tensor before it is told: an interrupt here loses nothing

    for number, group in itertools.groupby(each(), key=operator.itemgetter(0)):
        yield (
            tensors[number],
            functools.reduce(functools.partial(_joined, most), (found for _, found in group)),
        )


def _measure(most: int, batch: list[_Part]) -> list[tuple[int, int, Found]]:
    """(number of the tensor, bytes, what is known) of every part."""
    return [(part.number, *part.measured(most)) for part in batch]


def _joined(most: int, some: Found, more: Found) -> Found:
    if isinstance(some, Exception):
        return some
    if isinstance(more, Exception):
        return more
    return [(one + other).keep(most) for one, other in zip(some, more, strict=True)]


def _batches(tensors: Sequence[Tensor], dtypes: Dtypes) -> Iterator[list[_Part]]:
    """All values of all tensors in order, about ``BATCH_BYTES`` at a time."""
    batch: list[_Part] = []
    room = BATCH_BYTES
    for number, tensor in enumerate(tensors):
        itemsize, size = layout(tensor.dtype).carrier.itemsize, math.prod(tensor.shape)
        step = BATCH_BYTES // itemsize
        for start in range(0, max(1, size), step):
            part = _Part(number, tensor, start, min(start + step, size), dtypes(tensor))
            batch.append(part)
            room -= (part.stop - part.start) * itemsize
            if room <= 0:
                yield batch
                batch, room = [], BATCH_BYTES
    yield batch


def _nonfinite(tensor: Tensor, counts: health.Counts, bad: tuple[int, ...], excuse: str) -> Iterator[Finding]:
    """A fault without an excuse; with one, NaN alone is worth a note, since nothing starts as NaN."""
    total = counts.nan + counts.posinf + counts.neginf
    if total and (counts.nan or not excuse):
        rule = BOOKKEEPING if excuse else NON_FINITE
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
        rule, target = CAST_LOSS, FORMATS[dtype]
        total = math.prod(tensor.shape)
        parts = []
        if casting.overflow:
            verb = "overflow" if target.has_infinity else "saturate"
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
    if not FORMATS[dtype].is_narrow:
        return ()  # bfloat16 has no wider range
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
