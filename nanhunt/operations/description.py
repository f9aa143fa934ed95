"""What an operation is, for people: ``nanhunt op`` shows it. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nanhunt.load.options import ReadOptions
from nanhunt.operations.options import JudgeOptions
from nanhunt.operations.rule import Rule
from nanhunt.options import Option, declared


@dataclass(frozen=True)
class Description:
    """One operation explained."""

    name: str
    """As --op and ``nanhunt op`` take it."""
    what: str
    """One sentence."""
    tensors: Mapping[str, str]
    """Shape and meaning by name."""
    kind: type | None
    """The dataclass of its options."""
    forms: Mapping[str, str]
    """Ways of writing it, as code, by name."""
    rules: Sequence[Rule[Any, Any, Any]]
    """In order of causes."""

    @property
    def options(self) -> list[Option]:
        """Its own ones: not where tensors are, and not what is looked for."""
        shared = {**declared(ReadOptions), **declared(JudgeOptions)}
        own = {} if self.kind is None else declared(self.kind)
        return [each for name, each in own.items() if name not in shared]
