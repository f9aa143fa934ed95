"""The input replaced before the operation, where the result is thrown away or multiplied by 0 anyway."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..names import operation
from ..tape import Entry
from .rewrite import Proposal
from .source import Operand
from .spot import Spot

_ELEMENTWISE = frozenset(
    {
        "log",
        "log2",
        "log10",
        "log1p",
        "sqrt",
        "rsqrt",
        "reciprocal",
        "div",
        "pow",
        "exp",
        "acos",
        "asin",
        "atanh",
    }
)


def input_replaced(spot: Spot) -> Iterator[Proposal]:
    """What `torch.where` or a product with 0 drops afterwards gets a harmless input: 1, or 0 under exp."""
    if spot.name not in _ELEMENTWISE:
        return
    place = 1 if spot.name == "div" else 0
    operand = spot.operand(place)
    value = spot.value(operand)
    harmless = "0.5" if spot.name in ("acos", "asin", "atanh") else "0.0" if spot.name == "exp" else "1.0"
    for title, condition, holes in _dropped(spot, value):
        rewrite = spot.argument(f"{{torch}}.where({condition}, {{x}}, {harmless})", place, "", **holes)
        if rewrite is not None:
            yield Proposal(title, (rewrite,))


def _dropped(spot: Spot, value: torch.Tensor | None) -> Iterator[tuple[str, str, dict[str, Operand | None]]]:
    title = "replace the input before the operation, where `where` drops the result"
    for reader in _reading(spot):
        at, name = spot.at(reader), operation(reader.func).rstrip("_")
        if name == "where" and len(reader.args) == 3:
            taken = _is(spot, reader.args[1])
            yield title, "{mask}" if taken else "~{mask}", {"mask": at.operand(0, "condition")}
        elif name == "masked_fill":
            yield title, "~{mask}", {"mask": at.operand(1, "mask")}
        elif name == "mul" and spot.name in ("log", "log2", "log10"):
            for factor in _zero_factors(at, value):
                yield "leave the logarithm out where its factor is 0", "{factor} != 0", {"factor": factor}


def _zero_factors(product: Spot, value: torch.Tensor | None) -> Iterator[Operand]:
    """Factors of a product that are 0 wherever the logarithm is taken of 0."""
    for place in (0, 1):
        operand = product.operand(place)
        factor = product.value(operand)
        if operand is None or factor is None or value is None or factor.shape != value.shape:
            continue
        if bool((factor[value == 0] == 0).all()):
            yield operand


def _reading(spot: Spot) -> Iterator[Entry]:
    """The calls that read the result, through a change of sign or scale."""
    for reader in spot.readers():
        yield reader
        if operation(reader.func) in ("neg", "mul", "div", "add", "sub"):
            yield from spot.graph.read_by(reader)


def _is(spot: Spot, slot: object) -> bool:
    """Whether a slot holds what is made of the spot's result."""
    made = spot.graph.makers.get(slot)  # type: ignore[call-overload]
    while made is not None:
        if made is spot.entry:
            return True
        made = spot.graph.makers.get(next(iter(made.given), None))  # type: ignore[arg-type]
    return False
