"""``nanhunt diff --format junit``: a case for every pair that is not bit for bit equal, and one for those that are."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from nanhunt.literal import literal, literal_lines
from nanhunt.render import phrases, severities
from nanhunt.render.difference import wording
from nanhunt.render.junit import document
from nanhunt.results.difference import Difference, Unpaired


def render(found: Difference) -> str:
    """The XML document; findings at or above ``fail_on`` are failures, others are in ``system-out``."""
    found = found.counted()
    suite = ET.Element("testsuite", name=literal(f"{found.a} against {found.b}"))
    for error in found.errors:
        case = ET.SubElement(suite, "testcase", name="read", classname=literal(error.file), time="0")
        element = ET.SubElement(case, "error", message=literal(error.message), type="unreadable")
        element.text = literal_lines(f"{error.message}\n{error.hint}")
    for tensor in found.tensors:
        lines = [tensor.verdict, *(finding.message for finding in tensor.findings), *wording.measures(tensor)]
        failing = [finding for finding in severities.by_severity(tensor.findings) if found.fails(finding)]
        heading = wording.heading(failing[0]) if failing else ""
        kind = str(failing[0].severity) if failing else ""
        _case(suite, wording.name(tensor), tensor.file_a, heading, kind, lines)
    for side, alone in (("A", found.only_a), ("B", found.only_b)):
        for each in alone:
            _without_partner(suite, found, side, each)
    if found.identical:
        told = [f"{phrases.plural(found.identical, 'tensor')} bit for bit equal"]
        _case(suite, "bit for bit equal", found.a, "", "", told)
    return document([suite])


def _without_partner(suite: ET.Element, found: Difference, side: str, each: Unpaired) -> None:
    fails = each.finding is not None and found.fails(each.finding)
    heading = wording.heading(each.finding) if each.finding else ""
    kind = str(each.finding.severity) if each.finding and fails else ""
    lines = [f"only in {side}: {wording.alone(each, 'B' if side == 'A' else 'A')}"]
    _case(suite, literal(each.name or each.file), each.file, heading if fails else "", kind, lines)


def _case(suite: ET.Element, name: str, file: str, failure: str, kind: str, lines: list[str]) -> None:
    case = ET.SubElement(suite, "testcase", name=name, classname=literal(file), time="0")
    text = literal_lines("\n".join(lines))
    if failure:
        ET.SubElement(case, "failure", message=failure, type=kind).text = text
    else:
        ET.SubElement(case, "system-out").text = text
