"""``nanhunt diff --format sarif``."""

from __future__ import annotations

from nanhunt.render.difference import wording
from nanhunt.render.sarif import Result, document
from nanhunt.results.difference import Difference


def render(found: Difference) -> str:
    """The log file: a result for every finding, a notification for every input that could not be read."""
    results = [
        Result(tensor.file_a, wording.name(tensor), finding, finding.message, found.fails(finding))
        for tensor in found.tensors
        for finding in tensor.findings
    ]
    for other, alone in (("B", found.only_a), ("A", found.only_b)):
        for each in alone:
            if each.finding:
                text = wording.alone(each, other)
                results.append(Result(each.file, each.label, each.finding, text, found.fails(each.finding)))
    return document(results, found.errors)
