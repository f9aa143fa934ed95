"""The verdict on one tensor, in a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from nanhunt.render.phrases import count, out_of, plural, unit, units
from nanhunt.render.severities import affected, caused, worst
from nanhunt.results.finding import Severity
from nanhunt.results.tensor import TensorReport


@dataclass(frozen=True)
class Verdict:
    """What a tired person should grasp at once."""

    severity: Severity | None
    text: str
    cause: str
    """E.g. "exp-overflow (NH101)", or ""."""

    @property
    def word(self) -> str:
        """ERROR, WARNING, NOTE or HEALTHY: colour is never the only sign."""
        return self.severity.name if self.severity else "HEALTHY"

    @property
    def sentence(self) -> str:
        """Text and cause in one line."""
        return f"{self.text} Cause: {self.cause}." if self.cause else self.text


def verdict(tensor: TensorReport) -> Verdict:
    """The verdict on one tensor in one dtype."""
    severity = worst(tensor)
    if severity is None:
        if units(tensor) < 2:
            return Verdict(None, f"{plural(units(tensor), unit(tensor))}, nothing wrong.", "")
        return Verdict(None, f"all {plural(units(tensor), unit(tensor))} healthy.", "")
    text = (_values_verdict if tensor.role == "values" else _operation_verdict)(tensor, severity)
    known = " All of it is known from the baseline." if all(found.known for found in tensor.findings) else ""
    return Verdict(severity, text + known, _cause(tensor))


def brief(tensor: TensorReport) -> str:
    """The verdict where many stand below each other: "1 of 8 rows in float16: nan-logits (NH001)"."""
    severity = worst(tensor)
    if severity is None:
        return "healthy"
    cast = f" in {tensor.judged_in}" if tensor.dtype != tensor.stored_dtype else ""
    return f"{_share(tensor, severity)}{cast}: {_gravest(tensor)[0]}"


def _operation_verdict(tensor: TensorReport, severity: Severity) -> str:
    broken, breaks_naive, silent = (
        _share(tensor, level) for level in (Severity.ERROR, Severity.WARNING, Severity.NOTE)
    )
    if severity is Severity.NOTE:
        return (
            f"nothing breaks; {silent} {_verb(tensor, severity, 'is', 'are')} silently wrong or near a limit."
        )
    if severity is Severity.WARNING:
        verb = _verb(tensor, severity, "breaks", "break")
        return f"{breaks_naive} {verb} naive code; {tensor.fused_call} survives."
    text = f"{broken} {_verb(tensor, severity, 'goes', 'go')} wrong even with {tensor.fused_call}"
    more = caused(tensor, Severity.WARNING)
    return (
        f"{text}; {count(more)} more {'breaks' if more == 1 else 'break'} naive code." if more else f"{text}."
    )


def _values_verdict(tensor: TensorReport, severity: Severity) -> str:
    share, health = _share(tensor, severity), tensor.health
    not_finite = (health.nan or 0) + (health.posinf or 0) + (health.neginf or 0)
    if severity is not Severity.WARNING and not_finite:
        said = "NaN or infinite" if severity is Severity.ERROR else "NaN, beside the weights"
        return f"{share} {_verb(tensor, severity, 'is', 'are')} {said}."
    if severity is Severity.NOTE:
        return f"{share} {_verb(tensor, severity, 'is', 'are')} worth a look."
    if tensor.dtype != tensor.stored_dtype:
        return f"{share} {_verb(tensor, severity, 'does', 'do')} not survive {tensor.judged_in}."
    return f"{share} {_verb(tensor, severity, 'is', 'are')} finite, and wrong."


def _share(tensor: TensorReport, severity: Severity) -> str:
    if not units(tensor):
        return "the empty batch"
    number, exact = affected(tensor, severity)
    return f"{'' if exact else 'at least '}{out_of(number, tensor)}"


def _verb(tensor: TensorReport, severity: Severity, one: str, many: str) -> str:
    return one if affected(tensor, severity)[0] == 1 or not units(tensor) else many


def _cause(tensor: TensorReport) -> str:
    """The gravest rules; notes only where nothing is graver."""
    order = _gravest(tensor)
    named = " and ".join(order[:2])
    return f"{named}, {len(order) - 2} more" if len(order) > 2 else named


def _gravest(tensor: TensorReport) -> list[str]:
    """Names of rules by severity, then by the rows they are the cause of; notes only where nothing is graver."""
    rows: dict[str, int] = {}
    for item in tensor.strip:
        for code, number in item.causes:
            rows[code] = rows.get(code, 0) + number
    graver = [finding for finding in tensor.findings if finding.severity is not Severity.NOTE]
    order = sorted(
        graver or tensor.findings,
        key=lambda found: (
            -found.severity.rank,
            -rows.get(found.code, 0) if rows else -found.count,
            found.code,
        ),
    )
    return [f"{finding.name} ({finding.code})" for finding in order]
