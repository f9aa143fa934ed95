"""``nanhunt diff --format markdown``: what one would paste into a pull request."""

from __future__ import annotations

from collections.abc import Iterator

from nanhunt.render import markdown, phrases, severities
from nanhunt.render.difference import wording
from nanhunt.render.markdown import SIGNS, code, plain, table
from nanhunt.results.difference import Difference
from nanhunt.results.finding import Severity

LISTED = 50
"""Rows of a table; the rest is counted."""


def render(found: Difference) -> str:
    """Headline, where A and B part, a table of what differs in the order of A, what has no partner."""
    worst = wording.severity(found)
    sign = SIGNS[worst].split()[0] if worst not in (None, Severity.NOTE) else SIGNS[None].split()[0]
    blocks = [
        f"## nanhunt diff: {sign} {plain(wording.headline(found))}",
        f"A: {code(found.a)}  \nB: {code(found.b)}",
        *(
            plain(line)
            for line in (wording.first(found), wording.turned(found), wording.tally(found), *found.pairing)
            if line
        ),
        *_tensors(found),
        *_alone(found),
        *_suggestion(found),
        *(
            f"❌ {code(error.file)}: {plain(error.message)} {plain(error.hint)}"
            for error in found.errors[:LISTED]
        ),
    ]
    return markdown.cut(blocks)


def _tensors(found: Difference) -> Iterator[str]:
    told = [tensor for tensor in found.tensors if tensor.findings]
    rows = [
        (
            SIGNS[wording.worst(tensor)],
            code(wording.name(tensor)),
            code(wording.what(tensor)),
            plain(
                "; ".join(
                    f"{wording.heading(finding)}: {finding.message}"
                    for finding in severities.by_severity(tensor.findings)
                )
            ),
        )
        for tensor in told[:LISTED]
    ]
    if rows:
        yield table(("", "tensor", "shape, dtype", "what"), rows)
    if len(told) > LISTED:
        yield f"and {phrases.plural(len(told) - LISTED, 'more tensor')}"


def _suggestion(found: Difference) -> Iterator[str]:
    told, arguments = wording.suggestion(found)
    if told:
        yield told
        yield "\n".join(f"    {argument}" for argument in arguments)


def _alone(found: Difference) -> Iterator[str]:
    for side, other, alone in (("A", "B", found.only_a), ("B", "A", found.only_b)):
        if alone:
            lines = [f"- {plain(wording.alone(each, other))}" for each in alone[:LISTED]]
            more = [f"- and {phrases.count(len(alone) - LISTED)} more"] * (len(alone) > LISTED)
            yield "\n".join((f"Only in {side}:\n", *lines, *more))
