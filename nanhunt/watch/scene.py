"""What there is to see around one operation that made NaN or infinity: the material of the causes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch

from nanhunt.dtypes.formats import FORMATS

from .names import operation, plain
from .numbers import Numbers
from .observer import Observation, ancestors
from .site import resolve
from .softmax import Softmax, softmax_of
from .step_graph import VIEWS, StepGraph, argument, slot_argument
from .tape import Entry, Slot, slots_in

_ARITHMETIC = VIEWS | {"add", "sub", "clamp", "clamp_min", "clamp_max", "maximum", "index", "gather"}
_HALF = ("float16", "bfloat16")


@dataclass(frozen=True)
class Scene:
    """One observation, the call it belongs to, and the step around it."""

    item: Observation
    entry: Entry | None
    """None where the call is not on the tape: inside a custom Function or a compiled region."""
    graph: StepGraph
    losses: Sequence[float] = ()
    """Of the steps before, oldest first."""

    @property
    def op(self) -> str:
        """The low-level operation, without decoration."""
        return plain(self.item.op.rstrip("_"))

    @property
    def called(self) -> str:
        """The call as the user wrote it."""
        return operation(self.entry.func).rstrip("_") if self.entry else self.op

    @property
    def out(self) -> Numbers:
        """The result."""
        return self.item.out

    @property
    def given(self) -> Numbers | None:
        """The first input."""
        return self.item.inputs[0] if self.item.inputs else None

    @property
    def last(self) -> Numbers | None:
        """The last input: the divisor, the value an operation was differentiated at."""
        return self.item.inputs[-1] if self.item.inputs else None

    @property
    def dtype(self) -> str:
        """Of the result; of one part, if that is complex."""
        return {"complex64": "float32", "complex128": "float64"}.get(self.out.dtype, self.out.dtype)

    @property
    def limit(self) -> float:
        """The largest number of that dtype."""
        return FORMATS[self.dtype].max if self.dtype in FORMATS else float("inf")

    @property
    def half(self) -> bool:
        """Whether it is float16 or bfloat16."""
        return self.dtype in _HALF

    @property
    def seen(self) -> bool:
        """Whether there are finite inputs to tell extremes of."""
        return any(one.max is not None for one in self.item.inputs)

    @property
    def smallest(self) -> float:
        """Over all inputs."""
        return min((one.min for one in self.item.inputs if one.min is not None), default=0.0)

    @property
    def largest(self) -> float:
        """Over all inputs."""
        return max((one.max for one in self.item.inputs if one.max is not None), default=0.0)

    @property
    def from_finite(self) -> bool:
        """Whether everything that went in was finite."""
        return not self.item.parents

    @cached_property
    def source(self) -> str:
        """Where the infinity came from that the operation was given: ``masked_fill at train.py:8``."""
        first = min((one for one in ancestors(self.item) if not one.parents), key=lambda one: one.order)
        place = first.where
        if place is None:
            return f"the {first.op}"
        if isinstance(place, Entry):
            return f"{operation(place.func)} at {resolve(place.code, place.instruction).short}"
        return f"{plain(first.op)} at {resolve(place[0], place[1]).short}"

    @cached_property
    def softmax(self) -> Softmax | None:
        """The softmax this operation is part of."""
        return softmax_of(self.graph, self.entry)

    @property
    def handwritten(self) -> bool:
        """Whether it is part of a softmax made of exp, sum and a division (or a log)."""
        return self.softmax is not None and bool(self.softmax.handwritten)

    @property
    def cross_entropy(self) -> bool:
        """Whether that softmax belongs to a cross entropy, and to nothing else."""
        return self.softmax is not None and self.softmax.plain

    @cached_property
    def masked(self) -> bool:
        """Whether classes of the softmax are masked with -inf."""
        value = self.graph.value(self.softmax.logits) if self.softmax else None
        return value is not None and bool(value.isneginf().any())

    @cached_property
    def feeders(self) -> frozenset[str]:
        """Names of the calls that made the input, through additions and views only."""
        above = self.graph.above(self.entry, _ARITHMETIC) if self.entry else ()
        return frozenset(operation(call.func).rstrip("_") for call in above)

    @cached_property
    def divisor(self) -> Slot | None:
        """The last tensor the call was given."""
        return list(slots_in(self.entry.args))[-1] if self.entry and list(slots_in(self.entry.args)) else None

    @cached_property
    def divisor_maker(self) -> Entry | None:
        """The call that made the divisor."""
        return self.graph.made_by(self.divisor)

    @property
    def divisor_is_count(self) -> bool:
        """Whether the divisor is a sum that no parameter has a part in: of a mask, of lengths."""
        maker, value = self.divisor_maker, self.graph.value(self.divisor)
        if maker is None or value is None or value.requires_grad:
            return False
        return operation(maker.func) in ("sum", "count_nonzero")

    @property
    def lost_eps(self) -> float | None:
        """A small number that was added to the divisor and is 0 in its dtype."""
        maker, value = self.divisor_maker, self.graph.value(self.divisor)
        if maker is None or value is None or operation(maker.func).rstrip("_") != "add":
            return None
        numbers = (one for one in maker.args if isinstance(one, float) and one)
        return next((one for one in numbers if not torch.tensor(one, dtype=value.dtype).item()), None)

    def argument(self, place: int, name: str) -> Any:
        """Of the call; a tensor's value."""
        found = argument(self.entry, place, name) if self.entry else None
        return self.graph.value(found) if isinstance(found, Slot) else found

    def made_by(self, *names: str) -> bool:
        """Whether the call's first argument came from one of these calls."""
        maker = self.graph.made_by(slot_argument(self.entry, 0, "input")) if self.entry else None
        return maker is not None and operation(maker.func).rstrip("_") in names

    @property
    def diverged(self) -> bool:
        """Whether training had diverged in the steps before."""
        return diverging(self.losses)


def diverging(losses: Sequence[float]) -> bool:
    """Whether the loss has grown a hundredfold, without turning."""
    known = [abs(one) for one in losses]
    growing = all(low < high for low, high in pairwise(known))
    return len(known) > 2 and growing and known[-1] > 100 * known[0]
