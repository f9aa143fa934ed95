"""JSON lines: one a judged tensor with findings, written while the scan runs, and a last one with all that is counted.

Every line is a JSON object with "record": "tensor" (a judgement as in the JSON report; its options only where they are
not those of the run) or "report" (the JSON report without its tensors, whose number it gives instead).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from nanhunt.literal import literal_json
from nanhunt.results.codec import encode
from nanhunt.results.report import FORMAT_VERSION, Report
from nanhunt.results.tensor import TensorReport


def render(report: Report, *, verbosity: int = 0) -> str:
    """All lines of a report that is known already."""
    return "".join((*tensors(report, verbosity), end(report, verbosity)))


def tensors(report: Report, verbosity: int) -> list[str]:
    """A line for each tensor that is worth one: with ``verbosity`` 1 for all, else for those that cannot be counted."""
    told = [tensor for tensor in report.tensors if verbosity > 0 or not tensor.countable]
    common = encode(report.options) if told else {}  # most reports are of one healthy tensor
    return [_tensor(tensor, common) for tensor in told]


def end(report: Report, verbosity: int) -> str:
    """The last line."""
    known = report if verbosity > 0 else report.counted()
    rest = encode(dataclasses.replace(known, tensors=()))
    body = {"record": "report", "format_version": FORMAT_VERSION, **rest, "tensors": len(known.tensors)}
    return _line(body)


def _tensor(tensor: TensorReport, common: Mapping[str, Any]) -> str:
    body = encode(tensor)
    if body["options"] == common:
        del body["options"]
    return _line({"record": "tensor", **body})


def _line(body: Mapping[str, Any]) -> str:
    return literal_json(json.dumps(body, allow_nan=False, ensure_ascii=False) + "\n")
