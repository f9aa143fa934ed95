"""Repairs of exp: of what is made from it, where that has a stable form, else of its argument."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..names import operation
from ..softmax import finished
from ..step_graph import slot_argument
from ..tape import Entry
from .exponent import exp_bounds
from .rewrite import Proposal
from .source import Operand
from .spot import Spot


def _is_exp(spot: Spot) -> bool:
    return spot.name == "exp"


def _exp_of(spot: Spot) -> Spot:
    """The exp itself, where the culprit is a later call of a softmax: its sum, its division."""
    found = (
        None if _is_exp(spot) else next((one for one in _above(spot) if operation(one.func) == "exp"), None)
    )
    return spot.at(found) if found is not None else spot


def _above(spot: Spot) -> Iterator[Entry]:
    return spot.graph.above(spot.entry, {"sum", "div", "add", "log"}, depth=3)


def softmax_by_hand(spot: Spot) -> Iterator[Proposal]:
    """exp(x) / exp(x).sum() is torch.softmax, log(exp(x).sum()) is torch.logsumexp."""
    exp = _exp_of(spot)
    if not _is_exp(exp):
        return
    x = exp.operand(0)
    yield from _every_softmax(exp, x)
    for last, dim, made in finished(exp.graph, exp.entry):
        if made == "logsumexp":
            keep = "" if _drops_dim(exp.at(last)) else ", keepdim=True"
            rewrite = exp.at(last).whole(f"{{torch}}.logsumexp({{logits}}, dim={dim}{keep})", logits=x)
            if rewrite is not None:
                yield Proposal("call torch.logsumexp", (rewrite,))
        elif made == "softmax":
            rewrite = exp.at(last).whole(f"{{torch}}.softmax({{logits}}, dim={dim})", logits=x)
            if rewrite is not None:
                yield Proposal("call torch.softmax", (rewrite,))
        if made == "quotient":
            yield from _log_of_quotient(exp, exp.at(last), dim)
        if made != "logsumexp":
            yield from _less_the_maximum(exp, last, dim)


def _every_softmax(exp: Spot, x: Operand | None) -> Iterator[Proposal]:
    """Where several are made of the same exps."""
    made = [(last, dim) for last, dim, kind in finished(exp.graph, exp.entry) if kind == "softmax"]
    found = [exp.at(last).whole(f"{{torch}}.softmax({{logits}}, dim={dim})", logits=x) for last, dim in made]
    rewrites = tuple(one for one in found if one is not None)
    if len(rewrites) == len(made) > 1:
        yield Proposal("call torch.softmax", rewrites, until=tuple(last.order for last, _ in made))


def _less_the_maximum(exp: Spot, last: Entry, dim: int) -> Iterator[Proposal]:
    """exp(x) wherever it is computed: what is made of it is the same again from the division on."""
    twins = [
        exp.at(one).argument(f"{{x}} - {{x}}.amax(dim={dim}, keepdim=True)")
        for one in exp.graph.twins(exp.entry)
    ]
    known = tuple(one for one in twins if one is not None)
    if len(known) == len(twins):
        title = "subtract the row's maximum before exp, as torch.softmax does"
        yield Proposal(title, known, until=(last.order,))


def _log_of_quotient(exp: Spot, division: Spot, dim: int) -> Iterator[Proposal]:
    """log(pick(exp(x)) / exp(x).sum()) is pick(log_softmax(x))."""
    total = division.maker(1)
    for log in division.readers():
        if operation(log.func) != "log" or total is None:
            continue
        early = exp.whole(f"{{torch}}.log_softmax({{logits}}, dim={dim})", logits=exp.operand(0))
        late = exp.at(log).whole("{picked}", picked=division.operand(0))
        alone = division.only_feeds(exp.entry, total)
        if early is not None and late is not None and alone:
            yield Proposal(
                "call torch.log_softmax and pick from that, which forms no quotient", (early, late)
            )


def _drops_dim(log: Spot) -> bool:
    """Whether the sum under the logarithm has dropped its dimension."""
    total = log.maker()
    slot = slot_argument(total, 0, "input") if total is not None else None
    exps, result = log.graph.value(slot), log.result
    return exps is None or result is None or result.dim() < max(exps.dim(), 1)


def softplus_by_hand(spot: Spot) -> Iterator[Proposal]:
    """log(1 + exp(x)) and log1p(exp(x)) are F.softplus."""
    if not _is_exp(spot):
        return
    for reader in spot.readers():
        logs = [reader] if operation(reader.func) == "log1p" else []
        if _adds_one(spot, reader):
            logs += [one for one in spot.graph.read_by(reader) if operation(one.func) == "log"]
        for log in logs:
            rewrite = spot.at(log).whole("{F}.softplus({x})", x=spot.operand(0))
            if rewrite is not None:
                yield Proposal("call F.softplus, which does not form exp(x)", (rewrite,))


def _adds_one(spot: Spot, reader: Entry) -> bool:
    return operation(reader.func) == "add" and 1 in [
        one for one in reader.args if isinstance(one, int | float)
    ]


def sigmoid_by_hand(spot: Spot) -> Iterator[Proposal]:
    """1 / (1 + exp(-x)) is torch.sigmoid(x)."""
    total = spot.maker(0) if spot.name in ("div", "reciprocal") else None
    exp = spot.at(total).maker(0) if total is not None and _adds_one(spot, total) else None
    if exp is None or operation(exp.func) != "exp":
        return
    x = spot.at(exp).operand(0)
    negated = spot.at(exp).maker(0)
    if x is not None and isinstance(x.node, ast.UnaryOp) and negated is not None:
        rewrite = spot.whole("{torch}.sigmoid({x})", x=spot.at(negated).operand(0))
    else:
        rewrite = spot.whole("{torch}.sigmoid(-{x})", x=x)
    if rewrite is not None:
        yield Proposal("call torch.sigmoid", (rewrite,))


def masked_ratio(spot: Spot) -> Iterator[Proposal]:
    """A ratio of which masked elements are multiplied by 0 afterwards: the mask goes before exp."""
    if not _is_exp(spot) or not _overflows(spot):
        return
    for reader in spot.readers():
        if operation(reader.func).rstrip("_") != "mul":
            continue
        mask = _mask_of(spot.at(reader), spot)
        rewrite = spot.argument("{torch}.where({mask} != 0, {x}, 0.0)", mask=mask)
        if mask is not None and rewrite is not None:
            yield Proposal("replace the argument by 0 where the mask drops the result", (rewrite,))


def _mask_of(product: Spot, exp: Spot) -> Operand | None:
    for place in (0, 1):
        operand = product.operand(place)
        value, result = product.value(operand), exp.result
        if value is None or result is None or value.shape != result.shape or value.requires_grad:
            continue
        if bool((value[~result.isfinite()] == 0).all()):
            return operand
    return None


def _overflows(spot: Spot) -> bool:
    return bool(spot.fault.out.posinf or spot.backward)


def bounded_exp(spot: Spot) -> Iterator[Proposal]:
    """The argument clamped, where nothing better is known."""
    given = spot.given
    known = ("exp", "exp2", "expm1", "sinh", "cosh", "poisson_nll_loss")
    if spot.name not in known or given is None or not given.is_floating_point():
        return
    difference = spot.fault.made_by("sub")
    for bound in exp_bounds(given.dtype):
        clamp = f"{{x}}.clamp(-{bound:g}, {bound:g})" if difference else f"{{x}}.clamp(max={bound:g})"
        rewrite = spot.argument(clamp)
        if rewrite is None:
            return
        beyond = (given.abs() if difference else given) > bound
        many = "{} values are bounded there, with no gradient through it"
        bent = int(beyond.sum()), given.numel()
        yield Proposal(f"bound the argument of {spot.name} at {bound:g}", (rewrite,), many, bent)
