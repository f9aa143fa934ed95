"""No name in a file steers a terminal, reverses a line or forges one: in any format, on any way out."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree

from nanhunt.literal import literal, literal_json, literal_lines
from nanhunt.render import REPORT_FORMATS, render
from nanhunt.results.finding import Finding, RemedyResult, Severity
from nanhunt.results.report import ReadError, Report
from nanhunt.results.tensor import Health, Targets, TensorReport

HARMFUL = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
STEERING = (
    "\x00\x07\x08\t\n\x0b\x0c\r\x1b\x7f\x85\x9b\xad\u061c\u200b\u200e\u202e\u2028\u2066\ufeff\U000e0041\udce9"
)
text = st.text(st.characters() | st.sampled_from(STEERING), max_size=12)


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("\r\n\t\x0b", "\\r\\n\\t\\x0b"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202e", "\\u202e"),
        ("é🙂", "é🙂"),
        ("\udce9", "\\udce9"),
        ("two words", "two words"),
    ],
)
def test_a_name_is_spelled_out(name: str, spelled: str) -> None:
    assert literal(name) == spelled


@given(text)
def test_literal_is_harmless_and_stable(name: str) -> None:
    assert not harmful(literal(name))
    assert literal(literal(name)) == literal(name)
    assert "\n".join(map(literal, name.split("\n"))) == literal_lines(name)


@given(text)
def test_a_json_reader_gets_the_name_as_it_is(name: str) -> None:
    document = literal_json(json.dumps([name], ensure_ascii=False))
    assert not harmful(document)
    assert json.loads(document) == [name]


def harmful(text: str) -> set[str]:
    """Characters other than line feeds that have no business in an output."""
    return {
        character for character in text if character != "\n" and unicodedata.category(character) in HARMFUL
    }


def report(name: str) -> Report:
    """Every text that a file can bring into a report is ``name``."""
    remedy = RemedyResult(name, f"loss = 1  # {name}", True, 1, 0, 0.0)
    failing = replace(remedy, works=False, bad_rows_after=1, outcome=name, changes=name)
    finding = Finding("NH001", "nan-logits", Severity.ERROR, 1, (0,), name, (remedy, failing))
    tensor = TensorReport(
        file=name, tensor=name, role="logits", operation="cross-entropy", fused_call="F.cross_entropy",
        stored_dtype="float32", dtype="float32", shape=(2, 3), rows=2,
        classes=3, targets=Targets(name, 0), health=Health(0, 0, 0, 0, 0, 0.0, 1.0), implementations={},
        truth=None, findings=(finding,), notes=(name,), options={"logits": [name]}, origin=name,
    )  # fmt: skip
    healthy = replace(tensor, findings=())
    dumps = tuple(replace(each, file=f"{number}{name}") for number in range(3) for each in (tensor, healthy))
    return Report({"logits": [name]}, (tensor, *dumps), (ReadError(name, name, name, name),), 1)


@pytest.mark.parametrize("format", REPORT_FORMATS)
@settings(max_examples=10, deadline=None)
@given(name=text)
@example(name="\udd00")  # no byte of a file's name: only a report that was edited has it
def test_no_format_lets_one_through(format: str, name: str) -> None:
    for shown in (report(name), report(name).counted(), Report.from_json(report(name).to_json())):
        for verbosity in (-1, 0, 1) if format in ("text", "json", "jsonl") else (0,):
            assert not harmful(render(shown, format, verbosity=verbosity))
    if format == "junit":
        etree.fromstring(render(report(name), format).encode())
