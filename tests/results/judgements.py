"""One tensor with findings, to be varied."""

from __future__ import annotations

from typing import Any

from nanhunt.results.finding import Finding, Severity
from nanhunt.results.tensor import Health, TensorReport


def judged(file: str, *severities: Severity, count: int = 1, **fields: Any) -> TensorReport:
    """A tensor with one finding per severity given; other fields by name."""
    findings = tuple(
        Finding(f"NH{number}01", "rule", severity, count, (0,), "row 0")
        for number, severity in enumerate(severities, 1)
    )
    given: dict[str, Any] = {"dtype": "float32", **fields}
    health = Health(0, 0, 0, 0, 0, 0.0, 1.0)
    return TensorReport(
        file=file, tensor="logits", role="logits", operation="cross-entropy", fused_call="F.cross_entropy",
        stored_dtype="float32", shape=(8, 3), rows=8, classes=3,
        targets=None, health=health, implementations={}, truth=None, findings=findings, **given,
    )  # fmt: skip
