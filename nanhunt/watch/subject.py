"""What a capture is about: an operation that ``nanhunt op`` lists, with its tensors by the names of their roles."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from nanhunt.operations.call.spelling import CannotSpell, spelled, written

from .names import operation
from .numbers import checkable
from .observer import Observation
from .scene import Scene
from .step_graph import argument, slot_argument
from .tape import Slot

MAX_BYTES = 256 * 2**20
"""Of all tensors of a capture together."""
_SUMS = frozenset({"sum", "mean", "add", "view", "reshape", "squeeze", "unsqueeze"})


@dataclass(frozen=True)
class Subject:
    """One way to look at the failing operation."""

    operation: str
    """As --op takes it."""
    tensors: Mapping[str, torch.Tensor]
    """By role."""
    options: Mapping[str, Any] = field(default_factory=dict)
    call: str = ""
    """For --op call: the call itself, in JSON."""

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(each.numel() * each.element_size() for each in self.tensors.values())


def subjects(scene: Scene) -> Iterator[Subject]:
    """Formulas that the tape shows around the culprit, the most telling first; then its call, which always is one."""
    for recognise in _RECOGNISERS:
        found = recognise(scene)
        if found is not None and all(value is not None for value in found[1].values()):
            name, slots, options = found
            tensors = {role: scene.graph.value(slot) for role, slot in slots.items()}
            known = {role: tensor for role, tensor in tensors.items() if tensor is not None}
            if len(known) == len(tensors):
                yield Subject(name, known, options)
    yield from the_call(scene.item)


def the_call(item: Observation) -> Iterator[Subject]:
    """The low-level call itself, where a file can hold it."""
    if item.call is None:
        return
    tensors: dict[str, torch.Tensor] = {}

    def name(tensor: torch.Tensor, label: str) -> str:
        same = next((key for key, known in tensors.items() if known is tensor), None)
        key = same or (label if label not in tensors else f"{label}-{len(tensors)}")
        tensors[key] = tensor
        return key

    try:
        call = written(*item.call, name)
    except CannotSpell:
        return
    if any(map(checkable, tensors.values())) or any(not each.numel() for each in tensors.values()):
        yield Subject("call", tensors, call=json.dumps(spelled(call)))


def values(item: Observation, name: str) -> Subject:
    """Numbers that are bad themselves: an input, a parameter, what a line has written."""
    return Subject("values", {name: item.result})


# formulas ------------------------------------------------------------------------------------------------------------

_Found = tuple[str, dict[str, Slot | None], dict[str, Any]] | None


def _bce(scene: Scene) -> _Found:
    """log(sigmoid(x)), times labels: in one of the two terms the labels stand as they are."""
    if scene.called not in ("log", "log1p") or scene.entry is None or "sigmoid" not in scene.feeders:
        return None
    above = scene.graph.above(scene.entry, {"add", "sub", "rsub", "clamp", "neg", "log", "squeeze", "view"})
    sigmoid = next((call for call in above if operation(call.func) == "sigmoid"), None)
    logits = slot_argument(sigmoid, 0) if sigmoid else None
    shape = _shape(scene, logits)
    products = [call for call in scene.graph.entries if operation(call.func) == "mul" and shape is not None]
    factors = [slot for call in products for slot in call.given if _is_data(scene, slot, shape)]
    return ("bce", {"logits": logits, "targets": factors[0]}, {}) if factors else None


def _gaussian_kl(scene: Scene) -> _Found:
    """mu^2 and exp(logvar), logvar itself beside them."""
    if scene.op != "exp" or scene.entry is None or scene.item.node:
        return None
    logvar = slot_argument(scene.entry, 0)
    readers = (
        {operation(call.func).rstrip("_") for call in scene.graph.readers.get(logvar, [])}
        if logvar
        else set()
    )
    squares = [
        slot_argument(call, 0)
        for call in scene.graph.entries
        if operation(call.func) == "square"
        or (operation(call.func) == "pow" and argument(call, 1, "exponent") == 2)
    ]
    alike = [slot for slot in squares if slot is not None and _shape(scene, slot) == _shape(scene, logvar)]
    if not readers & {"add", "sub", "rsub"} or len(alike) != 1:
        return None
    return "gaussian-kl", {"mu": alike[0], "logvar": logvar}, {}


def _ppo(scene: Scene) -> _Found:
    """exp(new - old), times what no parameter has a part in."""
    difference = (
        scene.graph.made_by(slot_argument(scene.entry, 0)) if scene.entry and scene.op == "exp" else None
    )
    if difference is None or scene.entry is None or operation(difference.func) != "sub":
        return None
    new, old = slot_argument(difference, 0), slot_argument(difference, 1)
    if new is None or old is None or not _is_data(scene, old, _shape(scene, new)):
        return None
    products = [call for call in scene.graph.read_by(scene.entry) if operation(call.func) == "mul"]
    factors = [slot for call in products for slot in call.given if _is_data(scene, slot, _shape(scene, new))]
    roles = {"log_probs": new, "old_log_probs": old, "advantages": factors[0] if factors else None}
    return ("ppo", roles, {}) if factors and len(_shape(scene, new) or ()) < 3 else None


def _norm(scene: Scene) -> _Found:
    """x / |x|."""
    maker = scene.divisor_maker if scene.op == "div" else None
    if maker is None or operation(maker.func).removeprefix("linalg_") not in ("norm", "vector_norm"):
        return None
    row, measured = slot_argument(scene.entry, 0) if scene.entry else None, slot_argument(maker, 0)
    return ("norm", {"hidden_states": row}, {"norm": "l2"}) if row is not None and row is measured else None


def _distance(scene: Scene) -> _Found:
    """|a - b|, as a root of squares or by torch.norm."""
    if scene.entry is None or not scene.item.node:
        return None
    above = [scene.entry, *scene.graph.above(scene.entry, _SUMS | {"sqrt", "pow", "square", "norm"})]
    wanted = {"sqrt", "norm", "linalg_norm", "linalg_vector_norm", "vector_norm"}
    if operation(scene.entry.func).rstrip("_") not in wanted:
        return None
    difference = next((call for call in above if operation(call.func) == "sub"), None)
    if difference is not None:
        return "distance", {"a": slot_argument(difference, 0), "b": slot_argument(difference, 1)}, {}
    squared = next((call for call in above if operation(call.func) in ("pow", "square")), None)
    return ("distance", {"a": slot_argument(squared, 0)}, {}) if squared is not None else None


def _masked_mean(scene: Scene) -> _Found:
    """(v * m).sum() / m.sum()."""
    mask = slot_argument(scene.divisor_maker, 0) if scene.divisor_maker else None
    if scene.op != "div" or not scene.divisor_is_count or scene.entry is None or mask is None:
        return None
    above = scene.graph.above(scene.entry, _SUMS)
    products = [list(call.given) for call in above if operation(call.func) == "mul"]
    value = next((slot for given in products if mask in given for slot in given if slot is not mask), None)
    return ("masked-mean", {"values": value, "mask": mask}, {}) if value is not None else None


_RECOGNISERS: tuple[Callable[[Scene], _Found], ...] = (
    _bce,
    _gaussian_kl,
    _ppo,
    _norm,
    _distance,
    _masked_mean,
)


def _shape(scene: Scene, slot: Slot | None) -> torch.Size | None:
    value = scene.graph.value(slot)
    return value.shape if value is not None else None


def _is_data(scene: Scene, slot: Slot, shape: torch.Size | None) -> bool:
    """Whether it is numbers of that shape that no parameter has a part in."""
    value = scene.graph.value(slot)
    return (
        value is not None and value.shape == shape and not value.requires_grad and value.is_floating_point()
    )
