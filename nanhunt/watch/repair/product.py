"""Repairs of products in half precision: a factor scaled down before, not the product afterwards."""

from __future__ import annotations

from collections.abc import Iterator

from ..names import operation
from .rewrite import Proposal
from .spot import Spot

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


def spot_only(product: Spot, scaling: Spot) -> bool:
    """Whether the scaling is all that reads the product."""
    return scaling.only_feeds(product.entry)
