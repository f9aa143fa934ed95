"""``--format junit``: one suite a file; a case for every rule that a tensor with findings was judged by, for CI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from nanhunt.literal import literal, literal_lines
from nanhunt.operations.rules import chosen, of_operation
from nanhunt.render import phrases, proofs, totals
from nanhunt.results.counted import Healthy
from nanhunt.results.finding import Finding
from nanhunt.results.order import natural_key
from nanhunt.results.report import ReadError, Report
from nanhunt.results.tensor import TensorReport
from nanhunt.results.verdict import fails


def render(report: Report) -> str:
    """The XML document. Findings at or above ``fail_on`` are failures; notes below it are in ``system-out``."""
    report = report.counted()
    parts: dict[str, _File] = {}
    for error in report.errors:
        parts.setdefault(error.file, _File()).errors.append(error)
    for group in totals.groups(report):
        parts.setdefault(group[0].file, _File()).tensors.extend(group)
    for healthy in report.healthy:
        for file in healthy.files:
            parts.setdefault(file, _File()).healthy.append(healthy)
    return document(
        _suite(file, parts[file]) for file in sorted(parts, key=lambda name: (natural_key(name), name))
    )


def document(suites: Iterable[ET.Element]) -> str:
    """Suites, which are given their counts here, as a whole document."""
    root = ET.Element("testsuites", name="nanhunt")
    for suite in suites:
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
        suite.set("errors", str(len(suite.findall("testcase/error"))))
        suite.set("skipped", "0")
        # Nothing is timed: the same report is the same bytes. Some servers insist on the attribute.
        suite.set("time", "0")
        root.append(suite)
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, 0)) for suite in root)))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


@dataclass
class _File:
    """What is known of one file."""

    errors: list[ReadError] = field(default_factory=list)
    tensors: list[TensorReport] = field(default_factory=list)
    healthy: list[Healthy] = field(default_factory=list)


def _suite(file: str, part: _File) -> ET.Element:
    suite = ET.Element("testsuite", name=literal(file))
    for error in part.errors:
        _unread(suite, error)
    for tensor in part.tensors:
        _tensor(suite, tensor)
    for group in part.healthy:
        _healthy(suite, file, group)
    return suite


def _unread(suite: ET.Element, error: ReadError) -> None:
    where = f"{error.file} (from {error.origin})" if error.origin else error.file
    case = ET.SubElement(suite, "testcase", name="read", classname=literal(where), time="0")
    element = ET.SubElement(case, "error", message=literal(error.message), type="unreadable")
    element.text = literal_lines(f"{error.message}\n{error.hint}")


def _healthy(suite: ET.Element, file: str, group: Healthy) -> None:
    """One case for all healthy tensors of the file that are alike."""
    where = literal(f"{file} (from {group.origin})" if group.origin else file)
    case = ET.SubElement(suite, "testcase", name=f"healthy [{group.dtype}]", classname=where, time="0")
    lines = [f"{phrases.plural(group.files[file], 'tensor')} healthy", *group.notes]
    ET.SubElement(case, "system-out").text = literal_lines("\n".join(lines))


def _tensor(suite: ET.Element, tensor: TensorReport) -> None:
    findings = {finding.code: finding for finding in tensor.findings}
    for code, name in _looked_at(tensor):
        case = ET.SubElement(
            suite,
            "testcase",
            name=f"{code} {name} [{tensor.judged_in}]",
            classname=phrases.place(tensor),
            time="0",
        )
        if code in findings:
            _finding(case, findings[code], tensor)


def _looked_at(tensor: TensorReport) -> Iterator[tuple[str, str]]:
    """(code, name) of every rule that was judged on this tensor, in the catalogue's order."""
    operation = "values" if tensor.role == "values" else tensor.operation
    codes = chosen(operation, tensor.options.get("select") or (), tensor.options.get("ignore") or ())
    found = {finding.code: finding.name for finding in tensor.findings}
    for rule in of_operation(operation, tensor.targets is not None):
        if rule.code in codes or rule.code in found:
            yield rule.code, found.pop(rule.code, rule.name)
    yield from found.items()  # of a rule that this version does not know, or not for such a tensor


def _finding(case: ET.Element, finding: Finding, tensor: TensorReport) -> None:
    lines = [phrases.rows_named(finding, tensor), phrases.message(finding)]
    working = [remedy for remedy in finding.remedies if remedy.works]
    for remedy in working:
        lines += [f"Fix: {remedy.title}, {proofs.proof(remedy, tensor)}", *remedy.snippet.splitlines()]
    if not working:
        lines.append(proofs.explanation(finding, tensor))
    for proof, titles in proofs.failing(finding, tensor).items():
        lines.append(f"Does not help: {', '.join(titles)}: {proof}")
    text = literal_lines("\n".join(line for line in lines if line))
    if fails(finding, tensor):
        heading = proofs.heading(finding, tensor)
        ET.SubElement(case, "failure", message=heading, type=str(finding.severity)).text = text
    else:
        ET.SubElement(case, "system-out").text = literal_lines(f"{proofs.heading(finding, tensor)}\n{text}")
