"""``--format text``: the report for a person at a terminal, in a pipe or in a log.

rich does the wrapping and the colours. Everything is a ``Text``: nothing is read as markup.
"""

from __future__ import annotations

from collections.abc import Sequence

from nanhunt.render import phrases, totals, verdicts
from nanhunt.render.terminal import HEALTHY, STYLES, Page
from nanhunt.results.finding import Severity
from nanhunt.results.report import ReadError, Report

IN_FULL = 3
"""Tensors with findings whose evidence is shown in full; of more, the worst are named and the rules summed up."""
FEW_HEALTHY = 8
UNREAD = 5
CODE = 2
"""Names of code in files that are shown unless all is asked for."""


def render(report: Report, *, width: int, color: bool, verbosity: int, ascii: bool = False) -> str:
    """The report in lines of at most ``width`` columns (code is never wrapped); ANSI escapes only with ``color``.

    It fits a screen, unless ``verbosity`` is positive; negative, there is nothing but new findings.
    """
    page = Page(width, color, ascii)
    if verbosity <= 0 and _is_answer(report):
        _runs(page, report, verbosity)
        _unread(page, report.errors, verbosity)
        page.line(("The findings of the steps that were read: -v", "dim"))
        return page.text()
    _found(page, report, verbosity)
    if verbosity >= 0:
        _healthy(page, report, verbosity)
    _unread(page, report.errors, verbosity)
    if report.not_looked_at and verbosity >= 0:
        page.line(("NOT LOOKED AT ", "bold"), (totals.not_looked_at(report), "dim"))
        page.gap()
    if report.not_run and verbosity >= 0:
        page.line(("not run: ", "bold"), (totals.not_run(report, None if verbosity > 0 else CODE), "dim"))
        page.gap()
    if verbosity >= 0 or not report.tensors:
        page.line((totals.summary(report), "bold"))
    text = page.text().rstrip("\n")
    return f"{text}\n" if text else ""


# What follows imports where it is needed: most reports are of healthy tensors in no run, and should start at once.


def _is_answer(report: Report) -> bool:
    """Whether it was asked only where it began (--first), and that is known."""
    if not report.assumed:
        return False
    from nanhunt.results import series

    return any(run.began for run in series.runs(report))


def _runs(page: Page, report: Report, verbosity: int) -> None:
    if report.has_runs or report.assumed:
        from nanhunt.render import text_runs

        text_runs.runs(page, report, verbosity)


def _found(page: Page, report: Report, verbosity: int) -> None:
    """Where it began, and the findings: a few tensors in full, of many the worst and rule by rule."""
    groups = totals.groups(report)
    sick = [group for group in groups if any(tensor.findings for tensor in group)]
    shown = [group for group in groups if any(tensor.findings or tensor.truth for tensor in group)]
    if len(sick) > IN_FULL and verbosity <= 0:
        from nanhunt.render import text_overview

        text_overview.headline(page, report)
        _runs(page, report, verbosity)
        text_overview.rules_and_worst(page, report)
        return
    _runs(page, report, verbosity)
    if shown:
        from nanhunt.render import text_findings

        text_findings.in_full(page, shown, verbosity)


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
            from nanhunt.render import text_findings

            text_findings.numbers(page, [tensor], verbosity)
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
