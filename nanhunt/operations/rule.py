r"""A rule is one object: what holds, why, in which numbers, what mends it and how one sees that it is mended.

Nothing here knows an operation; ``nanhunt.operations.rules`` composes the catalogue of all of them. An example::

    ODD = Rule(
        "NH900", "odd-logit", Severity.NOTE, "The largest logit is odd.", "Arithmetic.", "Add 1.",
        operation="cross-entropy",
        holds=lambda facts: facts.largest % 2 == 1,
        arithmetic=lambda row: f"{row.largest:g} is odd",
        fixes=(Fix("add 1", "logits = logits + 1\nloss = F.cross_entropy({logits}, {targets}{options})"),),
    )

Standard library only: ``nanhunt rule`` and healthy files load neither numpy nor torch for the catalogue, so what
computes imports them inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from nanhunt.operations.fix import Fix
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    Bools = npt.NDArray[np.bool_]

Facts = TypeVar("Facts")
"""What is known of every unit (row, value, head) of a block: arrays, one entry a unit."""
Unit = TypeVar("Unit")
"""All numbers of one unit that the rule holds for."""
Tried = TypeVar("Tried")
"""What a fix made of the units: results, gradients and the truth."""


@dataclass(frozen=True)
class Rule(Generic[Facts, Unit, Tried]):
    """One fault of one operation, explained, recognised and mended in one place."""

    code: str
    name: str
    severity: Severity
    what: str
    why: str
    fix: str
    operation: str
    """Whose rule it is, as in ``nanhunt.operations``."""
    holds: Callable[[Facts], Bools] | None = None
    """bool (units,): which units it holds for. None: the operation finds it in the whole tensor."""
    arithmetic: Callable[[Unit], str] | None = None
    """The fault in the numbers of one unit: "max 1000 > 88.72, the largest x whose exp is finite in float32"."""
    fixes: tuple[Fix[Any], ...] = ()
    """Ways out, and tempting ones that are shown where they fail; each is run before it is printed."""
    mended: Callable[[Tried], torch.Tensor] | None = None
    """bool (units,): what must hold after a fix beside finite, right results and gradients. None: nothing more."""
    needs_targets: bool = False
    """Whether it speaks of the loss: nothing to judge without targets."""
    targetless: Severity | None = None
    """Severity when no targets are given, if that differs."""
    minor: Severity | None = None
    """Severity of a finding that is known to be slight, if that differs."""
    input_at_fault: bool = False
    """Whether the unit's input is what is wrong. The fixes of other rules are not tried on such units: no way of
    writing the operation mends them, so they would disprove all."""
    sound: Callable[[Any], torch.Tensor] | None = None
    """bool (units,): the units of a batch that the fixes are tried on, where that is neither all nor those with
    sound input."""

    def severity_for(self, targets: bool) -> Severity:
        """The severity of a finding, which may depend on whether there are targets."""
        return self.targetless if self.targetless and not targets else self.severity
