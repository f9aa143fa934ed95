"""The JUnit document, judged by the schema that CI servers accept."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from lxml import etree

from nanhunt.operations.rules import of_operation
from nanhunt.render import render
from nanhunt.results.report import ReadError, Report

SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).parent / "junit.xsd"))


def parse(report):
    tree = etree.fromstring(render(report, "junit").encode("utf-8"))
    SCHEMA.assertValid(tree)
    return tree


def names(tree, file):
    return [case.get("name").split()[0] for case in tree.findall(f"testsuite[@name='{file}']/testcase")]


def test_the_schema_refuses_what_is_wrong(report):
    text = render(report, "junit").replace('failures="', 'failed="')
    assert not SCHEMA.validate(etree.fromstring(text.encode()))


def test_valid_and_counted(report):
    tree = parse(report)
    assert int(tree.get("tests")) == len(tree.findall(".//testcase"))
    assert int(tree.get("failures")) == len(tree.findall(".//failure")) == 6
    assert int(tree.get("errors")) == len(tree.findall(".//error")) == 2
    for suite in tree:
        assert int(suite.get("tests")) == len(suite.findall("testcase"))
        assert int(suite.get("failures")) == len(suite.findall(".//failure"))


def test_an_empty_report_is_valid():
    assert parse(Report()).get("tests") == "0"


def test_one_case_per_rule_looked_at_passing_ones_too(report):
    tree = parse(report)
    assert names(tree, "articles-batch") == [
        rule.code for rule in of_operation("cross-entropy", targets=True)
    ]
    assert names(tree, "model.safetensors") == [rule.code for rule in of_operation("values", targets=False)]


def test_rules_about_the_loss_are_not_looked_at_without_labels(golden):
    looked_at = names(parse(Report(tensors=(golden.ATTENTION,))), "attn.pt")
    assert looked_at == [rule.code for rule in of_operation("cross-entropy", targets=False)]


def test_select_and_ignore_restrict_the_cases(golden):
    options = {"select": ["NH1"], "ignore": ["sum-overflow"]}
    tensor = dataclasses.replace(golden.ARTICLES, options=options, findings=(golden.EXP_OVERFLOW,))
    cases = names(parse(Report({}, (tensor,))), "articles-batch")
    assert cases == ["NH101", "NH103", "NH104"]


def test_healthy_tensors_are_one_case_a_file(golden):
    tensors = tuple(dataclasses.replace(golden.HEALTHY, tensor=f"layer.{n}") for n in range(500))
    for report in (Report(tensors=tensors), Report(tensors=tensors).counted()):
        (case,) = parse(report).findall("testsuite/testcase")
        assert (case.get("name"), case.get("classname")) == ("healthy [bfloat16]", "attn.pt")
        assert case.find("system-out").text == "500 tensors healthy"


@pytest.mark.parametrize(("fail_on", "failures"), [("never", 0), ("error", 0), ("warning", 2)])
def test_failures_follow_the_options_of_the_tensor(golden, fail_on, failures):
    tensor = dataclasses.replace(golden.ARTICLES, options={"fail_on": fail_on})
    tree = parse(Report({"fail_on": "note"}, (tensor,)))
    assert len(tree.findall(".//failure")) == failures
    assert len(tree.findall(".//system-out")) == 2 - failures


def test_known_findings_pass(golden):
    findings = tuple(dataclasses.replace(finding, known=True) for finding in golden.ARTICLES.findings)
    tree = parse(Report(tensors=(dataclasses.replace(golden.ARTICLES, findings=findings),)))
    assert not tree.findall(".//failure")
    assert "known" in tree.find(".//system-out").text


def test_unreadable_files_are_errors(report):
    error = parse(report).find("testsuite[@name='dumps/step-30.npz']/testcase/error")
    assert error.get("message") == "truncated: 1,024 of 4,096 bytes are there"
    assert "Write the file again." in error.text


def test_what_xml_cannot_hold_is_spelled_out():
    everything = "".join(map(chr, range(0x180))) + "\ufffe\uffff\ud800\U0001f600"
    tree = parse(Report(errors=(ReadError(everything, everything, everything),)))
    assert "\U0001f600" in tree.find("testsuite").get("name")


def test_a_finding_of_a_newer_version_is_shown(golden):
    finding = dataclasses.replace(golden.EXP_OVERFLOW, code="NH999", name="of-tomorrow")
    tree = parse(Report(tensors=(dataclasses.replace(golden.ARTICLES, findings=(finding,)),)))
    assert tree.findall(".//testcase[failure]")[0].get("name") == "NH999 of-tomorrow [float32]"
