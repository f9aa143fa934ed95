"""The registry: every operation under its own name, loaded only when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nanhunt.errors import NanhuntError
from nanhunt.operations.registry import OPERATIONS, find
from nanhunt.operations.rules import RULES
from nanhunt.operations.rules import find as find_rule

LAZY = """
import sys
from nanhunt.cli import app
from nanhunt.operations import registry, rules
from nanhunt.scan import options

def loaded():
    return [name for name, home in registry._HOMES.items() if home.split(":")[0] in sys.modules]

assert not loaded(), loaded()
rules.check(["NH101"])
assert loaded() == ["cross-entropy"], loaded()

import nanhunt
assert nanhunt.check(sys.argv[1]).ok
assert rules.find("NH501").operation == "values"
assert loaded() == ["cross-entropy", "values"], loaded()
registry.find("bce")
assert loaded() == ["cross-entropy", "values", "bce"], loaded()
"""


def test_an_operation_is_loaded_when_it_is_asked_for_and_no_other(tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", np.eye(3, dtype=np.float32))
    done = subprocess.run(
        [sys.executable, "-c", LAZY, tmp_path / "logits.npy"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_line_names_an_operation_of_that_name_whose_rules_say_so(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation.name == name
    assert {rule.operation for rule in operation.rules} == {name}


def test_an_operation_that_is_put_in_is_like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    known = OPERATIONS["bce"]
    rule = replace(known.rules[0], code="NH999", name="odd", operation="odd")
    monkeypatch.setitem(OPERATIONS, "odd", replace(known, name="odd", rules=(rule,)))
    assert find("odd") is OPERATIONS["odd"]
    assert find_rule("odd") is RULES["NH999"] is rule
    assert list(RULES)[-1] == "NH999"
    monkeypatch.undo()
    assert "odd" not in OPERATIONS
    assert "NH999" not in RULES


def test_an_unknown_one_is_told_the_nearest() -> None:
    with pytest.raises(NanhuntError) as raised:
        find("atention")
    assert "Did you mean attention?" in raised.value.hint
