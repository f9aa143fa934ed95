"""``--format junit``: one suite per file, one case per tensor, dtype and rule looked at, for CI servers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as ET

from nanhunt.operations.rules import RULES, chosen, of_operation
from nanhunt.render import phrases
from nanhunt.results.report import Finding, ReadError, Report, Severity, TensorReport, natural_key

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped: https://www.w3.org/TR/xml/#charsets."""


def render(report: Report) -> str:
    """The XML document. Findings at or above ``fail_on`` are failures; notes below it are in ``system-out``."""
    root = ET.Element("testsuites", name="nanhunt")
    tensors: dict[str, list[TensorReport]] = {error.file: [] for error in report.errors}
    for group in phrases.groups(report):
        tensors.setdefault(group[0].file, []).extend(group)
    for file in sorted(tensors, key=lambda name: (natural_key(name), name)):
        _suite(root, file, tensors[file], report)
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, 0)) for suite in root)))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _suite(root: ET.Element, file: str, tensors: Sequence[TensorReport], report: Report) -> None:
    suite = ET.SubElement(root, "testsuite", name=_legal(file))
    for error in report.errors:
        if error.file == file:
            _unread(suite, error)
    for tensor in tensors:
        _tensor(suite, tensor, report)
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", str(len(suite.findall("testcase/error"))))
    suite.set("skipped", "0")
    # Nothing is timed: the same report is the same bytes. Some servers insist on the attribute.
    suite.set("time", "0")


def _unread(suite: ET.Element, error: ReadError) -> None:
    case = ET.SubElement(suite, "testcase", name="read", classname=_legal(error.file), time="0")
    element = ET.SubElement(case, "error", message=_legal(error.message), type="unreadable")
    element.text = _legal(f"{error.message}\n{error.hint}")


def _tensor(suite: ET.Element, tensor: TensorReport, report: Report) -> None:
    findings = {finding.code: finding for finding in tensor.findings}
    for code, name in _looked_at(tensor, report):
        case = ET.SubElement(
            suite,
            "testcase",
            name=f"{code} {name} [{tensor.dtype}]",
            classname=_legal(phrases.place(tensor)),
            time="0",
        )
        if code in findings:
            _finding(case, findings[code], tensor, report)


def _looked_at(tensor: TensorReport, report: Report) -> Iterator[tuple[str, str]]:
    """(code, name) of every rule that was judged on this tensor, in the catalogue's order."""
    codes = chosen(_listed(report, "select"), _listed(report, "ignore"))
    found = {finding.code: finding.name for finding in tensor.findings}
    operation = "values" if tensor.role == "values" else tensor.operation
    judged = {rule.code for rule in of_operation(operation, tensor.targets is not None)} & codes
    yield from ((code, rule.name) for code, rule in RULES.items() if code in found or code in judged)
    yield from ((code, name) for code, name in found.items() if code not in RULES)


def _listed(report: Report, option: str) -> Sequence[str]:
    """An option that is a list; a merged report may say "various", then every rule may have been judged."""
    value = report.options.get(option, ())
    return [] if isinstance(value, str) else list(value)


def _finding(case: ET.Element, finding: Finding, tensor: TensorReport, report: Report) -> None:
    lines = [phrases.rows_named(finding, tensor), phrases.message(finding, tensor)]
    working = [remedy for remedy in finding.remedies if remedy.works]
    for remedy in working:
        lines += [f"Fix: {remedy.title}, {phrases.proof(remedy, tensor)}", *remedy.snippet.splitlines()]
    if not working:
        lines.append(phrases.explanation(finding))
    for proof, titles in phrases.failing(finding, tensor).items():
        lines.append(f"Does not help: {', '.join(titles)}: {proof}")
    text = _legal("\n".join(line for line in lines if line))
    if _fails(finding, report):
        heading = _legal(phrases.heading(finding, tensor))
        ET.SubElement(case, "failure", message=heading, type=str(finding.severity)).text = text
    else:
        ET.SubElement(case, "system-out").text = _legal(f"{phrases.heading(finding, tensor)}\n{text}")


def _fails(finding: Finding, report: Report) -> bool:
    fail_on = str(report.options.get("fail_on", "warning"))
    if fail_on == "never" or finding.known:
        return False
    threshold = Severity(fail_on) if fail_on in list(Severity) else Severity.WARNING
    return finding.severity.rank >= threshold.rank


def _legal(text: str) -> str:
    return _ILLEGAL.sub("", text)
