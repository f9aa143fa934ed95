"""``--format markdown``: what one would paste into a pull request, and what a job's summary page shows.

GitHub-flavoured. Names are untrusted: they stand in code spans that no backtick, pipe or newline can leave.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Sequence

from nanhunt.literal import literal
from nanhunt.render import phrases
from nanhunt.results.report import Finding, RemedyResult, Report, Severity, TensorReport

SIGNS = {
    Severity.ERROR: "❌ error",
    Severity.WARNING: "⚠️ warning",
    Severity.NOTE: "🔹 note",
    None: "✅ healthy",
}
FOLD_ABOVE = 5
"""Longer lists are folded into <details>."""


def render(report: Report) -> str:
    """Headline, a table of verdicts, then the evidence, folded where it is long."""
    groups = phrases.groups(report)
    sick = [tensor for group in groups for tensor in group if tensor.findings]
    well = [tensor for group in groups for tensor in group if not tensor.findings]
    compared = [tensor for tensor in well if phrases.comparison(tensor)]
    blocks = [
        f"## nanhunt: {_headline(report)}",
        phrases.summary(report),
        *_unread(report),
        *_verdicts(sick),
        *_healthy(well),
        *_comparisons([*sick, *compared]),
        *_evidence(sick),
    ]
    return "\n\n".join(blocks) + "\n"


def _headline(report: Report) -> str:
    if report.errors:
        return f"{phrases.plural(len(report.errors), 'input')} not read"
    worst = max((finding.severity for finding in report.findings), key=lambda one: one.rank, default=None)
    if worst is None:
        return SIGNS[None] if report.tensors else "nothing to judge"
    if all(finding.known for finding in report.findings):
        return "nothing new"
    broken = sum(any(not finding.known for finding in tensor.findings) for tensor in report.tensors)
    return f"{SIGNS[worst]}, findings in {broken} of {len(report.tensors)} verdicts"


def _unread(report: Report) -> Iterator[str]:
    if report.errors:
        rows = [(code(error.file), plain(error.message), plain(error.hint)) for error in report.errors]
        yield _folded(f"{phrases.plural(len(rows), 'input')} not read", ("input", "what", "what to do"), rows)


def _verdicts(tensors: Sequence[TensorReport]) -> Iterator[str]:
    rows = []
    for tensor in tensors:
        verdict = phrases.verdict(tensor)
        shape = code(f"{phrases.shape(tensor.shape)} {tensor.dtype}")
        rows.append((SIGNS[verdict.severity], code(phrases.name(tensor)), shape, plain(verdict.sentence)))
    if rows:
        yield _table(("", "tensor", "shape, dtype", "verdict"), rows)


def _healthy(tensors: Sequence[TensorReport]) -> Iterator[str]:
    rows = [(code(phrases.name(one)), code(f"{phrases.shape(one.shape)} {one.dtype}")) for one in tensors]
    if rows:
        yield _folded(
            f"✅ {phrases.plural(len(rows), 'verdict')} healthy", ("tensor", "shape, dtype"), rows, 0
        )


def _comparisons(tensors: Sequence[TensorReport]) -> Iterator[str]:
    """The side-by-side tables of ``compare``."""
    for tensor in tensors:
        found = phrases.comparison(tensor)
        if found:
            yield f"### Side by side: {code(phrases.name(tensor))} in {tensor.dtype}"
            rows = [(label, *map(_loud, cells)) for label, cells in found.rows]
            yield _table(("", *found.columns), rows, numbers=True)
            yield from map(plain, found.remarks)


def _evidence(tensors: Sequence[TensorReport]) -> Iterator[str]:
    shown: set[str] = set()
    for tensor in tensors:
        yield f"### {code(phrases.name(tensor))} in {tensor.dtype}"
        yield from (f"*{plain(note)}*" for note in tensor.notes)
        if tensor.role == "values" and phrases.health(tensor):
            yield plain(phrases.health(tensor))
        for finding in phrases.by_severity(tensor.findings):
            yield from _finding(finding, tensor, shown)


def _finding(finding: Finding, tensor: TensorReport, shown: set[str]) -> Iterator[str]:
    sign = SIGNS[finding.severity].split()[0]
    yield f"**{sign} {plain(phrases.heading(finding, tensor))}**  \n{plain(phrases.message(finding, tensor))}"
    named = phrases.rows_named(finding, tensor)
    if len(finding.rows) > FOLD_ABOVE:
        yield _details(phrases.plural(finding.count, phrases.unit(tensor)), plain(named))
    elif finding.count > 1 and named:
        yield plain(named)
    working = [remedy for remedy in finding.remedies if remedy.works]
    for remedy in working:
        yield from _remedy(remedy, tensor, shown)
    fix = "" if working else phrases.explanation(finding)
    if fix:
        yield f"What to do: {plain(fix)}"
    useless = phrases.failing(finding, tensor)
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
    return f"{plain(remedy.title)}, {phrases.proof(remedy, tensor)}"


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


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = False) -> str:
    rule = [" --- ", *(" ---: " if numbers else " --- " for _ in header[1:])]
    lines = [header, *rows]
    cells = ["|" + "|".join(f" {cell} " for cell in line) + "|" for line in lines]
    return "\n".join([cells[0], f"|{'|'.join(rule)}|", *cells[1:]])


def _folded(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], most: int = FOLD_ABOVE) -> str:
    table = _table(header, rows)
    return _details(title, table) if len(rows) > most else table


def _details(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"
