"""A fix is one text. It is rendered for the user's tensors, and what is printed is what is compiled and run.

A template names its slots, the operation fills them for the user's layout and options::

    FLOAT32 = Fix(
        "compute the loss in float32",
        "loss = F.cross_entropy({logits}, {targets}{options})",
        slots={"cast": ".float()"},
        when=lambda problem: problem.narrow,
    )
    slots = {"cast": "", "logits": "logits{cast}", "targets": "targets", "options": ', reduction="sum"'}
    code = FLOAT32.render(slots)
    # loss = F.cross_entropy(logits.float(), targets, reduction="sum")
    ran = run(code, {"logits": logits, "targets": targets}, ["logits"])
    ran.result, ran.gradients["logits"], ran.error

Rendered code uses the roles of the operation's tensors as names, ``torch`` and ``F``, nothing else, and ends in
``loss`` (a scalar) or ``output`` (a tensor).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import torch

Problem = TypeVar("Problem")
"""What an operation knows of the user's tensors and options, as far as code depends on it."""
NO_SLOTS: Mapping[str, str] = {}


def always(_: Any) -> bool:
    """For fixes that every problem of their rule has."""
    return True


@dataclass(frozen=True)
class Fix(Generic[Problem]):
    """One way out, or one that looks like it. Whether it works is never stored, always run."""

    title: str
    code: str
    """The template: Python with ``{named}`` slots (a brace of Python's own is doubled)."""
    slots: Mapping[str, str] = field(default_factory=dict)
    """The fix's own texts, before those of the operation: {"cast": ".float()"}."""
    when: Callable[[Problem], bool] = always
    """Whether it makes sense for that problem."""
    reference: Callable[[Any], Any] | None = None
    """The operation's question whose true answer the fix must give, where it is not the user's own one."""
    changes: str = ""
    """How the objective then differs from the user's; "" if it does not. Printed with the fix."""
    redefines: bool = False
    """Whether that other objective is a way out all the same: it need be finite, not near the user's own truth."""
    scale: float = 1.0
    """What the code multiplies the loss by, as GradScaler does; its truth is multiplied alike."""
    stored: bool = False
    """Whether it is for the tensors as stored instead of as cast."""
    tempting: bool = False
    """Hides the fault where it seems to work: never recommended, only shown where it does not help."""

    def render(self, slots: Mapping[str, str]) -> str:
        """The code for one user's tensors. A slot's text may name other slots, one level deep; {cast} is "" by default.

        KeyError for a slot that nobody fills.
        """
        texts = {"cast": "", **slots, **self.slots}
        return self.code.format_map({name: text.format_map(texts) for name, text in texts.items()})


@dataclass(frozen=True)
class Ran:
    """What running a text did."""

    result: torch.Tensor | None = None
    """``loss`` or ``output``, detached; None where the code raised."""
    gradients: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """By role, of the shape of the role's tensor."""
    error: str = ""
    """E.g. "IndexError: Target 7 is out of bounds."."""


def run(
    code: str,
    tensors: Mapping[str, torch.Tensor],
    leaves: Sequence[str],
    upstream: torch.Tensor | float = 1.0,
    names: Mapping[str, Any] = NO_SLOTS,
) -> Ran:
    """Compiles and runs ``code`` as it stands on ``tensors`` by role, forward and backward to ``leaves``.

    ``upstream`` is what the result's gradient is: a number, or a tensor of the result's shape. Code that runs the
    backward pass itself keeps the gradients it made. ``names``: what it may call beside torch and F.
    """
    import torch
    import torch.nn.functional as F

    given = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    with torch.enable_grad(), warnings.catch_warnings():
        for name in leaves:
            given[name].requires_grad_()
        scope: dict[str, Any] = {"torch": torch, "F": F, **names, **given}
        try:
            warnings.simplefilter("ignore")  # torch.std of one value warns, and is shown to be NaN
            exec(compile(code, "<fix>", "exec"), scope)
            made_loss = scope.get("loss") is not names.get("loss")
            result: torch.Tensor = scope["loss" if made_loss else "output"]
            if leaves and all(given[name].grad is None for name in leaves):
                seed = torch.as_tensor(upstream, dtype=torch.float64).to(result.dtype).expand_as(result)
                torch.autograd.backward((result * seed).sum())
        except (RuntimeError, ValueError, TypeError, IndexError, NameError, KeyError) as error:
            return Ran(error=f"{type(error).__name__}: {error}".splitlines()[0])
    found = {name: given[name].grad for name in leaves}
    gradients = {
        name: torch.zeros_like(given[name]) if one is None else one.detach() for name, one in found.items()
    }
    return Ran(result.detach(), gradients)
