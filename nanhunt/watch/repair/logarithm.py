"""Repairs of log: of a softmax, of a sigmoid, of 1 - exp; the logarithm is computed without what it is taken of."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from ..names import operation
from ..softmax import finished
from ..step_graph import argument, slot_argument
from .edit import lies_in
from .rewrite import Proposal, Rewrite
from .source import Operand
from .spot import Spot


def log_of_softmax(spot: Spot) -> Iterator[Proposal]:
    """log(softmax(x)) is log_softmax(x)."""
    if spot.name != "log":
        return
    title = "call torch.log_softmax, which does not form the probabilities"
    above = spot.feeding("softmax", "div")
    if above is None:
        return
    soft = spot.at(above)
    dim = argument(above, 1, "dim") if soft.name == "softmax" else None
    logits = soft.operand(0, "input") if soft.name == "softmax" else None
    if soft.name == "div":
        exp = soft.maker()
        made = [one for one in finished(spot.graph, exp) if one[0] is above] if exp is not None else []
        if exp is None or not made or made[0][2] != "softmax":
            return
        logits, dim = spot.at(exp).operand(0), made[0][1]
    if dim is None:
        return
    template = f"{{torch}}.log_softmax({{logits}}, dim={dim})"
    yield from _moved(
        spot, soft, title, soft.whole(template, logits=logits), spot.whole(template, logits=logits)
    )


def log_of_sigmoid(spot: Spot) -> Iterator[Proposal]:
    """log(sigmoid(x)) is F.logsigmoid(x), log(1 - sigmoid(x)) is F.logsigmoid(-x)."""
    if spot.name != "log":
        return
    title = "call F.logsigmoid, which does not form the probability"
    above = spot.feeding("sigmoid", "sub", "rsub", "div", "reciprocal")
    if above is None:
        return
    made = spot.at(above)
    if made.name == "sigmoid":
        template, x = "{F}.logsigmoid({logits})", made.operand(0, "input")
        yield from _moved(spot, made, title, made.whole(template, logits=x), spot.whole(template, logits=x))
    elif made.name in ("sub", "rsub") and 1 in above.args:
        below = made.feeding("sigmoid")
        x = spot.at(below).operand(0, "input") if below is not None else None
        template = "{F}.logsigmoid(-{logits})"
        yield from _moved(spot, made, title, made.whole(template, logits=x), spot.whole(template, logits=x))


def _moved(
    log: Spot, soft: Spot, title: str, early: Rewrite | None, late: Rewrite | None
) -> Iterator[Proposal]:
    """The logarithm taken where the softmax is (early), so that log disappears; or in the place of log (late)."""
    away = log.whole("{p}", p=log.operand(0, "input"))
    moved = early is not None and away is not None and log.only_feeds(soft.entry)
    both = Proposal(title, (early, away)) if early is not None and away is not None and moved else None
    nested = early is not None and away is not None and lies_in(early.where[1], away.where[1])
    late = _picked(log, soft, late)
    if both is not None and nested:
        yield both
    elif late is not None and _same_function(late):
        yield Proposal(title, (late,))
    elif both is not None:
        yield replace(both, title=f"{title}: what the softmax was is log p now, for its other readers too")


def _picked(log: Spot, soft: Spot, late: Rewrite | None) -> Rewrite | None:
    """What stands for log where its argument is the softmax itself, or picked from it by one call."""
    slot = slot_argument(log.entry, 0, "input")
    pick = log.graph.maker(slot) if slot is not None else None
    if late is None or pick is None or pick is soft.entry:
        return late
    at = log.at(pick)
    if slot_argument(pick, 0, "input") is not soft.entry.out:
        return None
    if at.name == "gather":
        holes = {"along": at.operand(1, "dim"), "index": at.operand(2, "index")}
        return log.whole(f"{late.template}.gather({{along}}, {{index}})", **late.holes, **holes)
    if at.name == "index" and at.call is not None and isinstance(at.call.node, ast.Subscript):
        index = Operand(pick.args[1], at.call.node.slice)
        return log.whole(f"{late.template}[{{index}}]", **late.holes, index=index)
    return None


def _same_function(rewrite: Rewrite) -> bool:
    """Whether all that is needed is written in the function that is edited."""
    source = rewrite.call.source
    here = source.function(rewrite.target)
    return all(source.function(item.node) is here for item in rewrite.holes.values())


def log_of_complement(spot: Spot) -> Iterator[Proposal]:
    """log(1 - exp(x)) is log(-expm1(x)) near 0."""
    above = spot.maker()
    if (
        spot.name != "log"
        or above is None
        or operation(above.func) not in ("sub", "rsub")
        or 1 not in above.args
    ):
        return
    made = spot.at(above)
    exp = made.maker()
    if exp is None or operation(exp.func) != "exp":
        return
    rewrite = spot.argument("-{torch}.expm1({y})", y=spot.at(exp).operand(0))
    if rewrite is not None:
        yield Proposal("compute 1 - exp(x) as -expm1(x), which is exact near 0", (rewrite,))
