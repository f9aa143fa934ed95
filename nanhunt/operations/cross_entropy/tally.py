"""The facts on rows of classes, counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nanhunt.operations.cross_entropy.facts import BEHAVIOUR_FIELDS, RowFacts
from nanhunt.operations.cross_entropy.forms import IMPLEMENTATIONS
from nanhunt.operations.rule import Rule
from nanhunt.operations.tally import Tally, tally_rules


def tally_facts(
    facts: RowFacts, numbers: npt.NDArray[np.intp], rows: int, judged: list[Rule[Any, Any, Any]]
) -> Tally:
    """Counts of rules, causes and behaviour for rows with those flat ``numbers``, of ``rows`` in all."""
    holds = []
    for rule in judged:
        assert rule.holds is not None
        holds.append((rule.code, rule.holds(facts)))
    behaviour = {
        name: np.array([np.count_nonzero(getattr(item, each)) for each in BEHAVIOUR_FIELDS])
        for name, item in facts.by.items()
    }
    return replace(tally_rules(holds, numbers, rows), behaviour=behaviour)


def causes_of(facts: RowFacts, judged: list[Rule[Any, Any, Any]]) -> npt.NDArray[np.str_]:
    """Each row's cause as a rule name, "" if healthy."""
    names = np.full(facts.rows, "", dtype=f"<U{max((len(rule.name) for rule in judged), default=1)}")
    for rule in reversed(judged):
        assert rule.holds is not None
        names[rule.holds(facts)] = rule.name
    return names


def empty_behaviour() -> dict[str, npt.NDArray[np.int64]]:
    """Behaviour counts over no rows."""
    return {name: np.zeros(len(BEHAVIOUR_FIELDS), np.int64) for name in IMPLEMENTATIONS}
