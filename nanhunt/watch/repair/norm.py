"""Repairs of lengths: a norm by hand, a vector divided by its norm, a standard deviation."""

from __future__ import annotations

from collections.abc import Iterator

from ..names import operation
from ..step_graph import argument, slot_argument
from .rewrite import Proposal
from .spot import Spot


def norm_by_hand(spot: Spot) -> Iterator[Proposal]:
    """sqrt((x * x).sum(dim)) is torch.linalg.vector_norm(x, dim=dim), whose gradient at 0 is 0."""
    total = spot.maker() if spot.name == "sqrt" or _is_root(spot) else None
    if total is None or operation(total.func) != "sum":
        return
    square = spot.at(total).maker()
    if square is None or not _is_square(spot.at(square)):
        return
    dim, keep = argument(total, 1, "dim"), argument(total, 2, "keepdim")
    options = (f", dim={dim}" if dim is not None else "") + (", keepdim=True" if keep else "")
    rewrite = spot.whole(f"{{torch}}.linalg.vector_norm({{x}}{options})", x=spot.at(square).operand(0))
    if rewrite is not None:
        yield Proposal("call torch.linalg.vector_norm, whose gradient at 0 is 0", (rewrite,))


def _is_root(spot: Spot) -> bool:
    return spot.name == "pow" and argument(spot.entry, 1, "exponent") == 0.5


def _is_square(spot: Spot) -> bool:
    if spot.name in ("pow", "square"):
        return spot.name == "square" or argument(spot.entry, 1, "exponent") in (2, 2.0)
    first, second = slot_argument(spot.entry, 0), slot_argument(spot.entry, 1)
    return spot.name == "mul" and first is second and first is not None


def normalised(spot: Spot) -> Iterator[Proposal]:
    """x / x.norm(dim, keepdim=True) is F.normalize(x, dim=dim), which gives 0 for a row of 0."""
    maker = spot.maker(1) if spot.name == "div" else None
    if maker is None or operation(maker.func) not in (
        "norm",
        "vector_norm",
        "linalg_vector_norm",
        "linalg_norm",
    ):
        return
    above = spot.at(maker)
    dim = argument(maker, 2, "dim")
    dim = dim[0] if isinstance(dim, list | tuple) and len(dim) == 1 else dim
    value = spot.given
    dim = 0 if dim is None and value is not None and value.dim() == 1 else dim
    same = slot_argument(spot.entry, 0) is slot_argument(maker, 0, "input") or _same(above, spot)
    if isinstance(dim, int) and same:
        rewrite = spot.whole(f"{{F}}.normalize({{x}}, dim={dim})", x=spot.operand(0))
        if rewrite is not None:
            yield Proposal("call F.normalize, which leaves a zero vector 0", (rewrite,))


def direction(spot: Spot) -> Iterator[Proposal]:
    """x / x.abs() is torch.sgn(x), of complex numbers too: 0 where x is, and so is its gradient there."""
    maker = spot.maker(1) if spot.name == "div" else None
    if maker is None or operation(maker.func) not in ("abs", "absolute") or not _same(spot.at(maker), spot):
        return
    rewrite = spot.whole("{torch}.sgn({x})", x=spot.operand(0))
    if rewrite is not None:
        yield Proposal("call torch.sgn, which leaves 0 where x is 0", (rewrite,))


def _same(norm: Spot, division: Spot) -> bool:
    one, other = norm.given, division.given
    return one is not None and other is not None and one is other


def spread_of_one(spot: Spot) -> Iterator[Proposal]:
    """std divides by the count less one: by the count itself where that is 1."""
    value = spot.given
    if spot.name not in ("std", "var") or value is None:
        return
    known = {
        key: argument(spot.entry, place, key) for place, key in ((1, "dim"), (2, "unbiased"), (3, "keepdim"))
    }
    correction = argument(spot.entry, 9, "correction")
    if known["unbiased"] is not None or isinstance(known["dim"], bool) or correction is not None:
        return
    dim = known["dim"]
    dim = dim[0] if isinstance(dim, list | tuple) and len(dim) == 1 else dim
    if dim is not None and not isinstance(dim, int):
        return
    options = (f"dim={dim}, " if dim is not None else "") + ("keepdim=True, " if known["keepdim"] else "")
    count = f"{{x}}.shape[{dim}]" if dim is not None else "{x}.numel()"
    rewrite = spot.whole(f"{{x}}.{spot.name}({options}correction=min(1, {count} - 1))", x=spot.operand(0))
    if rewrite is not None:
        yield Proposal("let the spread of one value be 0; that of more stays as it is", (rewrite,))
