"""The facts on rows of classes, counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nanhunt.operations.cross_entropy.facts import BEHAVIOUR_FIELDS, RowFacts
from nanhunt.operations.cross_entropy.forms import IMPLEMENTATIONS
from nanhunt.operations.rule import Rule
from nanhunt.operations.tally import Tally, tally_rules

COUNTED = (*BEHAVIOUR_FIELDS, "bad_value", "wrong")
"""What is counted of each implementation: its behaviour, then what every operation counts."""
NOT_KNOWN: Mapping[str, int] = {}


def tally_facts(
    facts: RowFacts,
    numbers: npt.NDArray[np.intp],
    rows: int,
    judged: list[Rule[Any, Any, Any]],
    wrong: Mapping[str, int] = NOT_KNOWN,
) -> Tally:
    """Counts of rules, causes and behaviour for rows with those flat ``numbers``, of ``rows`` in all.

    ``wrong``: rows with a wrong loss by implementation, where they were run.
    """
    holds = []
    for rule in judged:
        assert rule.holds is not None
        holds.append((rule.code, rule.holds(facts)))
    behaviour = {}
    for name, item in facts.by.items():
        bad_value = item.nan_probability | item.nan_loss | (item.inf_loss & ~facts.masked_target)
        counted = [*(getattr(item, each) for each in BEHAVIOUR_FIELDS), bad_value]
        behaviour[name] = np.array([*map(np.count_nonzero, counted), wrong.get(name, 0)])
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
    return {name: np.zeros(len(COUNTED), np.int64) for name in IMPLEMENTATIONS}
