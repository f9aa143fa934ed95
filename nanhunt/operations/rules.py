"""The catalogue: the rules of all operations, by code, in the order of causes.

``nanhunt rule``, the reports and the README table all read it from here. Standard library only. A rule that is put
into ``RULES`` is judged, reported and explained like the others.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from nanhunt.errors import NanhuntError
from nanhunt.operations.cross_entropy import rules as cross_entropy
from nanhunt.operations.difference import rules as difference
from nanhunt.operations.registry import OPERATIONS
from nanhunt.operations.rule import Rule
from nanhunt.operations.values import rules as values

RULES: dict[str, Rule[Any, Any, Any]] = {
    rule.code: rule
    for rules in (
        cross_entropy.RULES,
        values.RULES,
        *(each.rules for each in OPERATIONS.values()),
        difference.RULES,
    )
    for rule in rules
}


def of_operation(operation: str, targets: bool) -> list[Rule[Any, Any, Any]]:
    """The rules of one operation in order of causes; without targets those that need none."""
    return [
        rule for rule in RULES.values() if rule.operation == operation and (targets or not rule.needs_targets)
    ]


def find(text: str) -> Rule[Any, Any, Any]:
    """The rule with that code or name, in any case. NanhuntError, with the nearest ones, for anything else."""
    wanted = text.strip()
    for rule in RULES.values():
        if wanted.upper() == rule.code or wanted.lower() == rule.name:
            return rule
    known = [word for rule in RULES.values() for word in (rule.code, rule.name)]
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    near = near or [word for word in known if wanted and wanted.lower() in word][:3]
    meant = f"Did you mean {', '.join(near)}? " if near else ""
    raise NanhuntError(f"There is no rule {text!r}.", f"{meant}`nanhunt rule --all` lists them.")


def chosen(select: Iterable[str], ignore: Iterable[str]) -> frozenset[str]:
    """The codes left by --select and --ignore, each a code, a name or a prefix of codes like NH1."""
    picked = frozenset().union(*(_codes(item) for item in select)) or frozenset(RULES)
    return picked - frozenset().union(*(_codes(item) for item in ignore))


def _codes(text: str) -> frozenset[str]:
    prefix = text.strip().upper()
    matching = (
        frozenset(code for code in RULES if code.startswith(prefix)) if prefix.startswith("NH") else None
    )
    return matching or frozenset({find(text).code})
