"""The parts that tensors play: an operation lists its roles as data, and they are found by name, kind and place.

Nothing here knows an operation. Names are dotted paths ("steps.3.outputs.logits"); what a tensor is called is their
innermost word, and the rest of the path says which tensors belong together.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from nanhunt.load.container import Container
    from nanhunt.load.tensor import Tensor


_WITH_FLAGS = ("logits", "targets", "class weights")
"""Roles of softmax cross entropy, which the commands began with."""


@dataclass(frozen=True)
class Role:
    """One tensor that an operation works on: what dumps call it, and what it must be."""

    name: str
    """As messages and options say it: "logits", "class weights"."""
    called: str
    """Regular expression that the innermost word of a tensor's name matches, in lower case."""
    kinds: tuple[str, ...]
    """dtypes it may have."""
    prefers: str = ""
    """Which of several that are called so is meant: the old policy's own, and not the sampler's beside it."""
    otherwise: str = ""
    """What it is also called, where nothing here is called as it usually is and no other role takes the tensor."""
    usual: tuple[str, ...] = ()
    """Those it has in most dumps, by which an unnamed one is told from the rest; empty: all of ``kinds``."""
    dimensions: int = 0
    """The least number of dimensions."""
    required: bool = True
    """Whether the operation makes no sense without it."""
    replaces: tuple[str, ...] = ()
    """Required roles that are not needed where this one is there: scores stand for a query and a key."""
    what: str = ""
    """Shape and meaning, for people: "(..., classes): scores before the softmax"."""
    gradient: Literal["", "unit", "group"] = ""
    """Whether a gradient reaches it: none, one that belongs to each unit (row, value), or one that all units of a
    group share, as the keys of an attention head are shared by its queries."""
    is_mask: bool = False
    """Whether whole numbers in it say yes and no, so that there can be none but 0 and 1."""
    cast: bool = True
    """Whether a float tensor is converted to the dtype that is judged."""

    @property
    def option(self) -> str:
        """The flag that names its tensor: "--class-weights"."""
        return "--" + self.name.replace(" ", "-")

    @property
    def said_by(self) -> str:
        """How a command is told its tensor: by a flag of its own, or "--role old_log_probs"."""
        return self.option if self.name in _WITH_FLAGS else f"--role {self.name}"

    def asking(self, spec: str) -> str:
        """That with a tensor: "--role old_log_probs=NAME"."""
        return f"{self.said_by}{' ' if self.name in _WITH_FLAGS else '='}{spec}"

    def suits(self, tensor: Tensor) -> bool:
        """Whether the tensor has a name, a dtype and dimensions of this role."""
        return (
            tensor.dtype in self.kinds
            and len(tensor.shape) >= self.dimensions
            and is_called(self.called, tensor.name)
        )

    def among(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Those that suit, in file order; of several the preferred one."""
        found = [tensor for tensor in tensors if self.suits(tensor)]
        preferred = [each for each in found if self.prefers and is_called(self.prefers, each.name)]
        return preferred if len(found) > 1 and len(preferred) == 1 else found


Spot = tuple[tuple[str, ...], tuple[str, ...]]
"""Scope and index of a place."""


@dataclass(frozen=True)
class Place:
    """Where in its file a tensor stands."""

    scope: tuple[str, ...]
    """The path around the innermost word: ("steps", "3", "outputs")."""
    word: str
    """The innermost word, in lower case and without a number: "logits" of outputs.logits, logits.0 and logits_1."""
    index: tuple[str, ...]
    """The numbers behind it: ("0",) of logits.0."""

    @property
    def spot(self) -> Spot:
        """What tensors that belong together share."""
        return self.scope, self.index

    @property
    def numbers(self) -> tuple[str, ...]:
        """All numbers of the path, in order."""
        return (*(part for part in self.scope if part.isdigit()), *self.index)


@functools.lru_cache(
    maxsize=1 << 16
)  # each is asked for by every role of every operation, and by every checkpoint
def place(name: str) -> Place:
    """The parts of a dotted (or slashed) name."""
    parts = [part for part in re.split(r"[./]", name) if part]
    last = next((at for at in reversed(range(len(parts))) if not parts[at].isdigit()), None)
    if last is None:
        return Place(tuple(parts[:-1]), "", tuple(parts[-1:]))
    word, number = re.fullmatch(r"(.*?)[_-]?([0-9]*)", parts[last], re.DOTALL).groups()  # type: ignore[union-attr]
    index = (number, *parts[last + 1 :]) if number else tuple(parts[last + 1 :])
    return Place(tuple(parts[:last]), word.lower(), index)


def is_called(pattern: str, name: str) -> bool:
    """Whether the innermost word matches: "logits" for outputs.logits, logits.0 and logits_1."""
    word = place(name).word
    return word != "" and re.fullmatch(pattern, word) is not None


class Candidates:
    """Tensors that could play a role beside others: each step of a list of steps has labels of its own."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._all = list(tensors)
        self._by_spot = by_spot(self._all)
        self._by_numbers: dict[tuple[str, ...], list[Tensor]] = {}
        for tensor in self._all:
            self._by_numbers.setdefault(place(tensor.name).numbers, []).append(tensor)

    def nearest(self, tensor: Tensor) -> list[Tensor]:
        """Those that stand nearest to ``tensor``; several where nothing tells them apart.

        First its siblings with the same number (step.3.logits and step.3.labels, logits_1 and labels_1), then
        shared ones in the scopes around (labels beside logits.0 and logits.1), then those with the same numbers
        elsewhere (outputs.3.logits and batches.3.labels), then all.
        """
        return next((group for group in self._groups(place(tensor.name)) if group), [])

    def _groups(self, here: Place) -> Iterator[list[Tensor]]:
        yield self._by_spot.get(here.spot, [])
        for depth in range(len(here.scope), -1, -1):
            yield self._by_spot.get((here.scope[:depth], ()), [])
        if here.numbers:
            yield self._by_numbers.get(here.numbers, [])
        yield self._all


def by_spot(tensors: Iterable[Tensor]) -> dict[Spot, list[Tensor]]:
    """Tensors that stand together, in file order."""
    found: dict[Spot, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(place(tensor.name).spot, []).append(tensor)
    return found


def missing(roles: Iterable[Role], there: Collection[str]) -> list[Role]:
    """The required ones that are neither there nor replaced by one that is."""
    roles = list(roles)
    replaced = {name for role in roles if role.name in there for name in role.replaces}
    return [role for role in roles if role.required and role.name not in {*there, *replaced}]


def complete_sets(container: Container, roles: Sequence[Role]) -> list[dict[str, Tensor]]:
    """Tensors by role name, once for each place where all required roles are together, in file order.

    Where two tensors suit one role there is nothing to choose by, and that place is left out.
    """
    sets = []
    for beside in by_spot(container.tensors.values()).values():
        suiting = _suiting(beside, roles)
        if suiting and not missing(roles, suiting) and max(map(len, suiting.values())) == 1:
            sets.append({name: tensors[0] for name, tensors in suiting.items()})
    return sets


def _suiting(beside: Sequence[Tensor], roles: Sequence[Role]) -> dict[str, list[Tensor]]:
    """The tensors for each role that has some; not those for one that is replaced, where there are several for it."""
    suiting = {role.name: found for role in roles if (found := role.among(beside))}
    taken = {tensor.name for found in suiting.values() for tensor in found}
    for role in roles:
        if role.otherwise and role.name not in suiting:
            also = replace(role, called=role.otherwise)
            found = [each for each in also.among(beside) if each.name not in taken]
            suiting |= {role.name: found} if found else {}
    replaced = {name for role in roles if role.name in suiting for name in role.replaces}
    return {
        role.name: suiting[role.name]
        for role in roles
        if role.name in suiting and (role.name not in replaced or len(suiting[role.name]) == 1)
    }
