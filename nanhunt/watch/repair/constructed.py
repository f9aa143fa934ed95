"""Repairs of a module where it is constructed: nn.Softmax in a Sequential, whose logarithm is taken elsewhere."""

from __future__ import annotations

import ast
from dataclasses import dataclass

import torch

from ..tape import Entry, Slot
from .rewrite import Rewrite, Value
from .source import Call, Source
from .spot import Spot


@dataclass(frozen=True)
class Constructed(Rewrite):
    """The expression that constructs a module, as another module; on the tape, the call of it."""

    given: Slot | None = None
    """What the module is called on."""

    def new(self, value: Value) -> torch.Tensor:
        """What the other module makes."""
        module, given = super().new(value), self.given
        assert given is not None
        result: torch.Tensor = module(value(given))
        return result


def log_softmax_module(soft: Entry, log: Spot) -> Constructed | None:
    """nn.LogSoftmax in the place of the nn.Softmax that made ``soft``.

    None where the file with the logarithm does not construct exactly one, or another one ran in this step: the edit
    would reach further than what was proven.
    """
    module = soft.module[0] if soft.module is not None else None
    source = log.call.source if log.call is not None else None
    if type(module) is not torch.nn.Softmax or source is None or not isinstance(soft.args[0], Slot):
        return None
    made = [
        node for node in ast.walk(source.tree) if isinstance(node, ast.Call) and _is_softmax(node, source)
    ]
    ran = {id(entry.module[0]) for entry in log.tape.entries if _of_softmax(entry) and entry.module}
    if len(made) != 1 or len(ran) != 1:
        return None
    [node] = made
    arguments = [*node.args, *(one.value for one in node.keywords)]
    if any(isinstance(part, ast.Name) for one in arguments for part in ast.walk(one)):
        return None  # what the name stands for is known there only
    given = ", ".join(map(ast.unparse, (*node.args, *node.keywords)))
    return Constructed(Call(soft, source, node), f"{{nn}}.LogSoftmax({given})", given=soft.args[0])


def _of_softmax(entry: Entry) -> bool:
    return entry.module is not None and type(entry.module[0]) is torch.nn.Softmax


def _is_softmax(node: ast.Call, source: Source) -> bool:
    """Whether it is written torch.nn.Softmax(...), nn.Softmax(...), or Softmax(...) imported from there."""
    name = ast.unparse(node.func)
    first, _, rest = name.partition(".")
    known = source.modules.get(first, first)
    return (f"{known}.{rest}" if rest else known) in ("torch.nn.Softmax", "torch.nn.modules.Softmax")
