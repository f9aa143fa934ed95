"""Repairs of products in half precision: a factor scaled down before, not the product afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..names import operation
from ..step_graph import argument
from ..tape import Entry
from .rewrite import Proposal
from .spot import Spot

_SCALING = frozenset({"div", "mul", "add", "masked_fill", "where"})
_HALF = (torch.float16, torch.bfloat16)
_PRODUCTS = frozenset({"matmul", "mm", "bmm", "einsum", "baddbmm"})


def scaled_first(spot: Spot) -> Iterator[Proposal]:
    """(q @ k) / d is (q / d) @ k."""
    if spot.name not in _PRODUCTS - {"einsum"}:
        return
    for reader in spot.readers():
        after, name = spot.at(reader), operation(reader.func)
        if name not in ("div", "mul") or not spot_only(spot, after):
            continue
        sign = "/" if name == "div" else "*"
        scale = after.operand(1)
        if scale is None or not isinstance(scale.value, int | float):
            continue
        early = spot.argument(f"{{x}} {sign} {{scale}}", 0, "", scale=scale)
        late = after.whole("{product}", product=after.operand(0))
        if early is not None and late is not None:
            yield Proposal("scale a factor before the product, not the product", (early, late))


def wide_until_softmax(spot: Spot) -> Iterator[Proposal]:
    """The product of half-precision scores in float32, and their softmax cast back."""
    value = spot.value(spot.operand(0))
    if spot.name not in _PRODUCTS or value is None or value.dtype not in _HALF:
        return
    wide = [spot.argument("{x}.float()", place) for place in (0, 1)]
    for soft in _below(spot):
        after = spot.at(soft)
        dim = argument(soft, 1, "dim")
        half = str(value.dtype).removeprefix("torch.")
        template = f"{{torch}}.softmax({{scores}}, dim={dim}).to({{torch}}.{half})"
        back = after.whole(template, scores=after.operand(0, "input"))
        rewrites = [one for one in (*wide, back) if one is not None]
        if isinstance(dim, int) and len(rewrites) == 3:
            yield Proposal("compute the scores in float32, up to their softmax", tuple(rewrites))


def wide_inside_autocast(spot: Spot) -> Iterator[Proposal]:
    """The product in float32, with autocast switched off for it: it would cast the factors back."""
    device = next((kind for kind, dtype in spot.entry.autocast if dtype in _HALF), None)
    if device is None or spot.name not in _PRODUCTS - {"baddbmm"}:
        return
    first = int(spot.name == "einsum")  # an equation stands before the factors
    if len(spot.entry.args) != first + 2:
        return
    plain = f'{{torch}}.autocast("{device}", enabled=False)({{torch}}.{spot.name})'
    holes = {"equation": spot.operand(0)} if first else {}
    holes |= {"a": spot.operand(first), "b": spot.operand(first + 1)}
    given = ("{equation}, " if first else "") + "{a}.float(), {b}.float()"
    rewrite = spot.whole(f"{plain}({given})", **holes)
    if rewrite is not None:
        yield Proposal(f"compute {spot.name} in float32, with autocast switched off for it", (rewrite,))


def _below(spot: Spot) -> Iterator[Entry]:
    """The softmax that the scores go into, through scaling and masks."""
    waiting = [spot.entry]
    for _ in range(6):
        waiting = [reader for entry in waiting for reader in spot.graph.read_by(entry)]
        yield from (one for one in waiting if operation(one.func) == "softmax")
        waiting = [one for one in waiting if operation(one.func).rstrip("_") in _SCALING]


def spot_only(product: Spot, scaling: Spot) -> bool:
    """Whether the scaling is all that reads the product."""
    return scaling.only_feeds(product.entry)
