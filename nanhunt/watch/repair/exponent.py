"""An exponent that has other uses beside exp: a log-variance, a log-scale, a log-ratio. It is bounded where it is made.

Of 0.5 * (mu**2 + logvar.exp() - 1 - logvar) a bound under exp alone would leave the last term pulling the other way,
and the sampling, std = exp(0.5 * logvar), with a number of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from nanhunt.dtypes.formats import FORMATS

from ..names import operation
from ..step_graph import VIEWS, slot_argument
from ..tape import Entry, Slot, slots_in
from .rewrite import Proposal, Rewrite
from .source import Operand, result_of
from .spot import Spot

BOUND = 20.0
"""exp(20) is 4.9e8: what log-ratios and log-variances are clamped at in practice (TRL, diffusers)."""
LOW_BOUND = 5.0
"""exp(5) is 148: a bound of coupling layers."""
_LINEAR = VIEWS | {"neg", "mul", "div"}
_BESIDE = VIEWS | {"exp", "add", "sub", "rsub", "neg", "sum", "mean"}
"""Uses of a log-variance beside exp; products and quotients with a number are others."""


def bounded_exponent(spot: Spot) -> Iterator[Proposal]:
    """The log-variance itself kept within bounds, for every use of it."""
    if spot.name != "exp":
        return
    slot = _shared(spot)
    value = spot.graph.value(slot)
    maker = spot.graph.maker(slot) if slot is not None else None
    if slot is None or maker is None or value is None or not value.is_floating_point():
        return
    for bound in exp_bounds(value.dtype):
        rewrite = bounded(spot, maker, slot, f"{{x}}.clamp(-{bound:g}, {bound:g})")
        if rewrite is None:
            return
        many = "{} values are bounded there, in every use of them, with no gradient through it"
        bent = int((value.abs() > bound).sum()), value.numel()
        title = f"bound the exponent at -{bound:g} and {bound:g} where it is made, so that its other uses have the same"
        yield Proposal(title, (rewrite,), many, bent)


def exp_bounds(dtype: torch.dtype) -> Iterator[float]:
    """Well below where exp overflows in the dtype; then lower, for what is multiplied layer by layer, as in a flow."""
    yield min(BOUND, math.floor(0.9 * FORMATS[str(dtype).removeprefix("torch.")].exp_limit))
    yield LOW_BOUND


def bounded(spot: Spot, maker: Entry, slot: Slot, template: str) -> Rewrite | None:
    """What a call made, or one of several things it made, put through the template."""
    call = result_of(maker, spot.graph)
    if call is None:
        return None
    outs = list(slots_in(maker.out))
    index = outs.index(slot) if len(outs) > 1 else None
    return Rewrite(call, template, {"x": Operand(slot, call.node)}, result=True, index=index)  # type: ignore[arg-type]


def _shared(exp: Spot) -> Slot | None:
    """The tensor that the exponent is, but for sign and scale, and that other calls read as well."""
    slot, above = slot_argument(exp.entry, 0, "input"), exp.entry
    for _ in range(6):
        uses = _uses(exp, slot, above) if slot is not None else []
        if uses:
            # As a factor or as logits it is another quantity than an exponent: that is not to be bounded.
            return slot if all(map(_is_beside, uses)) else None
        maker = exp.graph.maker(slot) if slot is not None else None
        if maker is None or operation(maker.func) not in _LINEAR or len(list(maker.given)) != 1:
            return None
        if len(list(slots_in(maker.out))) > 1:
            return None
        above, slot = maker, next(maker.given)
    return None


def _is_beside(use: Entry) -> bool:
    """Whether a call uses a log-variance as one."""
    name = operation(use.func).rstrip("_")
    return name in _BESIDE or (name in ("mul", "div") and len(list(use.given)) == 1)


def _uses(exp: Spot, slot: Slot, known: Entry) -> list[Entry]:
    """Its readers beside the one known; copies that nobody reads are none."""
    readers = [one for one in exp.graph.readers.get(slot, []) if one is not known]
    return [one for one in readers if operation(one.func) not in ("detach", "randn_like", "empty_like")]
