"""The text report of many bad tensors: the verdict on all of it, the worst of them, then rule by rule."""

from __future__ import annotations

import os
from collections.abc import Sequence

from nanhunt.render import overview, phrases, proofs, verdicts
from nanhunt.render.terminal import HEALTHY, STYLES, Page
from nanhunt.results.report import Report
from nanhunt.results.tensor import TensorReport

RULES = 3
"""Rules that are shown with an example and a fix."""


def headline(page: Page, report: Report) -> None:
    """The verdict on all of it."""
    severity = overview.worst_word(overview.worst_first(report))
    style = STYLES[severity] if severity else HEALTHY
    word = severity.name if severity else "NOTHING NEW"
    page.line((word, f"{style} bold"), (f" {overview.headline(report)}", style))
    page.gap()


def rules_and_worst(page: Page, report: Report) -> None:
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
