"""The catalogue: the rules of all operations, by code, in the order of causes.

``nanhunt rule``, the reports and the README table all read it from here. Standard library only. The rules are those
of the operations in the registry as they are now: one that is added to its operation is judged, reported and
explained like the others. Operations are loaded one after the other until a rule is found, so those that come first
do without the rest.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nanhunt.errors import NanhuntError
from nanhunt.operations.registry import OPERATIONS
from nanhunt.operations.rule import Rule


class _Catalogue(Mapping[str, Rule[Any, Any, Any]]):
    """All rules by code. Looking one up costs a pass over those before it: ask an operation for all of its own."""

    def __getitem__(self, code: str) -> Rule[Any, Any, Any]:
        for rule in _all():
            if rule.code == code:
                return rule
        raise KeyError(code)

    def __iter__(self) -> Iterator[str]:
        return (rule.code for rule in _all())

    def __len__(self) -> int:
        return sum(1 for _ in _all())


def _all() -> Iterator[Rule[Any, Any, Any]]:
    return (rule for operation in OPERATIONS.values() for rule in operation.rules)


RULES = _Catalogue()


def of_operation(operation: str, targets: bool) -> list[Rule[Any, Any, Any]]:
    """The rules of one operation in order of causes; without targets those that need none."""
    return [rule for rule in _rules(operation) if targets or not rule.needs_targets]


def _rules(operation: str) -> tuple[Rule[Any, Any, Any], ...]:
    # A saved report may name an operation that this version does not have.
    return OPERATIONS[operation].rules if operation in OPERATIONS else ()


def find(text: str) -> Rule[Any, Any, Any]:
    """The rule with that code or name, in any case. NanhuntError, with the nearest ones, for anything else."""
    wanted = text.strip()
    for rule in _all():
        if wanted.upper() == rule.code or wanted.lower() == rule.name:
            return rule
    known = [word for rule in _all() for word in (rule.code, rule.name)]
    near = difflib.get_close_matches(wanted, known, n=10, cutoff=0.5)
    near = sorted(near, key=lambda word: word[:4].lower() != wanted[:4].lower())[:3]  # NH10x: not NH810
    near = near or [word for word in known if wanted and wanted.lower() in word][:3]
    meant = f"Did you mean {', '.join(near)}? " if near else ""
    raise NanhuntError(f"There is no rule {text!r}.", f"{meant}`nanhunt rule --all` lists them.")


def chosen(operation: str, select: Iterable[str], ignore: Iterable[str]) -> frozenset[str]:
    """The codes of that operation left by --select and --ignore, each a code, a name or a prefix of codes like NH1.

    Raises NanhuntError for a text that means no rule of any operation.
    """
    select, ignore = tuple(select), tuple(ignore)
    check((*select, *ignore))
    rules = _rules(operation)
    picked = _meant(select, rules) if select else frozenset(rule.code for rule in rules)
    return picked - _meant(ignore, rules)


def check(texts: Iterable[str]) -> None:
    """Raises NanhuntError for a text of --select or --ignore that means no rule of any operation."""
    for text in texts:
        if not any(_means(text, rule) for rule in _all()):
            find(text)


def _meant(texts: tuple[str, ...], rules: Iterable[Rule[Any, Any, Any]]) -> frozenset[str]:
    return frozenset(rule.code for rule in rules if any(_means(text, rule) for text in texts))


def _means(text: str, rule: Rule[Any, Any, Any]) -> bool:
    prefix = text.strip().upper()
    return text.strip().lower() == rule.name or (prefix.startswith("NH") and rule.code.startswith(prefix))
