"""Workflow commands, read back as the runner reads them."""

from __future__ import annotations

import dataclasses

from nanhunt.render import render
from nanhunt.results.report import Report


def parsed(text):
    """(level, properties, message) of every command, unescaped as actions/runner does."""
    commands = []
    for line in text.splitlines():
        if line.startswith("::"):
            head, message = line[2:].split("::", 1)
            level, _, pairs = head.partition(" ")
            properties = dict(pair.split("=", 1) for pair in pairs.split(","))
            unescaped = {key: _unescape(value, (",", ":")) for key, value in properties.items()}
            commands.append((level, unescaped, _unescape(message, ())))
    return commands


def _unescape(text, more):
    for character in ("\r", "\n", *more):
        text = text.replace(f"%{ord(character):02X}", character)
    return text.replace("%25", "%")


def test_a_finding_as_annotation(golden):
    level, properties, message = parsed(render(Report(tensors=(golden.ARTICLES,)), "github"))[0]
    assert level == "warning"
    assert properties == {
        "file": "articles-batch",
        "title": "nanhunt: exp-overflow (NH101), warning: 1 of 3 rows",
    }
    assert message.splitlines()[1].startswith("row 1: max 1000 > 88.72")
    assert "proven on 1 row: 0 bad afterwards" in message


def test_paths_are_spelled_as_in_the_repository(golden):
    tensor = dataclasses.replace(golden.ARTICLES, file="./dumps/step-1.npy")
    assert parsed(render(Report(tensors=(tensor,)), "github"))[0][1]["file"] == "dumps/step-1.npy"


def test_percent_signs_survive(report):
    messages = [message for _, _, message in parsed(render(report, "github"))]
    assert any("within 10 % of 88.72" in message for message in messages)


def test_hostile_names_start_no_command_of_their_own(report):
    text = render(report, "github")
    assert len(parsed(text)) == len(text.splitlines()) - 1
    assert not any("pwned" in str(properties) for _, properties, _ in parsed(text))
    names = [properties["file"] for _, properties, _ in parsed(text)]
    assert "evil\\x1b[2J\\n::warning::.pt" in names


def test_most_severe_first_and_unread_before_all(report):
    levels = [level for level, _, _ in parsed(render(report, "github"))]
    assert levels == sorted(levels, key=["error", "warning", "notice"].index)
    assert parsed(render(report, "github"))[0][1]["title"] == "nanhunt: not read"


def test_at_most_ten_a_level_and_the_tenth_says_how_many_more(golden):
    tensors = tuple(dataclasses.replace(golden.ARTICLES, file=f"{n}.npy") for n in range(30))
    commands = parsed(render(Report(tensors=tensors), "github"))
    assert len(commands) == 10
    assert commands[-1][1]["title"] == "nanhunt: 51 more"
    assert "51 more of level warning" in commands[-1][2]


def test_ten_are_shown_in_full(golden):
    tensors = tuple(dataclasses.replace(golden.ARTICLES, file=f"{n}.npy") for n in range(5))
    commands = parsed(render(Report(tensors=tensors), "github"))
    assert len(commands) == 10
    assert all("more" not in properties["title"] for _, properties, _ in commands)


def test_what_does_not_fail_the_run_is_a_notice(golden):
    tensor = dataclasses.replace(golden.ARTICLES, options={"fail_on": "error"})
    text = render(Report(tensors=(tensor,)), "github")
    assert {level for level, _, _ in parsed(text)} == {"notice"}
    assert "2 warnings; none of them fails the run (--fail-on)" in text


def test_known_findings_are_notices(golden):
    findings = tuple(dataclasses.replace(finding, known=True) for finding in golden.ARTICLES.findings)
    tensor = dataclasses.replace(golden.ARTICLES, findings=findings)
    assert {level for level, _, _ in parsed(render(Report(tensors=(tensor,)), "github"))} == {"notice"}


def test_a_clean_run_annotates_nothing(golden):
    assert render(Report(tensors=(golden.HEALTHY,)), "github") == "nanhunt: 1 tensor in 1 file: healthy.\n"
