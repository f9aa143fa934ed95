"""The autopsy: after a bad loss the autograd graph still stands, and its nodes hold tensors of the failing step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from .numbers import Numbers, checkable, finite, numbers
from .tape import METADATA_KEY, Entry

Node = Any
"""A ``grad_fn``: torch gives these no common type in Python."""


@dataclass
class Finding:
    """A node whose result is bad while nothing bad was seen to go in."""

    node: Node
    entry: Entry | None
    certain: bool
    """Whether all its inputs were seen, and were finite."""
    out: Numbers | None
    inputs: list[Numbers] = field(default_factory=list)


def autopsy(loss: torch.Tensor) -> list[Finding]:
    """The nodes to blame for a bad loss, in forward order. Empty where the graph says nothing."""
    if loss.grad_fn is None:
        return []
    nodes = list(_nodes(loss.grad_fn))
    seen: dict[Node, torch.Tensor] = {loss.grad_fn: loss.detach()}
    given: dict[Node, list[torch.Tensor]] = {}
    for node in nodes:
        given[node] = _saved(node, seen)
    bad = {node for node, tensor in seen.items() if not finite(tensor)}
    found = [_finding(node, seen, given[node], bad) for node in nodes if node in bad and _earliest(node, bad)]
    return found[::-1]


def _nodes(root: Node) -> Iterator[Node]:
    """Every node once, the last of the forward pass first."""
    seen, waiting = {root}, [root]
    while waiting:
        waiting.sort(key=lambda node: node._sequence_nr() % 2**64)
        node = waiting.pop()
        yield node
        fresh = [below for below, _ in node.next_functions if below is not None and below not in seen]
        seen.update(fresh)
        waiting.extend(fresh)


def _saved(node: Node, seen: dict[Node, torch.Tensor]) -> list[torch.Tensor]:
    """Tensors a node saved of what went in; what is some node's result is noted in ``seen``."""
    inputs = []
    for name, tensor in _saved_tensors(node):
        if not checkable(tensor):
            continue
        if name.startswith(("_saved_result", "_saved_output")):
            seen.setdefault(node, tensor.detach())
        else:
            inputs.append(tensor.detach())
            if tensor.grad_fn is not None:
                seen.setdefault(tensor.grad_fn, tensor.detach())
    return inputs


def _saved_tensors(node: Node) -> Iterator[tuple[str, torch.Tensor]]:
    for name in dir(node):
        if name.startswith("_saved_") or name == "saved_tensors":
            try:
                value = getattr(node, name)
            except RuntimeError:  # freed by an earlier backward, or written to since
                continue
            for tensor in value if isinstance(value, tuple | list) else (value,):
                if isinstance(tensor, torch.Tensor):
                    yield name, tensor


def _earliest(node: Node, bad: set[Node]) -> bool:
    """Whether no node above it (nearer to the inputs) is known to be bad."""
    return not any(below in bad for below in list(_nodes(node))[1:])


def _finding(
    node: Node, seen: dict[Node, torch.Tensor], given: list[torch.Tensor], bad: set[Node]
) -> Finding:
    feeding = [below for below, _ in node.next_functions if below is not None]
    certain = all(below in seen or _finite_leaf(below) for below in feeding) and all(map(finite, given))
    out = seen.get(node)
    return Finding(
        node=node,
        entry=_entry(node),
        certain=certain and bool(feeding or given),
        out=numbers(out) if out is not None else None,
        inputs=[numbers(tensor) for tensor in given],
    )


def _finite_leaf(node: Node) -> bool:
    variable = getattr(node, "variable", None)
    return variable is not None and (not checkable(variable) or finite(variable))


def _entry(node: Node) -> Entry | None:
    entry = node.metadata.get(METADATA_KEY)
    return entry if isinstance(entry, Entry) else None
