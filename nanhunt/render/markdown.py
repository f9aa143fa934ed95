"""``--format markdown``: what one would paste into a pull request, and what a job's summary page shows.

GitHub-flavoured. Names are untrusted: they stand in code spans that no backtick, pipe or newline can leave.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Sequence

from nanhunt.literal import literal
from nanhunt.render import (
    growing,
    overview,
    phrases,
    proofs,
    severities,
    side_by_side,
    totals,
    verdicts,
    where,
)
from nanhunt.results import series
from nanhunt.results.finding import Finding, RemedyResult, Severity
from nanhunt.results.report import ReadError, Report
from nanhunt.results.runup import curves
from nanhunt.results.tensor import TensorReport

SIGNS = {
    Severity.ERROR: "❌ error",
    Severity.WARNING: "⚠️ warning",
    Severity.NOTE: "🔹 note",
    None: "✅ healthy",
}
FOLD_ABOVE = 5
"""Longer lists are folded into <details>."""


LISTED = 50
"""Rows of a table; the rest is counted."""
IN_FULL = 10
"""Judgements whose evidence is shown, worst first."""
MOST_BYTES = 900_000
"""GitHub refuses a step's summary above 1 MiB, and several steps may share it."""


def render(report: Report) -> str:
    """Headline, counts, a table of verdicts worst first, then the evidence of the worst, folded where it is long."""
    sick = overview.worst_first(report)
    seen = set(map(id, sick))
    known = [tensor for tensor in report.tensors if tensor.findings and id(tensor) not in seen]
    compared = [tensor for tensor in report.tensors if tensor.truth]
    blocks = [
        f"## nanhunt: {_headline(report)}",
        totals.summary(report),
        *_runs(report),
        *_unread(report),
        *([f"Not looked at: {plain(totals.not_looked_at(report))}"] if report.not_looked_at else []),
        *_rules(report, sick),
        *_verdicts([*sick, *known]),
        *_healthy(report.counted()),
        *_comparisons(compared[:IN_FULL]),
        *_evidence([*sick, *known][:IN_FULL]),
    ]
    return cut(blocks)


def cut(blocks: Sequence[str]) -> str:
    """As many of them as fit into ``MOST_BYTES``."""
    size, kept = 0, []
    for block in blocks:
        size += len(block.encode("utf-8", "replace")) + 2
        if size > MOST_BYTES:
            kept.append("The rest is left out here: it is in the JSON and HTML reports (`--output`).")
            break
        kept.append(block)
    return "\n\n".join(kept) + "\n"


def _rules(report: Report, sick: Sequence[TensorReport]) -> Iterator[str]:
    """Counts before lists, where there is more than one tensor to count."""
    if len(sick) > 1:
        rows = [
            (SIGNS[each.severity], f"{each.name} ({each.code})", plain(each.told))
            for each in overview.by_rule(report)
        ]
        yield table(("", "rule", "how often"), rows)


def _runs(report: Report) -> Iterator[str]:
    """What was understood of the layout, and where it began."""
    for run in series.runs(report)[:IN_FULL]:
        first, *more = where.sentences(run) or [""]
        told = [f"**{plain(first)}**"] if first else []
        came = map(plain, growing.sentences(curves(report, run.name, run.origin), run.unit))
        yield "  \n".join([f"*{plain(where.understood(run))}*", *told, *map(plain, more), *came])
    yield from map(plain, report.assumed)


def _headline(report: Report) -> str:
    if report.errors:
        return f"{phrases.plural(len(report.errors), 'input')} not read"
    worst = max((finding.severity for finding in report.findings), key=lambda one: one.rank, default=None)
    if worst is None:
        return SIGNS[None] if report.tensors or report.healthy else "nothing to judge"
    if all(finding.known for finding in report.findings):
        return "nothing new"
    tensors, _ = totals.tensors_and_files(report)
    sick = phrases.count(overview.sick_tensors(report))
    return f"{SIGNS[worst]}, findings in {sick} of {phrases.plural(tensors, 'tensor')}"


def _unread(report: Report) -> Iterator[str]:
    if report.errors:
        shown = report.errors[:LISTED]
        rows = [(code(_of(error)), plain(error.message), plain(error.hint)) for error in shown]
        title = f"{phrases.plural(len(report.errors), 'input')} not read"
        yield _folded(title, ("input", "what", "what to do"), [*rows, *_more(report.errors, 3)])


def _verdicts(tensors: Sequence[TensorReport]) -> Iterator[str]:
    rows = []
    for tensor in tensors[:LISTED]:
        verdict = verdicts.verdict(tensor)
        shape = code(f"{phrases.shape(tensor.shape)} {tensor.dtype}")
        rows.append((SIGNS[verdict.severity], code(phrases.name(tensor)), shape, plain(verdict.sentence)))
    if rows:
        yield table(("", "tensor", "shape, dtype", "verdict"), [*rows, *_more(tensors, 4)])


def _more(items: Sequence[object], columns: int) -> list[tuple[str, ...]]:
    """A last row for what a table leaves out."""
    more = len(items) - LISTED
    return [("", f"and {phrases.count(more)} more", *[""] * (columns - 2))] if more > 0 else []


def _of(error: ReadError) -> str:
    return f"{error.file} (from {error.origin})" if error.origin else error.file


def _healthy(report: Report) -> Iterator[str]:
    """Counted by file."""
    rows = [
        (code(f"{file} (from {group.origin})" if group.origin else file), group.dtype, phrases.count(number))
        for group in report.healthy
        for file, number in group.files.items()
    ]
    if rows:
        tensors, _ = totals.tensors_and_files(Report(healthy=report.healthy))
        yield _folded(
            f"✅ {phrases.plural(tensors, 'tensor')} healthy",
            ("file", "dtype", "tensors"),
            [*rows[:LISTED], *_more(rows, 3)],
            0,
        )
    for note, number in totals.common_notes(report.healthy):
        yield f"*{plain(note)} ({phrases.plural(number, 'tensor')})*"


def _comparisons(tensors: Sequence[TensorReport]) -> Iterator[str]:
    """The side-by-side tables of ``compare``."""
    for tensor in tensors:
        found = side_by_side.comparison(tensor)
        if found:
            yield f"### Side by side: {code(phrases.name(tensor))} in {tensor.judged_in}"
            rows = [(label, *map(_loud, cells)) for label, cells in found.rows]
            yield table(("", *found.columns), rows, numbers=True)
            yield from map(plain, found.remarks)


def _evidence(tensors: Sequence[TensorReport]) -> Iterator[str]:
    shown: set[str] = set()
    for tensor in tensors:
        yield f"### {code(phrases.name(tensor))} in {tensor.judged_in}"
        yield from (f"*{plain(note)}*" for note in tensor.notes)
        if tensor.role == "values" and phrases.health(tensor):
            yield plain(phrases.health(tensor))
        for finding in severities.by_severity(tensor.findings):
            yield from _finding(finding, tensor, shown)


def _finding(finding: Finding, tensor: TensorReport, shown: set[str]) -> Iterator[str]:
    sign = SIGNS[finding.severity].split()[0]
    yield f"**{sign} {plain(proofs.heading(finding, tensor))}**  \n{plain(phrases.message(finding))}"
    named = phrases.rows_named(finding, tensor)
    if named and len(finding.rows) > FOLD_ABOVE:
        yield _details(phrases.plural(finding.count, phrases.unit(tensor)), plain(named))
    elif finding.count > 1 and named:
        yield plain(named)
    working = [remedy for remedy in finding.remedies if remedy.works]
    for remedy in working:
        yield from _remedy(remedy, tensor, shown)
    fix = "" if working else proofs.explanation(finding, tensor)
    if fix:
        yield f"What to do: {plain(fix)}"
    useless = proofs.failing(finding, tensor)
    if useless:
        lines = ((", ".join(map(plain, titles)), proof) for proof, titles in useless.items())
        yield "\n".join(f"- Does not help: {titles}: {proof}" for titles, proof in lines)


def _remedy(remedy: RemedyResult, tensor: TensorReport, shown: set[str]) -> Iterator[str]:
    yield f"Fix: {_proven(remedy, tensor)}"
    if remedy.snippet and remedy.snippet not in shown:
        shown.add(remedy.snippet)
        fence = "`" * max(3, _longest_run(remedy.snippet) + 1)
        lines = "\n".join(map(literal, remedy.snippet.splitlines()))
        yield f"{fence}python\n{lines}\n{fence}"


def _proven(remedy: RemedyResult, tensor: TensorReport) -> str:
    return f"{plain(remedy.title)}, {proofs.proof(remedy, tensor)}"


# ---------------------------------------------------------------------------------------------- markup


def code(text: str) -> str:
    """``text`` as code that stays code, in tables too.

    A code span where that is safe. With a pipe, a backslash or a backtick in it, tables and spans disagree
    about what ends first, so every punctuation mark becomes an entity instead.
    """
    text = literal(text)
    if text.strip() == text and text and not set(text) & set("|\\`"):
        return f"`{text}`"
    return f"<code>{''.join(map(_entity, text))}</code>"


def _entity(character: str) -> str:
    return f"&#{ord(character)};" if character in string.punctuation else character


def plain(text: str) -> str:
    """``text`` as prose in which nothing is markup: no HTML, emphasis, links, mentions or table cells."""
    text = re.sub(r"[&<>|`*\[\]\\~@#!$]|(?<!\w)_|_(?!\w)", lambda found: _entity(found[0]), literal(text))
    # A bare address would become a link.
    return re.sub(
        r"(?i)(https?|ftp)(?=:)|www(?=\.)", lambda found: f"{found[0][:-1]}&#{ord(found[0][-1])};", text
    )


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _loud(cell: str) -> str:
    return f"**{cell}**" if cell in ("nan", "inf", "-inf") else cell


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = False) -> str:
    """Rows of cells that are Markdown already; with ``numbers`` all columns but the first stand right."""
    rule = [" --- ", *(" ---: " if numbers else " --- " for _ in header[1:])]
    lines = [header, *rows]
    cells = ["|" + "|".join(f" {cell} " for cell in line) + "|" for line in lines]
    return "\n".join([cells[0], f"|{'|'.join(rule)}|", *cells[1:]])


def _folded(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], most: int = FOLD_ABOVE) -> str:
    shown = table(header, rows)
    return _details(title, shown) if len(rows) > most else shown


def _details(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"
