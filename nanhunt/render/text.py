"""``--format text``: the report for a person at a terminal, in a pipe or in a log.

rich does the wrapping and the colours. Everything is a ``Text``: nothing is read as markup.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from nanhunt.render import (
    blocks,
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
from nanhunt.render.terminal import HEALTHY, STYLES, Page
from nanhunt.results import series
from nanhunt.results.finding import Finding, RemedyResult, Severity
from nanhunt.results.report import ReadError, Report
from nanhunt.results.runup import curves
from nanhunt.results.tensor import TensorReport

IN_FULL = 3
"""Tensors with findings whose evidence is shown in full; of more, the worst are named and the rules summed up."""
FEW_HEALTHY = 8
RULES = 3
"""Rules of an overview that are shown with an example and a fix."""
UNREAD = 5
RUNS = 3


def render(report: Report, *, width: int, color: bool, verbosity: int, ascii: bool = False) -> str:
    """The report in lines of at most ``width`` columns (code is never wrapped); ANSI escapes only with ``color``.

    It fits a screen, unless ``verbosity`` is positive; negative, there is nothing but new findings.
    """
    page = Page(width, color, ascii)
    groups = totals.groups(report)
    sick = [group for group in groups if any(tensor.findings for tensor in group)]
    shown = [group for group in groups if any(tensor.findings or tensor.truth for tensor in group)]
    answer = series.is_answer(report) and verbosity <= 0
    at_a_glance = len(sick) > IN_FULL and verbosity <= 0 and not answer
    if at_a_glance:
        _headline(page, report)
    _runs(page, report, verbosity)
    if answer:
        _unread(page, report.errors, verbosity)
        page.line(("The findings of the steps that were read: -v", "dim"))
        return page.text()
    if at_a_glance:
        _overview(page, report)
    else:
        _in_full(page, shown, verbosity)
    if verbosity >= 0:
        _healthy(page, report, verbosity)
    _unread(page, report.errors, verbosity)
    if report.not_looked_at and verbosity >= 0:
        page.line(("NOT LOOKED AT ", "bold"), (totals.not_looked_at(report), "dim"))
        page.gap()
    if verbosity >= 0 or not report.tensors:
        page.line((totals.summary(report), "bold"))
    text = page.text().rstrip("\n")
    return f"{text}\n" if text else ""


def _runs(page: Page, report: Report, verbosity: int) -> None:
    """What was understood of the layout, and where it began."""
    found = series.runs(report)
    for run in found[:RUNS]:
        told = where.sentences(run)
        if verbosity >= 0:
            page.line((where.understood(run), "dim"))
        for line in told:
            page.line((line, "bold" if line is told[0] else ""))
        came = growing.sentences(curves(report, run.name, run.origin), run.unit, ascii=page.ascii)
        for line in came if verbosity >= 0 or told else ():
            page.line((line, ""))
        if told or verbosity >= 0:
            page.gap()
    for said in report.assumed:
        page.line((said, ""))
    if report.assumed:
        page.gap()
    if len(found) > RUNS and verbosity >= 0:
        page.line((f"and {phrases.plural(len(found) - RUNS, 'more run')}", "dim"))
        page.gap()


def _in_full(page: Page, groups: Sequence[Sequence[TensorReport]], verbosity: int) -> None:
    snippets: set[str] = set()
    for group in groups:
        new = [finding for tensor in group for finding in tensor.findings if not finding.known]
        if new or verbosity >= 0:
            _group(page, group, verbosity, snippets)


def _headline(page: Page, report: Report) -> None:
    """The verdict on all of it."""
    severity = overview.worst_word(overview.worst_first(report))
    style = STYLES[severity] if severity else HEALTHY
    word = severity.name if severity else "NOTHING NEW"
    page.line((word, f"{style} bold"), (f" {overview.headline(report)}", style))
    page.gap()


def _overview(page: Page, report: Report) -> None:
    """The worst tensors, then every rule with its worst tensor and its fix."""
    tensors = overview.worst_first(report)
    _worst(page, tensors)
    rules = overview.by_rule(report)
    for rule in rules[:RULES]:
        _rule(page, rule)
    for rule in rules[RULES:]:
        page.line((rule.heading, STYLES[rule.severity]))
    if len(rules) > RULES:
        page.gap()
    if tensors:
        page.line(("All of it: -v, or --output report.html as a page.", "bold"))
        page.gap()


def _worst(page: Page, tensors: Sequence[TensorReport]) -> None:
    seen = overview.once_each(tensors)
    shown = seen[: overview.WORST]
    folder = _common_folder(page, [phrases.place(each.tensor) for each in shown])
    if shown:
        number = f" {len(shown)}" if len(shown) > 1 else ""
        inside = f", in {folder[:-1]}" if folder else ""
        page.line((f"The worst{number}{inside}:", "bold"))
    for each in shown:
        _named(page, each, folder)
    more = len(seen) - len(shown)
    if more > 0:
        page.line((f"and {phrases.count(more)} more", "dim"), indent=2)
    page.gap()


def _common_folder(page: Page, places: Sequence[str]) -> str:
    """The folder, file or module that all of them lie in, if some are too long for a line with it; else ""."""
    if max(map(len, places), default=0) + len("  WARNING ") <= page.width:
        return ""
    common = os.path.commonprefix(list(places))  # noqa: RUF071 - cut at a separator below
    return common[: max(map(common.rfind, "/:.")) + 1]


def _named(page: Page, each: overview.Seen, folder: str) -> None:
    verdict = verdicts.verdict(each.tensor)
    style = STYLES[verdict.severity] if verdict.severity else HEALTHY
    place = phrases.place(each.tensor).removeprefix(folder)
    word = (verdict.word, f"{style} bold"), (f" {place}", "bold")
    brief = f"{verdicts.brief(each.tensor)}{each.more_steps}"
    if len(f"  {verdict.word} {place}  {brief}") <= page.width:
        page.line(*word, (f"  {brief}", ""), indent=2)
    else:
        page.line(*word, indent=2)
        page.line((brief, ""), indent=4)


def _rule(page: Page, rule: overview.RuleGroup) -> None:
    finding, tensor = rule.worst
    page.line((rule.heading, STYLES[rule.severity]))
    where = f"{phrases.place(tensor)} in {tensor.judged_in}"
    page.line(
        (f"{'most in ' if len(rule.members) > 1 else ''}{where}: {phrases.message(finding)}", ""),
        indent=2,
    )
    working = next((remedy for remedy in finding.remedies if remedy.works), None)
    fix = "" if working else proofs.explanation(finding, tensor)
    if working:
        page.line(
            ("Fix: ", "bold green"), (f"{working.title}, {proofs.proof(working, tensor)}", ""), indent=2
        )
        page.code(working.snippet, indent=6)
    if fix:
        page.line(("What to do: ", "bold"), (fix, ""), indent=2)
    page.gap()


def statistics(report: Report, *, width: int, color: bool, ascii: bool = False) -> str:
    """Rules by how often they hold, over all inputs."""
    page = Page(width, color, ascii)
    counts = totals.rule_counts(report)
    if not counts:
        page.line(("No rule holds anywhere.", HEALTHY))
        return page.text()
    header = ("code", "rule", "severity", "tensors", "rows")
    lines = [
        (count.code, count.name, str(count.severity), phrases.count(count.tensors), phrases.count(count.rows))
        for count in counts
    ]
    page.table(header, lines, [STYLES[count.severity] for count in counts], left=3)
    return page.text()


def _group(page: Page, group: Sequence[TensorReport], verbosity: int, shown: set[str]) -> None:
    """One tensor in all the dtypes it was judged in: first every verdict, then the evidence."""
    _what_was_read(page, group[0])
    for tensor in group:
        _verdict(page, tensor)
    for note in dict.fromkeys(note for tensor in group for note in tensor.notes):
        page.line((note, "dim"), indent=2)
    if verbosity >= 0:
        _numbers(page, group, verbosity)
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


def _numbers(page: Page, group: Sequence[TensorReport], verbosity: int) -> None:
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


def _healthy(page: Page, report: Report, verbosity: int) -> None:
    """Healthy tensors: a line each while they are few or asked for, else one line for all."""
    groups = totals.groups(report)
    tensors = [each for group in groups if all(one.countable for one in group) for each in group]
    few = len(tensors) <= FEW_HEALTHY or verbosity > 0
    for tensor in tensors if few else ():
        verdict = verdicts.verdict(tensor)
        read = f" {phrases.shape(tensor.shape)} {tensor.judged_in}: {verdict.text}"
        page.line((verdict.word, f"{HEALTHY} bold"), (f" {phrases.place(tensor)}", "bold"), (read, ""))
        if verbosity > 0:
            _numbers(page, [tensor], verbosity)
        for note in tensor.notes:
            page.line((note, "dim"), indent=2)
    counted = Report(tensors=() if few else tuple(tensors), healthy=report.healthy).counted()
    number, files = totals.tensors_and_files(counted)
    if number:
        told = f" {phrases.plural(number, 'tensor')} in {phrases.plural(files, 'file')} without a finding"
        page.line(("HEALTHY", f"{HEALTHY} bold"), (told, HEALTHY), (" (--verbose lists them)", "dim"))
        for note, times in totals.common_notes(counted.healthy):
            page.line((f"{note} ({phrases.plural(times, 'tensor')})", "dim"), indent=2)
    if tensors or number:
        page.gap()


def _unread(page: Page, errors: Sequence[ReadError], verbosity: int) -> None:
    shown = errors if verbosity > 0 else errors[:UNREAD]
    for error in shown:
        _error(page, error)
    if len(errors) > len(shown):
        page.line(
            (
                f"NOT READ {phrases.count(len(errors) - len(shown))} more (--verbose lists them)",
                STYLES[Severity.ERROR],
            )
        )
        page.gap()


def _error(page: Page, error: ReadError) -> None:
    file, message = error.file, error.message
    # Most messages begin with the file, and it should not be read twice.
    rest = (
        message.removeprefix(file) if message.startswith(f"{file} ") else f": {message}" if file else message
    )
    origin = f" (from {error.origin})" if error.origin else ""
    page.line(("NOT READ ", STYLES[Severity.ERROR]), (file, "bold"), (rest + origin, ""))
    if error.hint:
        page.line((error.hint, ""), indent=2)
    page.gap()
