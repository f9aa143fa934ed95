"""Which summand of the loss went bad, by the script's own names."""

from __future__ import annotations

from types import FrameType
from typing import Any

import torch

from .incident import Term
from .names import scopes
from .numbers import tensors_in


def terms_of(loss: torch.Tensor, frame: FrameType | None) -> tuple[Term, ...]:
    """The summands of a scalar loss, with their values, where the script has variables for them."""
    summands = _summands(loss.grad_fn)
    if len(summands) < 2:
        return ()
    variables = _scalars(frame)
    terms = [
        (name, value) for name, value in variables.items() if value is not loss and value.grad_fn in summands
    ]
    return tuple(Term(name, value.item()) for name, value in terms) if len(terms) > 1 else ()


def _summands(node: Any, depth: int = 8) -> set[Any]:
    """Nodes whose scalar results are added up (perhaps scaled) to the loss."""
    if node is None or depth == 0:
        return set()
    found = {node}
    if node.name().startswith(("AddBackward", "SubBackward", "MulBackward", "DivBackward")):
        for below, _ in node.next_functions:
            found |= _summands(below, depth - 1)
    return found


def _scalars(frame: FrameType | None) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for variables in scopes(frame):
        for name, value in variables.items():
            for n, tensor in enumerate(
                tensors_in(value) if isinstance(value, dict | list | tuple) else [value]
            ):
                if isinstance(tensor, torch.Tensor) and tensor.numel() == 1 and tensor.grad_fn is not None:
                    found.setdefault(name if tensor is value else f"{name}[{n}]", tensor)
    return found
