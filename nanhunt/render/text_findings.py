"""The text report's findings: every verdict of a tensor, its evidence, and the fixes that were run."""

from __future__ import annotations

from collections.abc import Sequence

from nanhunt.render import blocks, phrases, proofs, severities, side_by_side, verdicts
from nanhunt.render.terminal import HEALTHY, STYLES, Page
from nanhunt.results.finding import Finding, RemedyResult
from nanhunt.results.tensor import TensorReport


def in_full(page: Page, groups: Sequence[Sequence[TensorReport]], verbosity: int) -> None:
    """Each tensor in all its dtypes; with a negative ``verbosity`` those with new findings only."""
    snippets: set[str] = set()
    for group in groups:
        new = [finding for tensor in group for finding in tensor.findings if not finding.known]
        if new or verbosity >= 0:
            _group(page, group, verbosity, snippets)


def _group(page: Page, group: Sequence[TensorReport], verbosity: int, shown: set[str]) -> None:
    """One tensor in all the dtypes it was judged in: first every verdict, then the evidence."""
    _what_was_read(page, group[0])
    for tensor in group:
        _verdict(page, tensor)
    for note in dict.fromkeys(note for tensor in group for note in tensor.notes):
        page.line((note, "dim"), indent=2)
    if verbosity >= 0:
        numbers(page, group, verbosity)
    for tensor in group:
        _evidence(page, tensor, len(group) > 1, verbosity, shown)
    page.gap()


def _what_was_read(page: Page, tensor: TensorReport) -> None:
    read = f"  {phrases.shape(tensor.shape)} {tensor.stored_dtype}"
    if tensor.targets:
        ignored = f", {phrases.count(tensor.targets.ignored)} ignored" if tensor.targets.ignored else ""
        read += f", labels from {tensor.targets.source}{ignored}"
    elif tensor.role == "logits":
        read += ", no labels"
    elif tensor.role == "operands":
        read += f", judged as {tensor.operation} of {phrases.operands(tensor)}"
    page.line((phrases.place(tensor), "bold"), (read, ""))


def _verdict(page: Page, tensor: TensorReport) -> None:
    verdict = verdicts.verdict(tensor)
    style = STYLES[verdict.severity] if verdict.severity else HEALTHY
    page.line((verdict.word, f"{style} bold"), (f" {tensor.judged_in}: {verdict.sentence}", style), indent=2)


def numbers(page: Page, group: Sequence[TensorReport], verbosity: int) -> None:
    """The values themselves: counts, and where they live by power of two."""
    first = group[0]
    health = phrases.health(first)
    if health and (first.role == "values" or verbosity > 0):
        page.line((health, ""), indent=2)
    histogram = next((tensor.histogram for tensor in group if tensor.histogram), None)
    if histogram and (verbosity > 0 or any(tensor.findings for tensor in group)):
        page.gap()
        dtypes = list(dict.fromkeys(tensor.dtype for tensor in group))  # merged reports may share one
        for line in blocks.histogram(histogram, dtypes, first.role, page.width - 4, page.ascii):
            page.line((line, ""), indent=2)


def _evidence(page: Page, tensor: TensorReport, several: bool, verbosity: int, shown: set[str]) -> None:
    """The side-by-side table and the findings of one tensor in one dtype."""
    table = side_by_side.comparison(tensor) if verbosity >= 0 else None
    if table:
        page.gap()
        if several:
            page.line((tensor.judged_in, "bold"), indent=2)
        page.table(
            ("", *table.columns), [(label, *cells) for label, cells in table.rows], [""] * len(table.rows)
        )
        for remark in table.remarks:
            page.line((remark, "dim"), indent=2)
    for finding in severities.by_severity(tensor.findings):
        if not finding.known:
            page.gap()
            _finding(page, finding, tensor, several, shown)
        elif verbosity >= 0:
            page.gap()
            page.line((proofs.heading(finding, tensor), "dim"), indent=2)


def _finding(page: Page, finding: Finding, tensor: TensorReport, several: bool, shown: set[str]) -> None:
    style = STYLES[finding.severity]
    where = f" in {tensor.judged_in}" if several else ""
    page.line((proofs.heading(finding, tensor) + where, style), indent=2)
    if phrases.rows_named(finding, tensor) and finding.count > 1:
        page.line((phrases.rows_named(finding, tensor), ""), indent=4)
    page.line((phrases.message(finding), ""), indent=4)
    working = [remedy for remedy in finding.remedies if remedy.works]
    for remedy in working:
        _remedy(page, remedy, tensor, shown)
    fix = "" if working else proofs.explanation(finding, tensor)
    if fix:
        page.line(("What to do: ", "bold"), (fix, ""), indent=4)
    for proof, titles in proofs.failing(finding, tensor).items():
        told = f"{', '.join(titles)}{':' if len(titles) > 1 else ','} {proof}"
        page.line(("Does not help: ", ""), (told, "dim"), indent=4)


def _remedy(page: Page, remedy: RemedyResult, tensor: TensorReport, shown: set[str]) -> None:
    page.line(
        ("Fix: ", "bold green"),
        (f"{remedy.title}, {proofs.proof(remedy, tensor)}", ""),
        indent=4,
    )
    # The same fix for fifty dumps is printed once as code.
    if remedy.snippet and remedy.snippet not in shown:
        shown.add(remedy.snippet)
        page.code(remedy.snippet, indent=8)
