"""Findings that an earlier report holds are known: shown, but not counted for the exit code."""

from __future__ import annotations

from dataclasses import replace

from nanhunt.results.report import Finding, Report, TensorReport

Key = tuple[str, str, str, str]


def mark_known(report: Report, baseline: Report) -> Report:
    """``report`` with findings marked known that ``baseline`` has for as many rows or more.

    Matched by file, tensor, dtype and rule; more rows than before is new. The exit code is left as it is.
    """
    before: dict[Key, int] = {}
    for tensor in baseline.tensors:
        for finding in tensor.findings:
            key = _key(tensor, finding)
            before[key] = max(before.get(key, 0), finding.count)

    def marked(tensor: TensorReport) -> TensorReport:
        findings = tuple(
            replace(finding, known=finding.count <= before.get(_key(tensor, finding), -1))
            for finding in tensor.findings
        )
        return replace(tensor, findings=findings)

    return replace(report, tensors=tuple(marked(tensor) for tensor in report.tensors))


def _key(tensor: TensorReport, finding: Finding) -> Key:
    return (tensor.file, tensor.tensor, tensor.dtype, finding.code)
