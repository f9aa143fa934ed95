"""Scripts with a planted fault: the report must name the marked line and operation. Healthy ones: no report."""

from __future__ import annotations

import contextlib
import re
import runpy
from pathlib import Path

import pytest

from nanhunt.watch.incident import Incident
from nanhunt.watch.message import incident_text
from nanhunt.watch.session import Session, Settings
from nanhunt.watch.stopping import Stopped

pytestmark = pytest.mark.filterwarnings("ignore")  # a script's warnings are its own

HERE = Path(__file__).parent
MARK = re.compile(r"# <- fault: (.*)$")
FAULTS = sorted((HERE / "faults").glob("*.py"))
HEALTHY = sorted((HERE / "healthy").glob("*.py"))


def hunt(script: Path, folder: Path) -> tuple[list[Incident], Session]:
    """Run the script in this process, as its own ``__main__``, until it ends or is stopped."""
    every_op = "# settings: every_op" in script.read_text()
    found: list[Incident] = []
    session = Session(Settings(every_op=every_op, capture_dir=str(folder)), found.append)
    with session, contextlib.suppress(Stopped):
        runpy.run_path(str(script), run_name="__main__")
    return found, session


def expectation(script: Path) -> tuple[int, dict[str, str]]:
    """The marked line and what is expected of it."""
    marked = [(n, MARK.search(line)) for n, line in enumerate(script.read_text().splitlines(), 1)]
    [(line, mark)] = [(n, mark) for n, mark in marked if mark]
    pairs = (part.split("=") for part in mark[1].split())
    return line, {key: None if value == "None" else value for key, value in pairs}


def words(script: Path, kind: str) -> list[str]:
    """What the report says ("says"), or what would be no word about this fault ("never")."""
    return re.findall(rf"^# {kind}: (.*)$", script.read_text(), re.MULTILINE)


@pytest.mark.parametrize("script", FAULTS, ids=lambda script: script.stem)
def test_the_planted_fault_is_named(script: Path, tmp_path: Path) -> None:
    line, expected = expectation(script)
    found, _ = hunt(script, tmp_path)
    assert len(found) == 1
    assert "nanhunt failed" not in str(found[0].notes)
    incident = found[0]
    culprit = incident.culprits[0]
    seen = {
        "line": culprit.site.line if culprit.site else None,
        "op": (culprit.detail if culprit.operation[:1].isupper() and culprit.detail else culprit.operation)
        .rstrip("_")
        .replace(" ", "_"),
        "phase": culprit.phase.value,
        "rule": culprit.rule,
        "found_by": incident.found_by.value,
        "name": culprit.tensor_names[0] if culprit.tensor_names else None,
        "input": culprit.tensor_names[0] if culprit.tensor_names else None,
        "module": culprit.module.split(" ")[0],
        "gradient": incident.bad_gradients[0] if incident.bad_gradients else None,
        "rows": ",".join(map(str, culprit.out.rows)) if culprit.out else None,
        "term": next((term.name for term in incident.terms if term.value != term.value), None),
    }
    assert {key: seen[key] for key in ("line", *expected)} == {"line": line, **expected}
    assert Path(culprit.site.file).name == script.name
    text = incident_text(incident)
    assert [phrase for phrase in words(script, "says") if phrase not in text] == []
    assert [phrase for phrase in words(script, "never") if phrase in text] == []
    # Its capture is judged as the run was; but for CTC, which trusts its labels, so that no file may ask for it.
    assert (incident.closer == f"nanhunt check {incident.capture}") == (script.stem != "ctc_target_too_long")


@pytest.mark.parametrize("script", HEALTHY, ids=lambda script: script.stem)
def test_a_healthy_script_raises_no_alarm(script: Path, tmp_path: Path) -> None:
    found, _ = hunt(script, tmp_path)
    assert found == []
    assert list(tmp_path.iterdir()) == []
