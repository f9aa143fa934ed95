"""nanhunt op and nanhunt rule: every operation, role, option, form and rule there is, without torch."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from nanhunt.cli.app import app
from nanhunt.errors import NanhuntError
from nanhunt.operations.fix import run
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


def test_a_rule_shows_its_fixes_as_code_for_a_small_problem() -> None:
    said = shown("rule", "bad-loss-options")
    assert "As code, for logits (32, 10), targets (32,):" in said
    assert "  mask with a finite value instead of -inf\n      logits = logits.masked_fill(" in said
    assert "  do not cast: keep the logits as stored for the loss (judged in float16)\n" in said
    assert "Looks like a way out, and hides the fault: nan_to_num on the loss." in said
    assert "As code" not in shown("rule", "non-finite-values")


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_shown_as_code_runs_on_tensors_of_the_shapes_told(name: str, dtype: str) -> None:
    operation = OPERATIONS[name]
    example = operation.example(dtype)
    if example is None:
        assert not any(rule.fixes for rule in operation.rules)
        return
    tensors = {role: torch.zeros(shape) for role, shape in example.shapes.items()}
    if name == "cross-entropy":
        tensors["targets"] = tensors["targets"].long()
    fixes = [fix for rule in operation.rules for fix in rule.fixes if fix.when(example.problem)]
    leaves = [role.name for role in operation.roles if role.gradient or role.name == "logits"]
    for fix in fixes:
        ran = run(fix.render(example.slots), tensors, [each for each in leaves if each in tensors])
        assert ran.error == "", fix.title
