"""A run's findings as SARIF: file, line and column of what the user can edit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from test_faults import HERE, hunt

from nanhunt.watch.incident import Incident
from nanhunt.watch.message import encoded
from nanhunt.watch.sarif import document
from nanhunt.watch.site import Site


def run_of(*incidents: Incident | dict[str, Any]) -> dict[str, Any]:
    [run] = json.loads(document(incidents))["runs"]
    known = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert {result["ruleId"] for result in run["results"]} - known <= {"non-finite"}
    found: dict[str, Any] = run
    return found


def test_a_culprit_has_file_line_and_column_and_its_patch(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        'import torch\nx = torch.tensor(0.0, requires_grad=True)\nü = "é"; y = 2 * torch.log(x)\ny.backward()\n'
    )
    [incident], _ = hunt(script, tmp_path / "capture")
    [result] = run_of(incident)["results"]
    [place] = result["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"].endswith("/train.py")
    assert place["physicalLocation"]["region"] == {"startLine": 3, "startColumn": 18, "endColumn": 30}
    assert (result["ruleId"], result["level"]) == ("log-of-zero", "error")
    assert result["message"]["text"].startswith("step 1: the loss is -inf\nlog (forward): log of 0 is -inf")


def test_the_users_own_line_stands_first_and_the_packages_beside_it(tmp_path: Path) -> None:
    [incident], _ = hunt(HERE / "faults" / "articles_softmax.py", tmp_path)
    culprit = incident.culprits[0]
    inside = replace(
        culprit, site=Site("lib/x.py", 3, "f", "exp(x)"), own=Site("train.py", 9, "main", "f(x)")
    )
    [result] = run_of(replace(incident, culprits=(inside,), chain=()))["results"]
    uris = [
        [place["physicalLocation"]["artifactLocation"]["uri"] for place in result[key]]
        for key in ("locations", "relatedLocations")
    ]
    assert uris == [["train.py"], ["lib/x.py"]]


def test_children_and_what_has_no_culprit_are_there_too(tmp_path: Path) -> None:
    [incident], _ = hunt(HERE / "faults" / "articles_softmax.py", tmp_path)
    bare = replace(incident, culprits=())
    run = run_of(encoded(incident), bare)
    assert [result["ruleId"] for result in run["results"]] == ["NH101", "non-finite"]
    [rule] = run["tool"]["driver"]["rules"]
    assert (rule["id"], rule["name"]) == ("NH101", "exp-overflow")
    assert rule["help"]["text"]


def test_nothing_found_is_an_empty_log() -> None:
    assert run_of()["results"] == []
