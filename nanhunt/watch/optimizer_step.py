"""Explains parameters that are not finite after an optimizer's step, though the gradients were before."""

from __future__ import annotations

import torch

from .incident import Culprit, FoundBy, Incident, Phase
from .investigation import Evidence, Solved
from .names import Names
from .numbers import checkable, numbers
from .site import resolve
from .story import Exhibits
from .subject import Subject
from .tripwire import Update


def explain(evidence: Evidence, update: Update, names: Names) -> Solved:
    """The step of ``update.optimizer`` as the culprit; the first broken parameter is what is shown."""
    optimizer = update.optimizer
    culprit = _culprit(evidence, update, names)
    incident = Incident(
        step=evidence.step,
        what=f"{culprit.tensor_names[0]} is not finite after {culprit.operation}()",
        noticed=evidence.noticed,
        culprits=(culprit,),
        chain=(),
        terms=(),
        bad_gradients=(),
        parameters=sum(len(group["params"]) for group in optimizer.param_groups),
        found_by=FoundBy.WATCHING,
    )
    broken = Subject("values", {culprit.tensor_names[0]: evidence.gradients[0].detach()})
    return Solved(incident, Exhibits(subjects=(broken,)))


def _culprit(evidence: Evidence, update: Update, names: Names) -> Culprit:
    optimizer, leaves = update.optimizer, evidence.gradients
    rates = sorted({float(group["lr"]) for group in optimizer.param_groups if "lr" in group})
    gradients = [numbers(leaf.grad) for leaf in leaves if leaf.grad is not None and checkable(leaf.grad)]
    return Culprit(
        operation=f"{type(optimizer).__name__}.step",
        phase=Phase.OPTIMIZER,
        site=resolve(*update.site),
        module="",
        detail="",
        out=numbers(leaves[0]),
        inputs=tuple(gradients[:1]),
        reason=f"the gradients were finite before it; learning rate {', '.join(f'{rate:g}' for rate in rates)}",
        rule=None,
        name="optimizer-step",
        fix=_fix(optimizer),
        tensor_names=tuple(names.of(leaf) for leaf in leaves),
    )


def _fix(optimizer: torch.optim.Optimizer) -> str:
    if any(group.get("eps") == 0 for group in optimizer.param_groups):
        return "Give the optimizer an eps above 0: a second moment of 0 divides 0 by 0."
    return "Lower the learning rate, or clip the gradients before the step."
