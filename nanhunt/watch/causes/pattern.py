"""What a cause is made of: the operations it is about, when it holds, the arithmetic, and the advice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nanhunt.operations.registry import OPERATIONS
from nanhunt.operations.rule import Rule
from nanhunt.watch.numbers import Numbers
from nanhunt.watch.scene import Scene


@dataclass(frozen=True)
class Cause:
    """Why an operation made something that is not finite."""

    rule: str | None
    name: str
    reason: str
    fix: str


@dataclass(frozen=True)
class Pattern:
    """One cause and how it is recognised."""

    name: str
    operations: frozenset[str]
    """Low-level operations or calls it is about; in backward names of autograd nodes. Empty: any."""
    holds: Callable[[Scene], bool]
    reason: Callable[[Scene], str]
    """The arithmetic, with the numbers of this step."""
    fix: Callable[[Scene], str]
    is_rule: bool = False
    """Whether a rule of cross entropy has that name, and is meant."""

    def matches(self, scene: Scene) -> bool:
        """Whether this is why the operation made what it made."""
        node = scene.item.node
        names = {scene.op, scene.called} if node is None else {node.rstrip("0123456789")}
        return (not self.operations or not self.operations.isdisjoint(names)) and self.holds(scene)

    def cause(self, scene: Scene) -> Cause:
        """In words."""
        code = rule_named(self.name).code if self.is_rule else None
        return Cause(code, self.name, self.reason(scene), self.fix(scene))


def rule_named(name: str) -> Rule[Any, Any, Any]:
    """The rule of cross entropy with that name."""
    return next(rule for rule in OPERATIONS["cross-entropy"].rules if rule.name == name)


def named(names: str) -> frozenset[str]:
    """Several names in one string."""
    return frozenset(names.split())


def say(text: str) -> Callable[[Scene], str]:
    """Words without numbers."""
    return lambda scene: text


def always(scene: Scene) -> bool:
    """For a cause that its operation alone tells."""
    return True


def rule_fix(name: str, otherwise: str) -> Callable[[Scene], str]:
    """The catalogue's advice where it is about this loss, else advice for a softmax that is not cross entropy."""
    return lambda scene: rule_named(name).fix if scene.cross_entropy else otherwise


def zeros(number: Numbers, what: str) -> str:
    """How many of them are 0."""
    return f"{number.zero:,} of {number.values:,} {what} {'is' if number.zero == 1 else 'are'} exactly 0"


def grown_to(scene: Scene, size: float) -> str:
    """How large the inputs were; of a call whose inputs the graph did not keep, nobody knows."""
    return f" to {size:.6g}" if scene.seen else ""
