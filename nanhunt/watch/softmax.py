"""Recognises a softmax on the tape, and the cross entropy it belongs to: only what is seen there is spoken of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from .names import operation
from .step_graph import VIEWS, StepGraph, argument, slot_argument
from .tape import Entry, Slot, slots_in

_FUSED = frozenset({"softmax", "log_softmax"})
_LOSSES = frozenset({"cross_entropy"})
_PARTS = VIEWS | {
    *("sum", "div", "log", "gather", "index", "take_along_dim", "neg", "add", "clamp", "clamp_min"),
    *("min", "max", "amin", "amax"),
}
"""Calls between a softmax and the loss taken of it."""
_PICKS = frozenset({"gather", "index", "take_along_dim", "nll_loss"})
_ROWS = VIEWS | _FUSED | _PICKS | {
    *("exp", "sum", "div", "log", "neg", "mean", "cross_entropy", "amax", "max", "sub"),
}  # fmt: skip
"""Calls on rows that leave cross entropy what it is. Any other (a focal factor, a mask) makes it another loss."""


@dataclass(frozen=True)
class Softmax:
    """A softmax over one dimension, and the loss taken of it, if there is one."""

    logits: Slot
    dim: int
    first: Entry
    """The fused call, or the exp of a handwritten one."""
    handwritten: str = ""
    """What the exps are made into: "softmax", "quotient" (some of them over the sum), "logsumexp"; "" if fused."""
    labels: Slot | None = None
    """One class number for each row."""
    plain: bool = False
    """Whether the loss is cross entropy and nothing else."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of ``nanhunt.check`` that say how the rows are reduced."""


def softmax_of(graph: StepGraph, entry: Entry | None) -> Softmax | None:
    """The softmax that a call is part of: the call itself, or one it was handed the result of."""
    if entry is None:
        return None
    for call in (entry, *graph.above(entry, _PARTS)):
        found = _softmax(graph, call)
        if found is not None and (call is entry or operation(entry.func) in _PARTS | _PICKS):
            return _with_loss(graph, found)
    return None


def _softmax(graph: StepGraph, call: Entry) -> Softmax | None:
    name = operation(call.func).rstrip("_")
    logits = slot_argument(call, 0, "input")
    if logits is None:
        return None
    if name in _LOSSES:
        value = graph.value(logits)
        return Softmax(logits, 1 if value is not None and value.dim() > 1 else -1, call)
    if name in _FUSED:
        dim = argument(call, 1, "dim")
        return Softmax(logits, dim if isinstance(dim, int) else -1, call)
    if name == "exp":
        return _by_hand(graph, call, logits)
    return None


def _by_hand(graph: StepGraph, exp: Entry, logits: Slot) -> Softmax | None:
    for _, dim, made in finished(graph, exp):
        return Softmax(logits, dim, exp, handwritten=made)
    return None


def finished(graph: StepGraph, exp: Entry) -> Iterator[tuple[Entry, int, str]]:
    """Where exps are added up over one dimension: the call that divides some of them by the sum, or takes its log.

    With the dimension, and what is made: "softmax", "quotient" or "logsumexp". The exps that are added up may have
    been computed a second time, as in ``x.exp() / x.exp().sum()``.
    """
    totals = {id(one): one for twin in graph.twins(exp) for one in graph.read_by(twin)}
    for total in totals.values():
        dim = _summed_dim(graph, total)
        for user in graph.read_by(total) if dim is not None else ():
            made = _made_of(graph, exp, user)
            if made and dim is not None:
                yield user, dim, made


def _summed_dim(graph: StepGraph, total: Entry) -> int | None:
    dim = argument(total, 1, "axis" if "axis" in total.kwargs else "dim")
    dim = dim[0] if isinstance(dim, list | tuple) and len(dim) == 1 else dim
    value = graph.value(slot_argument(total, 0, "input"))
    dim = -1 if dim is None and value is not None and value.dim() == 1 else dim
    return dim if operation(total.func) == "sum" and isinstance(dim, int) else None


def _made_of(graph: StepGraph, exp: Entry, user: Entry) -> str:
    """What the call that reads the sum makes of the exps."""
    name = operation(user.func).rstrip("_")
    if name == "log":
        return "logsumexp"
    numerator = graph.made_by(slot_argument(user, 0, "input")) if name == "div" else None
    if numerator is not None and graph.computed_alike(numerator, exp):
        return "softmax"
    picked = numerator is not None and any(
        graph.computed_alike(call, exp) for call in graph.above(numerator, _PARTS)
    )
    return "quotient" if picked else ""


def _with_loss(graph: StepGraph, softmax: Softmax) -> Softmax:
    calls = [softmax.first, *_below(graph, softmax.first), *_beside(graph, softmax)]
    if operation(softmax.first.func) in _LOSSES:
        softmax = replace(
            softmax, labels=slot_argument(softmax.first, 1, "target"), options=_options(softmax.first)
        )
    else:
        found = [slot for call in calls for slot in _picked(graph, call)]
        labels = dict.fromkeys(found)
        asked = next((_options(call) for call in calls if operation(call.func) == "nll_loss"), {})
        softmax = replace(softmax, labels=next(iter(labels)) if len(labels) == 1 else None, options=asked)
    if softmax.labels is None or not _fit(graph, softmax):
        return replace(softmax, labels=None, options={})
    plain = all(operation(call.func).rstrip("_") in _ROWS for call in calls)
    summed = any(operation(call.func) == "sum" and _is_scalar(graph, call) for call in calls)
    options = {"reduction": "sum"} if summed else {}
    return replace(softmax, plain=plain, options=options | softmax.options)


def _below(graph: StepGraph, entry: Entry) -> Iterator[Entry]:
    """The calls that read its result and theirs, down to where one number is left."""
    waiting, seen = [entry], {id(entry)}
    while waiting:
        for call in graph.reading(waiting.pop()):
            if id(call) not in seen:
                seen.add(id(call))
                yield call
                if not _is_scalar(graph, call):
                    waiting.append(call)


def _beside(graph: StepGraph, softmax: Softmax) -> list[Entry]:
    """Of ``log(exp(x).sum()) - x[label]``: the calls that read the logits themselves."""
    readers = graph.readers.get(softmax.logits, []) if softmax.handwritten else []
    return [call for call in readers if operation(call.func) in _PICKS]


def _is_scalar(graph: StepGraph, call: Entry) -> bool:
    values = [graph.value(slot) for slot in slots_in(call.out)]
    return all(value is not None and value.numel() == 1 for value in values)


def _picked(graph: StepGraph, call: Entry) -> Iterator[Slot]:
    """The labels by which a call picks one class of each row."""
    name = operation(call.func)
    given: list[Slot | None]
    if name == "nll_loss":
        given = [slot_argument(call, 1, "target")]
    elif name in ("gather", "take_along_dim"):
        given = [slot_argument(call, 2 if name == "gather" else 1, "index")]
    else:
        # Of p[torch.arange(n), labels] the last: the first only counts the rows. p[:, classes] picks no labels.
        index = argument(call, 1, "") if name == "index" else None
        places = index if isinstance(index, list | tuple) else ()
        slots = [place for place in places if isinstance(place, Slot)]
        given = [slots[-1]] if len(slots) == len(places) > 1 else []
    for slot in given:
        value = graph.value(slot)
        if slot is not None and value is not None and value.dtype is torch.int64:
            yield slot


def _fit(graph: StepGraph, softmax: Softmax) -> bool:
    """Whether there is one label for each row."""
    logits, labels = graph.value(softmax.logits), graph.value(softmax.labels)
    if logits is None or labels is None or labels.dtype is not torch.int64 or not logits.dim():
        return False
    return labels.numel() * logits.shape[softmax.dim] == logits.numel()


def _options(call: Entry) -> dict[str, Any]:
    """What F.cross_entropy or F.nll_loss was told, in the words of ``nanhunt.check``."""
    named = {
        "ignore_index": argument(call, 4, "ignore_index"),
        "reduction": argument(call, 6, "reduction"),
        "label_smoothing": argument(call, 7, "label_smoothing"),
    }
    usual = {"ignore_index": -100, "reduction": "mean", "label_smoothing": 0.0}
    return {key: value for key, value in named.items() if value is not None and value != usual[key]}
