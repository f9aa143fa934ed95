"""What two tensors measured against each other amount to: a grade, a verdict in words, findings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nanhunt.difference import rules
from nanhunt.difference.measured import KINDS, Largest, Measured, Places, Tolerance
from nanhunt.difference.rows import Peak, RowsMeasured
from nanhunt.load.tensor import Tensor
from nanhunt.operations.rule import Rule
from nanhunt.results.difference import (
    Extreme,
    Index,
    KindChange,
    RowExtreme,
    RowsDifference,
    TensorDifference,
)
from nanhunt.results.finding import Finding, Severity

ISOLATED_SHARE = 1e-3
"""Up to this share of values, a difference beyond the tolerance is isolated: no kernel errs so seldom."""
ISOLATED_COUNT = 1000
"""A tensor needs this many values for shares to mean anything."""
_FINITE = KINDS[0]


@dataclass(frozen=True)
class Pair:
    """A tensor of A and its partner in B."""

    a: Tensor
    b: Tensor

    @property
    def comparable(self) -> bool:
        """Whether value can be held against value."""
        return self.a.shape == self.b.shape

    @property
    def dtypes(self) -> tuple[str, str]:
        """Of A and of B."""
        return self.a.dtype, self.b.dtype


def judged(
    pair: Pair,
    measured: Measured | None,
    tolerance: Tolerance,
    rows: RowsMeasured | None,
    codes: frozenset[str],
) -> TensorDifference:
    """The result for a pair; ``measured`` is None where the shapes differ."""
    if measured is None:
        found = _of_other_shape(pair)
        return _built(pair, "different", "different shapes", [found], codes)
    beyond = measured.beyond(tolerance)
    findings = list(_findings(pair, measured, beyond, tolerance, rows))
    grade = _grade(pair, measured, beyond, findings)
    shape = pair.a.shape
    return _built(
        pair,
        grade,
        _verdict(grade, pair, measured, beyond, tolerance),
        findings,
        codes,
        values=measured.values,
        differing=measured.differing.count,
        first_differing=_first(measured.differing, shape),
        nonfinite_in_both=measured.nonfinite_in_both if measured.differing.count else 0,
        changes=tuple(
            KindChange(one, other, each.count, tuple(_index(at, shape) for at in each.first))
            for (one, other), each in measured.kinds.items()
        ),
        rounding_dtype=tolerance.form.name if tolerance.form else "",
        absolute=_extreme(measured.absolute, shape),
        relative=_extreme(measured.relative, shape),
        ulp=_extreme(measured.ulp, shape),
        cosine=measured.sums.cosine,
        beyond=beyond.count,
        first_beyond=_first(beyond, shape),
        rows=None if rows is None else _rows(rows),
    )


def _built(
    pair: Pair, grade: str, verdict: str, findings: list[Finding], codes: frozenset[str], **more: Any
) -> TensorDifference:
    return TensorDifference(
        file_a=pair.a.file, file_b=pair.b.file, a=pair.a.name, b=pair.b.name,
        shape_a=pair.a.shape, shape_b=pair.b.shape, dtype_a=pair.a.dtype, dtype_b=pair.b.dtype,
        verdict=verdict, grade=grade,
        findings=tuple(finding for finding in findings if finding.code in codes),
        **more,
    )  # fmt: skip


def finding(rule: Rule[Any, Any, Any], count: int, message: str, places: tuple[int, ...] = ()) -> Finding:
    """One of this room's rules, at its usual severity."""
    return Finding(rule.code, rule.name, rule.severity, count, places, message)


def _of_other_shape(pair: Pair) -> Finding:
    one, other = list(pair.a.shape), list(pair.b.shape)
    transposed = ", as if transposed" if one == other[::-1] else ""
    return finding(rules.SHAPE, 0, f"{one} against {other}{transposed}")


def _findings(
    pair: Pair, measured: Measured, beyond: Places, tolerance: Tolerance, rows: RowsMeasured | None
) -> Iterator[Finding]:
    shape = pair.a.shape
    yield from _of_kinds(measured, shape)
    if pair.a.dtype != pair.b.dtype:
        yield finding(rules.DTYPE, 0, f"{pair.a.dtype} against {pair.b.dtype}")
    finite = measured.absolute
    if beyond.count:
        rule = rules.ISOLATED if _is_isolated(beyond, measured) else rules.VALUES
        yield finding(rule, beyond.count, _told_beyond(beyond, measured, tolerance, shape), beyond.first)
    elif finite.position >= 0:
        count = _finite_differing(measured)
        verb = "differs" if count == 1 else "differ"
        message = f"{count:,} of {measured.values:,} values {verb}, {_most_told(measured, tolerance, shape)}"
        yield finding(rules.ROUNDING, count, message, measured.differing.first)
    if rows is not None and rows.top1.count:
        yield _other_class(rows, slight=not beyond.count)


def _of_kinds(measured: Measured, shape: tuple[int, ...]) -> Iterator[Finding]:
    """What became NaN or infinite, what ceased to be, and what changed its sign or kind."""
    grouped: dict[str, list[tuple[str, str, Places]]] = {}
    for (one, other), places in measured.kinds.items():
        rule = (
            rules.NONFINITE_GAINED if one == _FINITE
            else rules.NONFINITE_LOST if other == _FINITE
            else rules.NONFINITE_CHANGED
        )  # fmt: skip
        grouped.setdefault(rule.code, []).append((one, other, places))
    by_code = {rule.code: rule for rule in rules.RULES}
    for code, changes in sorted(grouped.items()):
        count = sum(places.count for _, _, places in changes)
        first = tuple(sorted(at for _, _, places in changes for at in places.first))[: measured.most]
        told = ", ".join(f"{places.count:,} {one} to {other}" for one, other, places in changes)
        message = f"{told}, of {measured.values:,} values, the first at {_at(first[0], shape)}"
        yield finding(by_code[code], count, message, first)


def _finite_differing(measured: Measured) -> int:
    return measured.differing.count - measured.changed_kind


def _is_isolated(beyond: Places, measured: Measured) -> bool:
    return measured.values >= ISOLATED_COUNT and beyond.count <= ISOLATED_SHARE * measured.values


def _told_beyond(beyond: Places, measured: Measured, tolerance: Tolerance, shape: tuple[int, ...]) -> str:
    largest = measured.absolute
    verb = "differs" if beyond.count == 1 else "differ"
    where = f"the first at {_at(beyond.first[0], shape)}"
    rest = _finite_differing(measured) - beyond.count
    more = f"; {rest:,} more by less" if rest else ""
    return (
        f"{beyond.count:,} of {measured.values:,} values {verb} by more than {_told(tolerance)}, {where}; "
        f"the largest by {largest.value:.4g} at {_at(largest.position, shape)}: "
        f"{largest.a:.7g} against {largest.b:.7g}{more}"
    )


def _told(tolerance: Tolerance) -> str:
    """The tolerance in words."""
    parts = []
    if tolerance.max_ulp is not None and tolerance.form is not None:
        parts.append(
            f"{tolerance.max_ulp:g} steps of {tolerance.form.name}"
            if not tolerance.mean_steps
            else f"rounding of {tolerance.form.name}"
        )
    if tolerance.rtol is not None or tolerance.atol is not None:
        parts.append(f"{tolerance.atol or 0:g} + {tolerance.rtol or 0:g} |a|")
    return " and ".join(parts) or "nothing"


def _most_told(measured: Measured, tolerance: Tolerance, shape: tuple[int, ...]) -> str:
    """The largest difference where none is beyond the tolerance, counted as that counts, and where it is."""
    largest = measured.ulp
    if tolerance.elementwise or tolerance.form is None or largest.position < 0:
        largest = measured.absolute
        return f"by at most {largest.value:.4g}, the most at {_at(largest.position, shape)}"
    return f"by at most {largest.value:.3g} ULP of {tolerance.form.name}, the most at {_at(largest.position, shape)}"


def _other_class(rows: RowsMeasured, *, slight: bool) -> Finding:
    rule = rules.TOP1
    severity = rule.minor if slight and rule.minor else rule.severity
    message = (
        f"{rows.top1.count:,} of {rows.rows:,} rows have another first class, the clearest is row "
        f"{rows.margin.row}, where A had it ahead by {rows.margin.value:.4g}"
    )
    return Finding(rule.code, rule.name, severity, rows.top1.count, rows.top1.first, message)


# ---------------------------------------------------------------------------------------------- verdict


def _grade(pair: Pair, measured: Measured, beyond: Places, findings: list[Finding]) -> str:
    if measured.identical and pair.a.dtype == pair.b.dtype:
        return "identical"
    if measured.differing.count == 0:
        return "equal"
    if not any(each.severity.rank > Severity.NOTE.rank and each.code != rules.TOP1.code for each in findings):
        return "rounding"
    bad = Places(beyond.count + measured.changed_kind)
    return "isolated" if _is_isolated(bad, measured) else "different"


def _verdict(grade: str, pair: Pair, measured: Measured, beyond: Places, tolerance: Tolerance) -> str:
    """In words, for people."""
    if grade == "identical":
        return "bit for bit equal"
    if grade == "equal":
        return "the same numbers" + (
            " in another dtype" if pair.a.dtype != pair.b.dtype else "; -0 or the bits of NaN differ"
        )
    if grade == "rounding":
        return _rounding(pair, measured, tolerance)
    bad = beyond.count + measured.changed_kind
    if grade == "isolated":
        verb = "differs" if bad == 1 else "differ"
        rest = _finite_differing(measured) - beyond.count
        rounding = f", the others are within {_told(tolerance)}" if rest else ""
        return f"{bad:,} of {measured.values:,} values {verb}{rounding}"
    return f"different: {bad:,} of {measured.values:,} values"


def _rounding(pair: Pair, measured: Measured, tolerance: Tolerance) -> str:
    if tolerance.form is None or tolerance.rtol is not None or tolerance.atol is not None:
        return f"within {_told(tolerance)}"
    if pair.a.dtype != pair.b.dtype and measured.ulp.value <= 0.5:
        wider, side = ("A", "B") if tolerance.form.name == pair.b.dtype else ("B", "A")
        return f"{side} is {wider} rounded to {tolerance.form.name}"
    if measured.differing.count == 1:
        return f"1 of {measured.values:,} values differs, within rounding of {tolerance.form.name}"
    return f"within rounding of {tolerance.form.name}"


# ---------------------------------------------------------------------------------------------- places


def _index(position: int, shape: tuple[int, ...]) -> Index:
    return tuple(int(each) for each in np.unravel_index(position, shape)) if shape else ()


def _at(position: int, shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, _index(position, shape)))}]"


def _first(places: Places, shape: tuple[int, ...]) -> Index | None:
    return _index(places.first[0], shape) if places.first else None


def _extreme(largest: Largest, shape: tuple[int, ...]) -> Extreme | None:
    if largest.position < 0:
        return None
    return Extreme(largest.value, _index(largest.position, shape), largest.a, largest.b)


def _rows(rows: RowsMeasured) -> RowsDifference:
    def peak(each: Peak) -> RowExtreme | None:
        return None if each.row < 0 else RowExtreme(each.value, each.row)

    labelled = rows.labelled
    return RowsDifference(
        rows=rows.rows,
        left_out=rows.left_out,
        mean_kl=rows.kl / rows.rows if rows.rows else math.nan,
        largest_kl=peak(rows.largest_kl),
        largest_kl_back=peak(rows.largest_kl_back),
        top1_changed=rows.top1.count,
        top1_rows=rows.top1.first,
        largest_margin=peak(rows.margin),
        top5_changed=rows.top5,
        loss_a=rows.loss_a / labelled if labelled else None,
        loss_b=rows.loss_b / labelled if labelled else None,
        largest_loss_change=peak(rows.loss_change) if labelled else None,
    )
