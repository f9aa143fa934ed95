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
from typing import Any

import numpy as np

from nanhunt.dtypes.bits import layout
from nanhunt.dtypes.formats import FORMATS
from nanhunt.errors import NanhuntError
from nanhunt.load.listing import is_url
from nanhunt.load.tensor import Tensor
from nanhunt.load.wording import printable
from nanhunt.operations.options import JudgeOptions
from nanhunt.operations.rule import Rule
from nanhunt.operations.scaling import Cast, Scaled, casts
from nanhunt.operations.values import health, legal, scaled, training
from nanhunt.operations.values.rules import BOOKKEEPING, CAST_LOSS, NON_FINITE, VALUE_OVERFLOW
from nanhunt.results.finding import Finding, RemedyResult
from nanhunt.results.tensor import Health, TensorReport

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
    asked = bool(options.select)  # optimizer state is judged for a cast only on request
    beside = {tensor.name: tensor for tensor in tensors}
    for tensor, found in _measured(tensors, dtypes, options.max_rows, advance, executor):
        if isinstance(found, Exception):
            yield tensor, found
        else:
            names = dtypes(tensor)
            try:
                faults = list(training.findings(tensor, beside, found[0].counts))
            except (NanhuntError, OSError, MemoryError) as error:  # what stands beside it may not be readable
                yield tensor, error
                continue
            ways = [casts(tensor, name, options.scaling, both=False)[-1] for name in names]
            reports = zip(ways, found, strict=True)
            yield tensor, [_report(tensor, *each, faults, codes, asked, options.max_rows) for each in reports]


_KEPT_WIDE = (
    "optimizer state is kept in float32: what a cast would lose of it is no finding (--select NH5: it is)"
)


def _report(
    tensor: Tensor,
    cast: Cast,
    found: health.Measured,
    faults: list[Finding],
    codes: frozenset[str],
    asked: bool,
    most: int,
) -> TensorReport:
    counts, dtype = found.counts, cast.dtype
    casting = found.casting if cast.scaling == "none" else scaled.casting(Scaled(tensor, cast), most)
    excuse = legal.excuse(tensor, counts) if counts.nan + counts.posinf + counts.neginf else ""
    findings = [*_nonfinite(tensor, counts, found.first_nonfinite, excuse), *faults]
    kept_wide = not asked and dtype != tensor.dtype and legal.is_moment(tensor)
    if not kept_wide and not legal.lowest_mask(tensor, counts, casting):
        findings += _lossy(tensor, cast, counts, casting)
    findings = sorted((each for each in findings if each.code in codes), key=lambda each: each.code)
    return TensorReport(
        file=tensor.file, tensor=tensor.name, role="values", operation="values", stored_dtype=tensor.dtype, dtype=dtype,
        shape=tensor.shape, rows=0, classes=0, targets=None, health=as_health(counts), implementations={},
        truth=None, findings=tuple(findings), affected_rows=sum(finding.count for finding in findings),
        scaling=cast.scaling,
        notes=tuple(
            filter(None, (tensor.note, excuse, *_notes(tensor, cast, found.casting, casting), _KEPT_WIDE * kept_wide))
        ),
    )  # fmt: skip


def as_health(counts: health.Counts) -> Health:
    """Counts as they are reported; no finite value, no extremes."""
    some = counts.min <= counts.max
    return Health(
        counts.nan, counts.posinf, counts.neginf, counts.zero, counts.subnormal,
        counts.min if some else None, counts.max if some else None, counts.bits,
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
            values = self.tensor.flat(self.start, self.stop)
            stored, words = self.tensor.dtype, _may_be_of_a_series(self.tensor.file)
            found = [
                health.measure(values, stored, each, self.start, most, words=words) for each in self.dtypes
            ]
            return values.nbytes, found
        except (NanhuntError, OSError, MemoryError) as error:
            return 0, error


def _may_be_of_a_series(file: str) -> bool:
    """Whether it can be asked if a tensor changes from step to step: steps are numbers in a path."""
    return any(map(str.isdigit, file))


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
            # What lies far away is fetched by whoever judges it.
            if not is_url(tensor.file):
                with contextlib.suppress(NanhuntError, OSError, MemoryError):
                    _ = tensor.shards or tensor.data  # cached
        work = functools.partial(_measure, most)
        batches = list(_batches(tensors, dtypes))  # Dask takes no iterators
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
        size = math.prod(tensor.shape)
        message = f"its only value is {what.partition(' ')[2]}" if size == 1 else f"{what} of {size:,} values"
        yield Finding(rule.code, rule.name, rule.severity, total, bad, message + _place(tensor, bad))


def _lossy(tensor: Tensor, cast: Cast, counts: health.Counts, casting: health.Casting) -> Iterator[Finding]:
    """What a cast would destroy: an overflow always counts, a few values that become 0 hardly ever."""
    dtype, target, total = cast.dtype, FORMATS[cast.dtype], math.prod(tensor.shape)
    if casting.zero:
        limit, said = _flushed_below(cast, counts)
        slight = legal.is_bias(tensor) or not carries_weight(casting.zero, counts, total, limit)
        yield Finding(
            CAST_LOSS.code, CAST_LOSS.name, CAST_LOSS.minor if slight and CAST_LOSS.minor else CAST_LOSS.severity,
            casting.zero, casting.first_zero,
            f"{_share(casting.zero, total, 'becomes', 'become')} 0 in {dtype} "
            f"(below {said}){_place(tensor, casting.first_zero)}",
            () if slight else _mended(CAST_LOSS, tensor, dtype, casting.first_zero),
        )  # fmt: skip
    if casting.overflow:
        verbs = ("overflows", "overflow") if target.has_infinity else ("saturates", "saturate")
        largest = max(abs(counts.min), abs(counts.max))
        yield Finding(
            VALUE_OVERFLOW.code, VALUE_OVERFLOW.name, VALUE_OVERFLOW.severity,
            casting.overflow, casting.first_overflow,
            f"{_share(casting.overflow, total, *verbs)} in {dtype} "
            f"(largest {largest:.6g} > {target.max:.6g}){_place(tensor, casting.first_overflow)}",
            _mended(VALUE_OVERFLOW, tensor, dtype, casting.first_overflow),
        )  # fmt: skip


FLUSHED_SHARE = 0.01
"""Values that become 0 carry weight from this share of those that are not 0 on ..."""
FLUSHED_NORM = 1e-3
"""... or where their norm may be this part of the tensor's, twice the rounding error of float16."""


def _flushed_below(cast: Cast, counts: health.Counts) -> tuple[float, str]:
    """The magnitude that no flushed value exceeds, and how a message says where the cast leaves 0."""
    if cast.scaling == "none":
        limit = FORMATS[cast.dtype].smallest_subnormal / 2
        return limit, f"{limit:.3g}"
    part = scaled.relative_limit(cast.dtype)
    return part * max(abs(counts.min), abs(counts.max)), f"{part:.3g} of the largest of its {cast.scaling}"


def carries_weight(flushed: int, counts: health.Counts, total: int, limit: float) -> bool:
    """Whether values that flush to 0 matter, by number or by norm.

    Each is at most ``limit``, and the tensor's norm is at least its largest value: a bound that
    costs no further pass, and that never calls weighty values slight.
    """
    norm = math.sqrt(flushed) * limit
    largest = max(abs(counts.min), abs(counts.max))
    return flushed > FLUSHED_SHARE * (total - counts.zero) or norm > FLUSHED_NORM * largest


def _mended(
    rule: Rule[Any, Any, Any], tensor: Tensor, dtype: str, lost: tuple[int, ...]
) -> tuple[RemedyResult, ...]:
    """The rule's fixes, run as printed on the first values that were lost."""
    from nanhunt.dtypes.convert import to_torch
    from nanhunt.operations.fix import run

    where = np.unravel_index(np.array(lost, np.intp), tensor.shape) if tensor.shape else ()
    values = to_torch(np.atleast_1d(tensor.data[where]), tensor.dtype)
    results = []
    for fix in rule.fixes:
        if fix.when(dtype):
            code = fix.render({})
            ran = run(code, {"tensor": values}, [])
            gone = len(lost)
            if ran.result is not None:
                gone = int(((ran.result == 0) | ~ran.result.isfinite()).sum())
            outcome = ran.error or (
                f"still lost in {ran.result.dtype}" if gone and ran.result is not None else ""
            )
            results.append(
                RemedyResult(fix.title, code, gone == 0, len(lost), gone, None, outcome, fix.changes)
            )
    return tuple(results)


def _share(count: int, total: int, verb: str, plural: str) -> str:
    """How many values do something: "3 of 16 values overflow"."""
    return f"its only value {verb}" if total == 1 else f"{count:,} of {total:,} values {plural}"


def _place(tensor: Tensor, bad: tuple[int, ...]) -> str:
    """Where the first of them stands, as the end of a sentence, and whose state the tensor is."""
    first = f", the first at {position(tensor, bad[0])}" if bad and math.prod(tensor.shape) > 1 else ""
    return first + (f"; state of the parameter {printable(tensor.owner)}" if tensor.owner else "")


def position(tensor: Tensor, flat: int) -> str:
    """A flat position as indices: "[3, 17]"."""
    indices = np.unravel_index(flat, tensor.shape) if tensor.shape else ()
    return f"[{', '.join(str(int(index)) for index in indices)}]"


def _notes(tensor: Tensor, cast: Cast, plain: health.Casting, casting: health.Casting) -> tuple[str, ...]:
    if cast.dtype == tensor.dtype:
        return ()
    if cast.scaling == "none":
        return (f"cast to {cast.dtype}: {_told(plain)}",)
    note = Scaled(tensor, cast).how
    return (f"cast to {cast.dtype}, {note}: {_told(casting)}; unscaled: {_told(plain)}",)


def _told(casting: health.Casting) -> str:
    return f"{casting.overflow:,} overflow, {casting.zero:,} become 0, {casting.subnormal:,} become subnormal"
