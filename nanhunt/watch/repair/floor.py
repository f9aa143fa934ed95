"""The last resort: the argument kept away from the edge by a clamp. It changes the objective, and says for how many."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..names import operation
from .rewrite import Proposal
from .spot import Spot

_FLOORS = {torch.float16: 1e-4, torch.bfloat16: 1e-6, torch.float32: 1e-8, torch.float64: 1e-12}
"""A small number that the dtype holds as a normal one; its reciprocal is finite."""
_ROOT_FLOORS = {**_FLOORS, torch.float32: 1e-12, torch.float64: 1e-24}
"""The same under a logarithm, or a square root: its derivative 1 / (2 sqrt(x)) is then at most 5e5 (float64: 5e11)."""
_INSIDE = {torch.float16: 1e-3, torch.bfloat16: 1e-2, torch.float32: 1e-6, torch.float64: 1e-12}
"""How far inside of -1 and 1."""
_UNIT = frozenset({"acos", "asin", "arccos", "arcsin", "atanh", "arctanh", "erfinv"})


def count_floor(spot: Spot) -> Iterator[Proposal]:
    """Something divided by how many there are, where there are none."""
    if spot.name == "div" and spot.fault.divisor_is_count:
        rewrite = spot.argument("{x}.clamp(min=1)", 1)
        if rewrite is not None:
            yield Proposal(
                "divide by the count with a floor of 1, so that the mean of nothing is 0", (rewrite,)
            )


def divisor_floor(spot: Spot) -> Iterator[Proposal]:
    """A divisor of 0 raised, or replaced where there are negative ones too."""
    place = 1 if spot.name == "div" else 0
    operand = spot.operand(place) if spot.name in ("div", "reciprocal") else None
    value = spot.value(operand)
    if operand is not None and operand.value == 0 and isinstance(operand.value, int | float):
        rewrite = spot.argument("max({x}, 1e-4)", place)
        if rewrite is not None:
            yield Proposal("keep the divisor at 1e-4 or above", (rewrite,), "the divisor 0 is raised to 1e-4")
    if value is None or value.dtype not in _FLOORS:
        return
    eps = _FLOORS[value.dtype]
    bent = int((value.abs() < eps).sum()), value.numel()
    if bool((value >= 0).all()):
        rewrite = spot.argument(f"{{x}}.clamp(min={eps:g})", place)
        bends = f"{{}} divisors are raised to {eps:g} there, with no gradient through it"
    else:
        rewrite = spot.argument(f"{{torch}}.where({{x}} == 0, {eps:g}, {{x}})", place)
        bends = f"{{}} divisors are replaced by {eps:g}"
    if rewrite is not None:
        yield Proposal(f"keep the divisor away from 0, by {eps:g}", (rewrite,), bends, bent)


def argument_floor(spot: Spot) -> Iterator[Proposal]:
    """The argument of a logarithm, a root or a power raised from 0."""
    value, name = spot.given, spot.name
    if value is None or value.dtype not in _FLOORS:
        return
    floors: list[str] = []
    if name in ("log", "log2", "log10"):
        floors = [f"{_ROOT_FLOORS[value.dtype]:g}"]
    elif name in ("sqrt", "rsqrt", "pow"):
        floors = [f"{_ROOT_FLOORS[value.dtype]:g}", f"{_FLOORS[value.dtype]:g}"]
    elif name in ("lgamma", "digamma"):
        floors = [f"{_FLOORS[value.dtype]:g}"]
    elif name == "log1p":
        floors = [f"-1 + {_INSIDE[value.dtype]:g}"]
    for floor in floors:
        rewrite = spot.argument(f"{{x}}.clamp(min={floor})")
        limit = -1 + _INSIDE[value.dtype] if name == "log1p" else float(floor)
        bent = int((value < limit).sum()), value.numel()
        many = "{} values are raised to it, with no gradient through it"
        if rewrite is not None:
            yield Proposal(f"raise the argument of {name} to at least {floor}", (rewrite,), many, bent)


def domain_clamp(spot: Spot) -> Iterator[Proposal]:
    """The argument of acos and its like kept inside of -1 and 1, where the derivative is finite."""
    value = spot.given
    if spot.name not in _UNIT | {"logit"} or value is None or value.dtype not in _INSIDE:
        return
    eps = _INSIDE[value.dtype]
    low, high = ("0", "1") if spot.name == "logit" else ("-1", "1")
    rewrite = spot.argument(f"{{x}}.clamp({low} + {eps:g}, {high} - {eps:g})")
    outside = (value < float(low) + eps) | (value > float(high) - eps)
    many, bent = (
        "{} values are moved inside there, with no gradient through it",
        (int(outside.sum()), value.numel()),
    )
    if rewrite is not None:
        yield Proposal(f"clamp the argument of {spot.name} {eps:g} inside its domain", (rewrite,), many, bent)


def in_float32(spot: Spot) -> Iterator[Proposal]:
    """The operation on float32 inputs, where it was given half-precision ones."""
    half = (torch.float16, torch.bfloat16)
    found = []
    for place in (0, 1):
        value = spot.value(spot.operand(place))
        if value is not None and value.dtype in half:
            found.append(spot.argument("{x}.float()", place))
    rewrites = [one for one in found if one is not None]
    if rewrites:
        yield Proposal(f"compute {operation(spot.entry.func)} in float32", tuple(rewrites))


def without_cast(spot: Spot) -> Iterator[Proposal]:
    """A cast to half that overflows, left out."""
    given, result = spot.given, spot.result
    if given is None or result is None or spot.name not in ("half", "to", "type", "bfloat16"):
        return
    if given.dtype.itemsize > result.dtype.itemsize:
        rewrite = spot.whole("{x}", x=spot.operand(0))
        if rewrite is not None:
            yield Proposal("leave out the cast that overflows", (rewrite,))
