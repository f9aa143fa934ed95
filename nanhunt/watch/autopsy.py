"""The autopsy: after a bad loss the autograd graph still stands, and its nodes hold tensors of the failing step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

import torch

from .numbers import checkable, finite
from .tape import Entry, Tape

Node = Any
"""A ``grad_fn``: torch gives these no common type in Python."""


@dataclass
class Finding:
    """A node whose result is bad while nothing bad was seen to go in."""

    node: Node
    entry: Entry | None
    certain: bool
    """Whether all its inputs were seen, and were finite."""
    out: torch.Tensor
    inputs: list[torch.Tensor] = field(default_factory=list)


def autopsy(loss: torch.Tensor, tape: Tape) -> list[Finding]:
    """The nodes to blame for a bad loss, in forward order. Empty where the graph says nothing."""
    if loss.grad_fn is None:
        return []
    nodes = list(_nodes(loss.grad_fn))
    seen: dict[Node, torch.Tensor] = {loss.grad_fn: loss.detach()}
    given: dict[Node, list[torch.Tensor]] = {}
    for node in nodes:
        given[node] = _saved(node, seen)
    bad = {node for node, tensor in seen.items() if not finite(tensor)}
    downstream: set[Node] = set()
    found = []
    for node in reversed(nodes):
        fed_badly = any(below in downstream for below, _ in node.next_functions)
        if node in bad and not fed_badly:
            found.append(_finding(node, seen, given[node], tape))
        if node in bad or fed_badly:
            downstream.add(node)
    return found


def _nodes(root: Node) -> Iterator[Node]:
    """Every node once, the last of the forward pass first."""
    seen, waiting = {root}, [(-root._sequence_nr(), 0, root)]
    while waiting:
        node = heappop(waiting)[2]
        yield node
        for below, _ in node.next_functions:
            if below is not None and below not in seen:
                seen.add(below)
                heappush(waiting, (-below._sequence_nr(), len(seen), below))


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


def _finding(node: Node, seen: dict[Node, torch.Tensor], given: list[torch.Tensor], tape: Tape) -> Finding:
    feeding = [below for below, _ in node.next_functions if below is not None]
    certain = all(below in seen or _finite_leaf(below) for below in feeding) and all(map(finite, given))
    return Finding(
        node=node,
        entry=tape.entry_of(node),
        certain=certain and bool(feeding or given),
        out=seen[node],
        inputs=given,
    )


def _finite_leaf(node: Node) -> bool:
    variable = getattr(node, "variable", None)
    return variable is not None and (not checkable(variable) or finite(variable))
