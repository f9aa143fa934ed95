"""nanhunt op and nanhunt rule: every operation, role, option, form and rule there is, without torch."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from nanhunt.cli.app import app
from nanhunt.errors import NanhuntError
from nanhunt.operations.registry import OPERATIONS
from nanhunt.operations.rules import RULES


def shown(*arguments: str) -> str:
    """What the command prints, on wide paper."""
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    if done.exception is not None:
        raise done.exception
    return done.output


def test_op_lists_all_and_explains_each() -> None:
    listed = shown("op").splitlines()
    assert [line.split()[0] for line in listed if line[0] != " "] == list(OPERATIONS)
    every = shown("op", "--all")
    for operation in OPERATIONS.values():
        alone = shown("op", operation.name)
        assert alone in every
        assert all(role.what in " ".join(alone.split()) for role in operation.roles)
        for name, form in operation.forms.items():
            assert f"  {name}  " in alone
            assert (form.__doc__ or "").split("\n")[0] in " ".join(alone.split())
        assert all(f"{rule.code}  {rule.name} ({rule.severity})" in alone for rule in operation.rules)
    assert "--causal" in shown("op", "attention")
    assert "--label-smoothing  As in F.cross_entropy. At least 0 and at most 1. Default: 0.0." in shown(
        "op", "cross-entropy"
    )


def test_an_unknown_operation_is_told_the_nearest() -> None:
    with pytest.raises(NanhuntError) as raised:
        shown("op", "atention")
    assert "Did you mean attention?" in raised.value.hint


def test_every_rule_belongs_to_one_operation_and_is_explained() -> None:
    codes = [rule.code for operation in OPERATIONS.values() for rule in operation.rules]
    assert len(codes) == len(set(codes))
    assert list(RULES) == codes
    assert [line.split()[0] for line in shown("rule").splitlines()] == codes
    rule = OPERATIONS["bce"].rules[0]
    assert shown("rule", rule.name) == shown("rule", rule.code.lower())
    assert rule.what in " ".join(shown("rule", rule.code).split())
