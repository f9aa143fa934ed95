"""The catalogue: complete, in order, found by code or name, and what the issue's table promises."""

from __future__ import annotations

import pytest

from nanhunt.errors import NanhuntError
from nanhunt.operations.rules import RULES, chosen, find, of_operation
from nanhunt.results.finding import Severity

TABLE = {
    "NH001": ("nan-logits", "error"), "NH002": ("inf-logits", "error"), "NH003": ("fully-masked-row", "error"),
    "NH004": ("cast-overflow", "error"), "NH005": ("target-out-of-range", "error"),
    "NH006": ("masked-target", "error"), "NH007": ("all-targets-ignored", "error"),
    "NH008": ("ignored-row-poisons-gradient", "error"), "NH009": ("bad-loss-options", "error"),
    "NH010": ("half-reduction-overflow", "error"), "NH011": ("loss-overflow", "error"),
    "NH012": ("constant-row", "error"),
    "NH101": ("exp-overflow", "warning"),
    "NH102": ("sum-overflow", "warning"), "NH103": ("sum-underflow", "warning"), "NH104": ("subnormal-sum", "note"),
    "NH201": ("probability-underflow", "warning"), "NH202": ("collapsed-loss", "note"),
    "NH203": ("absorbed-log-sum", "note"), "NH301": ("reciprocal-overflow", "warning"),
    "NH302": ("vanishing-gradient", "note"), "NH401": ("low-headroom", "note"),
    "NH402": ("uniform-row", "note"), "NH501": ("non-finite-values", "error"),
    "NH502": ("cast-loss", "warning"), "NH503": ("bookkeeping-nan", "note"),
    "NH504": ("value-overflow", "error"),
    "NH505": ("negative-second-moment", "error"),
    "NH506": ("flushed-second-moment", "warning"),
    "NH507": ("eps-is-zero", "warning"),
    "NH508": ("step-zero-beside-moments", "note"),
    "NH509": ("negative-variance", "error"),
    "NH510": ("quantisation-scale-not-positive", "note"),
    "NH511": ("adapter-is-zero", "note"),
    "NH512": ("zero-variance", "note"),
    "NH513": ("norm-weight-not-positive", "note"),
}  # fmt: skip


VALUES = [code for code in TABLE if code.startswith("NH5")]


def test_codes_names_severities_and_order() -> None:
    known = {code: rule for code, rule in RULES.items() if rule.operation in ("cross-entropy", "values")}
    assert {code: (rule.name, str(rule.severity)) for code, rule in known.items()} == TABLE
    assert list(known) == list(TABLE)
    assert list(RULES)[: len(TABLE)] == list(TABLE)


@pytest.mark.parametrize("code", RULES)
def test_every_rule_is_explained(code: str) -> None:
    rule = RULES[code]
    assert rule.code == code
    for text in (rule.what, rule.why, rule.fix):
        assert len(text) > 15
        assert text.endswith((".", ")"))
    assert (rule.holds is None) == (
        rule.operation in ("values", "difference", "call") or rule.name == "batch-goes-bad"
    )
    assert (rule.arithmetic is None) == (rule.holds is None)


def test_only_probability_underflow_softens_without_targets() -> None:
    assert {code for code, rule in RULES.items() if rule.targetless} == {"NH201"}
    assert RULES["NH201"].targetless == Severity.NOTE
    assert RULES["NH201"].severity_for(targets=False) == Severity.NOTE
    assert RULES["NH201"].severity_for(targets=True) == Severity.WARNING
    assert RULES["NH001"].severity_for(targets=False) == Severity.ERROR


def test_what_speaks_of_the_loss_is_not_judged_without_targets() -> None:
    everything = [rule.code for rule in of_operation("cross-entropy", targets=True)]
    without = [rule.code for rule in of_operation("cross-entropy", targets=False)]
    about_loss = ["NH005", "NH006", "NH007", "NH008", "NH011", "NH202", "NH203", "NH301", "NH302"]
    assert [code for code in everything if code not in without] == about_loss
    assert [rule.code for rule in of_operation("values", targets=False)] == VALUES


@pytest.mark.parametrize("text", ["NH101", "nh101", "exp-overflow", "EXP-Overflow", " NH101 "])
def test_found_by_code_or_name(text: str) -> None:
    assert find(text).code == "NH101"


@pytest.mark.parametrize(
    ("text", "meant"), [("exp-overflw", "exp-overflow"), ("NH1O1", "NH101"), ("nan", "nan-logits")]
)
def test_a_typo_is_answered_with_what_was_meant(text: str, meant: str) -> None:
    with pytest.raises(NanhuntError, match="There is no rule") as raised:
        find(text)
    assert meant in raised.value.hint


def test_selection_by_code_name_and_prefix() -> None:
    assert chosen("values", (), ()) == set(VALUES)
    assert chosen("cross-entropy", ("NH1",), ()) == {"NH101", "NH102", "NH103", "NH104"}
    assert chosen("cross-entropy", ("NH1", "collapsed-loss"), ("NH104",)) == {
        "NH101",
        "NH102",
        "NH103",
        "NH202",
    }
    assert chosen("cross-entropy", (), ("NH",)) == frozenset()
    assert chosen("cross-entropy", ("nh2",), ()) == {"NH201", "NH202", "NH203"}
    assert chosen("values", ("NH1",), ()) == frozenset()
    assert chosen("an operation of a later version", (), ()) == frozenset()


@pytest.mark.parametrize("text", ["NH99", "NHX", "N", "", "exp"])
def test_a_selection_that_matches_nothing_is_an_error(text: str) -> None:
    with pytest.raises(NanhuntError):
        chosen("cross-entropy", (text,), ())
