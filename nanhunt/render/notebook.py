"""What Jupyter shows of a Report or a Difference: the verdict and the worst, the text report folded beneath.

Text takes the page's own colour, so that it is readable on light and dark ones; only edges and words are coloured, in
tones that both bear.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from nanhunt.literal import literal, literal_lines
from nanhunt.render import overview, phrases, render, totals, verdicts, where
from nanhunt.render.difference import render_difference, wording
from nanhunt.results import series
from nanhunt.results.difference import Difference
from nanhunt.results.finding import Severity
from nanhunt.results.report import Report

WORST = 5
"""Lines of the table."""
COLORS = {Severity.ERROR: "#d9534f", Severity.WARNING: "#c98200", Severity.NOTE: "#2a93a8", None: "#2e9e55"}
BEGAN = 2
"""Sentences on where it began."""
COLUMNS = 100
"""Of the folded text."""


def report_html(report: Report) -> str:
    """A few hundred bytes to a few kB."""
    worst = overview.worst_first(report)
    severity = overview.worst_word(worst) or (Severity.ERROR if report.errors else None)
    lines = [
        (
            verdicts.verdict(each.tensor).word,
            f"{phrases.place(each.tensor)} {each.tensor.judged_in}",
            f"{verdicts.brief(each.tensor)}{each.more_steps}",
        )
        for each in overview.once_each(worst)[:WORST]
    ]
    lines += [("NOT READ", error.file, error.message) for error in report.errors[:WORST]]
    began = [sentence for run in series.runs(report)[:1] for sentence in where.sentences(run)[:BEGAN]]
    text = render(report, "text", width=COLUMNS)
    return _block(severity, [totals.summary(report), *began], lines, text)


def difference_html(found: Difference) -> str:
    """The same of two dumps compared."""
    told = [tensor for tensor in found.tensors if wording.worst(tensor) not in (None, Severity.NOTE)]
    lines = [(str(wording.worst(tensor)), wording.name(tensor), tensor.verdict) for tensor in told[:WORST]]
    lines += [("not read", error.file, error.message) for error in found.errors[:WORST]]
    head = ". ".join(filter(None, (wording.headline(found), wording.first(found), wording.tally(found))))
    proposed, _ = wording.suggestion(found)
    names = [f"{proposed} rename={list(found.renames)}"] if proposed else []
    return _block(
        wording.severity(found), [head, *names], lines, render_difference(found, "text", width=COLUMNS)
    )


def _block(
    severity: Severity | None, head: Sequence[str], lines: Iterable[tuple[str, str, str]], text: str
) -> str:
    color = COLORS[severity]
    rows = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:left">{escape(literal(cell))}</td>' for cell in line)
        + "</tr>"
        for line in lines
    )
    more = "".join(f"<div>{escape(literal(line))}</div>" for line in head[1:])
    table = f"<table>{rows}</table>" if rows else ""
    return (
        f'<div style="border-left:4px solid {color};padding:.2em .8em"><b>{escape(literal(head[0]))}</b>{more}{table}'
        f"<details><summary>The report</summary><pre>{escape(literal_lines(text))}</pre></details></div>"
    )
