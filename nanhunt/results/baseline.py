"""Findings that an earlier report holds are known: shown, but not counted for the exit code."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

from nanhunt.results.finding import Finding
from nanhunt.results.report import Report
from nanhunt.results.tensor import TensorReport
from nanhunt.results.verdict import decided

Key = tuple[str, str, str, str, str]


def mark_known(report: Report, baseline: Report) -> Report:
    """``report`` with findings marked known that ``baseline`` has for as many rows or more, and decided anew.

    Matched by file (whatever its spelling: ``a.npy``, ``./a.npy`` and the absolute path are one), tensor, dtype and
    rule; more rows than before is new.
    """
    folder = _working_folder()
    before: dict[Key, int] = {}
    for tensor in baseline.tensors:
        for finding in tensor.findings:
            key = _key(tensor, finding, folder)
            before[key] = max(before.get(key, 0), finding.count)

    def known(tensor: TensorReport, finding: Finding) -> bool:
        key = _key(tensor, finding, folder)
        any_origin = ("", *key[1:])
        return finding.count <= before.get(key, before.get(any_origin, -1))

    def marked(tensor: TensorReport) -> TensorReport:
        findings = tuple(replace(finding, known=known(tensor, finding)) for finding in tensor.findings)
        return replace(tensor, findings=findings)

    return decided(replace(report, tensors=tuple(marked(tensor) for tensor in report.tensors)))


def _key(tensor: TensorReport, finding: Finding, folder: str) -> Key:
    file = os.path.normpath(Path(folder, tensor.file))
    return (tensor.origin, file, tensor.tensor, tensor.judged_in, finding.code)


def _working_folder() -> str:
    """What relative names start from; "" where it has been deleted."""
    with contextlib.suppress(OSError):
        return str(Path.cwd())
    return ""
