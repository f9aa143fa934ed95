"""``nanhunt diff`` for a person at a terminal: the verdict, where A and B part, then the evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nanhunt.render import phrases, severities
from nanhunt.render.difference import wording
from nanhunt.render.terminal import HEALTHY, STYLES, Page
from nanhunt.results.difference import Difference, TensorDifference, Unpaired
from nanhunt.results.finding import Severity

IN_FULL = 3
"""Pairs whose numbers are shown where no --verbose asks for all; of more, the first are."""
ALONE = 5
"""Tensors without a partner that are named, of each side."""


def render(found: Difference, *, width: int, color: bool, verbosity: int, ascii: bool = False) -> str:
    """Lines of at most ``width`` columns; with a negative verbosity nothing but findings."""
    page = Page(width, color, ascii)
    worst = wording.severity(found)
    apart = [tensor for tensor in found.tensors if wording.worst(tensor) not in (None, Severity.NOTE)]
    told = apart or [tensor for tensor in found.tensors if tensor.findings]
    told = sorted(
        told, key=lambda tensor: not wording.is_turned(tensor)
    )  # a NaN among rounding is what is looked for
    if verbosity >= 0 or told or found.only_a or found.only_b:
        _headline(page, found, worst)
    shown = found.tensors if verbosity > 0 else told[:IN_FULL]
    alike = Counter(wording.name(tensor) for tensor in told)
    for tensor in shown:
        _tensor(page, tensor, wording.place(tensor) if alike[wording.name(tensor)] > 1 else "")
    if len(told) > len(shown):
        page.line(
            (f"and {phrases.plural(len(told) - len(shown), 'more tensor')}", "bold"),
            (" (--verbose shows all)", "dim"),
        )
        page.gap()
    _alone(page, "A", found.only_a, verbosity)
    _alone(page, "B", found.only_b, verbosity)
    _suggestion(page, found)
    if found.tensors or found.identical:
        _advice(page, found)
    _unread(page, found)
    text = page.text().rstrip("\n")
    return f"{text}\n" if text else ""


def _headline(page: Page, found: Difference, worst: Severity | None) -> None:
    word, style = ("SAME", HEALTHY) if worst in (None, Severity.NOTE) else ("DIFFERENT", STYLES[worst])
    if word == "SAME" and any(each.grade in ("isolated", "different") for each in found.tensors):
        word, style = "DIFFERENT", ""  # --select or --ignore left out what says so
    if found.errors and not found.tensors and not found.identical:
        word, style = "NOT COMPARED", STYLES[Severity.ERROR]
    elif found.errors and word == "SAME":
        word, style = "SAME AS FAR AS READ", STYLES[Severity.ERROR]
    page.line((word, f"{style} bold"), (f" {wording.headline(found)}", style))
    page.line((f"A: {found.a}", ""), indent=2)
    page.line((f"B: {found.b}", ""), indent=2)
    for line in filter(None, (wording.first(found), wording.turned(found))):
        page.line((line, "bold"), indent=2)
    for line in filter(None, (wording.tally(found), *found.pairing)):
        page.line((line, ""), indent=2)
    page.gap()


def _tensor(page: Page, tensor: TensorDifference, place: str) -> None:
    """One pair; ``place`` is where it stands in a run, if that tells it from others of its name."""
    worst = wording.worst(tensor)
    style = STYLES[worst] if worst is not None else HEALTHY
    stands = f" ({place})" if place else ""
    page.line((wording.name(tensor), "bold"), (f"{stands}  {wording.what(tensor)}", ""))
    page.line((tensor.verdict, style), indent=2)
    for finding in severities.by_severity(tensor.findings):
        page.line(
            (wording.heading(finding), STYLES[finding.severity]), (f": {finding.message}", ""), indent=2
        )
    if tensor.differing:
        for line in wording.measures(tensor):
            page.line((line, "dim"), indent=4)
    page.gap()


def _alone(page: Page, side: str, alone: Sequence[Unpaired], verbosity: int) -> None:
    if not alone:
        return
    style = next((STYLES[each.finding.severity] for each in alone if each.finding), "")
    page.line((f"only in {side}: {phrases.plural(len(alone), 'tensor')}", style))
    shown = alone if verbosity > 0 else alone[:ALONE]
    for each in shown:
        page.line((wording.alone(each, "B" if side == "A" else "A"), ""), indent=2)
    if len(alone) > len(shown):
        page.line((f"and {phrases.count(len(alone) - len(shown))} more", "dim"), indent=2)
    page.gap()


def _suggestion(page: Page, found: Difference) -> None:
    told, arguments = wording.suggestion(found)
    if told:
        page.line((told, "bold"))
        page.code("\n".join(arguments), indent=2)
        page.gap()


def _advice(page: Page, found: Difference) -> None:
    """What to do, once for each rule, the worst first."""
    serious = [each for each in found.findings if each.severity is not Severity.NOTE]
    for finding, _ in wording.by_rule(serious):
        page.line((f"{finding.code}: ", "bold"), (wording.advice(finding), ""))
    if serious:
        page.gap()


def _unread(page: Page, found: Difference) -> None:
    for error in found.errors[:ALONE]:
        page.line(("NOT READ ", STYLES[Severity.ERROR]), (error.file, "bold"), (f": {error.message}", ""))
        if error.hint:
            page.line((error.hint, ""), indent=2)
    if len(found.errors) > ALONE:
        page.line((f"NOT READ {phrases.count(len(found.errors) - ALONE)} more", STYLES[Severity.ERROR]))
