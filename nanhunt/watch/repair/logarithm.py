"""Repairs of log: of a softmax, of a sigmoid, of 1 - exp; the logarithm is computed without what it is taken of."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..names import operation
from ..softmax import finished
from ..step_graph import argument, slot_argument
from ..tape import Entry
from .constructed import log_softmax_module
from .edit import lies_in
from .rewrite import Proposal, Rewrite
from .source import Operand
from .spot import Spot

_SMALL = 1e-2
"""What is added to a probability below it is there to keep it from 0."""


def log_of_softmax(spot: Spot) -> Iterator[Proposal]:
    """log(softmax(x)) is log_softmax(x), and so, but for a small number, is log(softmax(x) + eps)."""
    if spot.name != "log":
        return
    title = "call torch.log_softmax, which does not form the probabilities"
    base = _below_eps(spot)
    above = base.feeding("softmax", "div")
    if above is None:
        return
    soft = spot.at(above)
    if soft.name == "softmax" and soft.call is None:
        yield from _constructed(_Log(spot, base, soft))
        return
    dim = argument(above, 1, "dim") if soft.name == "softmax" else None
    logits = soft.operand(0, "input") if soft.name == "softmax" else None
    if soft.name == "div":
        exp = soft.maker()
        made = [one for one in finished(spot.graph, exp) if one[0] is above] if exp is not None else []
        if exp is None or not made or made[0][2] != "softmax":
            return
        logits, dim = spot.at(exp).operand(0), made[0][1]
    if dim is not None:
        yield from _moved(
            _Log(spot, base, soft), title, f"{{torch}}.log_softmax({{logits}}, dim={dim})", logits
        )


def _constructed(parts: _Log) -> Iterator[Proposal]:
    """The softmax is a module that the user's code does not call itself."""
    module = log_softmax_module(parts.soft.entry, parts.log)
    away = parts.log.whole("{p}", p=parts.base.operand(0, "input"))
    if module is not None and away is not None and parts.alone:
        title = "construct nn.LogSoftmax, which does not form the probabilities, and take no logarithm of it"
        yield Proposal(title, (module, away), parts.bends, parts.bent)


def log_of_sigmoid(spot: Spot) -> Iterator[Proposal]:
    """log(sigmoid(x)) is F.logsigmoid(x), log(1 - sigmoid(x)) is F.logsigmoid(-x); with an eps added, nearly.

    A binary cross entropy has both: the other one is mended with it, since another step may break that.
    """
    found = list(_log_of_sigmoid(spot))
    mended = [one for log in _logs_beside(spot) for one in list(_log_of_sigmoid(spot.at(log)))[:1]]
    if found and mended and not any(one.bends for one in (found[0], *mended)):
        every = (*mended, found[0])
        rewrites = tuple(rewrite for one in every for rewrite in one.rewrites)
        yield Proposal(
            f"{found[0].title}, in both logarithms", rewrites, until=sum((one.ends for one in every), ())
        )
    yield from found


def _log_of_sigmoid(spot: Spot) -> Iterator[Proposal]:
    if spot.name != "log":
        return
    title = "call F.logsigmoid, which does not form the probability"
    base = _below_eps(spot)
    above = base.feeding("sigmoid", "sub", "rsub", "div", "reciprocal")
    if above is None:
        return
    made = spot.at(above)
    if made.name == "sigmoid":
        yield from _moved(_Log(spot, base, made), title, "{F}.logsigmoid({logits})", made.operand(0, "input"))
    elif made.name in ("sub", "rsub") and 1 in above.args:
        below = made.feeding("sigmoid")
        x = spot.at(below).operand(0, "input") if below is not None else None
        yield from _moved(_Log(spot, base, made), title, "{F}.logsigmoid(-{logits})", x)


def _logs_beside(log: Spot) -> list[Entry]:
    """Other logarithms, of the same sigmoid or of 1 less it."""
    base = _below_eps(log)
    sigmoid = base.feeding("sigmoid")
    if sigmoid is None:
        less = base.feeding("sub", "rsub")
        sigmoid = log.at(less).feeding("sigmoid") if less is not None else None
    readers = log.graph.read_by(sigmoid) if sigmoid is not None else []
    below = [
        one
        for reader in readers
        if operation(reader.func) in ("sub", "rsub")
        for one in log.graph.read_by(reader)
    ]
    return [one for one in (*readers, *below) if operation(one.func) == "log" and one is not log.entry]


@dataclass(frozen=True)
class _Log:
    """A logarithm of probabilities."""

    log: Spot
    base: Spot
    """The call that adds a small number to them before; the logarithm itself where there is none."""
    soft: Spot
    """What makes them."""

    @property
    def alone(self) -> bool:
        """Whether nothing else reads the probabilities."""
        kept = self.base.only_feeds(self.soft.entry)
        return kept and (self.base is self.log or self.log.only_feeds(self.base.entry))

    @property
    def bends(self) -> str:
        """What it means to leave the small number out."""
        p, eps = self.base.given, _eps(self.base.entry)
        if self.base is self.log or p is None or eps is None:
            return ""
        return f"log p itself is taken, not that of p and {eps:g}: {{}} p are small enough to tell"

    @property
    def bent(self) -> tuple[int, int]:
        """How many are."""
        p, eps = self.base.given, _eps(self.base.entry)
        return (int((p < 100 * eps).sum()), p.numel()) if p is not None and eps is not None else (0, 0)


def _below_eps(log: Spot) -> Spot:
    """The call that keeps the argument of the logarithm away from 0 by a small number, if there is one."""
    maker = log.maker()
    return log.at(maker) if maker is not None and _eps(maker) is not None else log


def _eps(entry: Entry) -> float | None:
    """The small number that a call adds, or keeps its argument above."""
    if operation(entry.func).rstrip("_") not in ("add", "clamp", "clamp_min"):
        return None
    numbers = [one for one in (*entry.args[1:], *entry.kwargs.values()) if isinstance(one, float)]
    return numbers[0] if numbers and 0 < numbers[0] < _SMALL else None


def _moved(parts: _Log, title: str, template: str, logits: Operand | None) -> Iterator[Proposal]:
    """The logarithm taken where the softmax is (early), so that log disappears; or in the place of log (late)."""
    log, soft, bends = parts.log, parts.soft, parts.bends
    early, late = soft.whole(template, logits=logits), log.whole(template, logits=logits)
    away = log.whole("{p}", p=parts.base.operand(0, "input"))
    both = (
        Proposal(title, (early, away), bends, parts.bent)
        if early is not None and away is not None and parts.alone
        else None
    )
    nested = both is not None and _nested(both)
    late = _picked(parts, late)
    if both is not None and nested:
        yield both
    elif late is not None and _same_function(late):
        yield Proposal(title, (late,), bends, parts.bent)
    elif both is not None:
        yield replace(both, title=f"{title}: what the softmax was is log p now, for its other readers too")


def _nested(both: Proposal) -> bool:
    """Whether the softmax is written inside the argument of log."""
    (file, span), (other, around) = (one.where for one in both.rewrites)
    return file == other and lies_in(span, around)


def _picked(parts: _Log, late: Rewrite | None) -> Rewrite | None:
    """What stands for log: the stable form, with the picks that lie between the softmax and log."""
    log = parts.log
    template, holes = (late.template, dict(late.holes)) if late is not None else ("", {})
    for number, pick in enumerate(_picks(parts)):
        found = _pick(log.at(pick), number)
        if found is None or late is None:
            return None
        template += found[0]
        holes |= found[1]
    return log.whole(template, **holes) if late is not None else None


def _picks(parts: _Log) -> list[Entry]:
    """The calls between, the first one first."""
    found: list[Entry] = []
    slot = slot_argument(parts.base.entry, 0, "input")
    while slot is not None and slot is not parts.soft.entry.out:
        pick = parts.log.graph.maker(slot)
        found += [pick] if pick is not None else []
        slot = slot_argument(pick, 0, "input") if pick is not None else None
    return found[::-1]


def _pick(at: Spot, number: int) -> tuple[str, dict[str, Operand]] | None:
    """One call as it is written behind a dot or in brackets, with holes of its own."""
    call = at.call
    if call is None:
        return None
    if isinstance(call.node, ast.Subscript):
        index = Operand(at.entry.args[1], call.node.slice)
        return f"[{{index_{number}}}]", {f"index_{number}": index}
    given = {f"{name}_{number}": at.operand(place) for place, name in ((1, "along"), (2, "index"))}
    known = {key: item for key, item in given.items() if item is not None}
    if not isinstance(call.node, ast.Call) or len(call.node.keywords) or not call.is_method:
        return None
    arguments = ", ".join(f"{{{key}}}" for key in known)
    return (f".{at.name}({arguments})", known) if len(known) == len(call.node.args) else None


def _same_function(rewrite: Rewrite) -> bool:
    """Whether all that is needed is written in the function that is edited."""
    source = rewrite.call.source
    here = source.function(rewrite.target)
    nodes = [item.node for item in rewrite.holes.values()]
    return all(node in source.parents and source.function(node) is here for node in nodes)


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
