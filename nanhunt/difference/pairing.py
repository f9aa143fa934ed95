"""Which tensor of A is which of B: by name, without what frameworks wrap around names, and by what the user says.

Each step pairs what the steps before left over, and only where there is one partner to choose: nothing is guessed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from nanhunt.errors import NanhuntError
from nanhunt.load.tensor import Tensor

WRAPPERS = re.compile(
    r"(?:(?<=\.)|^)(_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.(?=.)"
)
"""What torch.compile, DistributedDataParallel, FSDP, activation checkpointing and Lightning put before names."""
CONTAINERS = re.compile(r"^(state_dict|model_state_dict|model_state|params)\.(?=.)")
"""Keys under which training scripts save a model beside other things."""


@dataclass(frozen=True)
class Item:
    """One tensor of a side."""

    place: str
    """Path below what the user named, without suffix; "" for the file itself."""
    name: str
    """In its file, dots between the parts; for A after --rename."""
    tensor: Tensor

    @property
    def path(self) -> str:
        """Place and name as one."""
        return (
            f"{self.place.replace('/', '.')}.{self.name}"
            if self.place and self.name
            else self.place or self.name
        )

    @property
    def plain(self) -> str:
        """The name without wrappers."""
        return WRAPPERS.sub("", CONTAINERS.sub("", WRAPPERS.sub("", self.name)))


Key = Callable[[Item], Hashable]
"""What partners have in common; None for an item that has none."""


@dataclass(frozen=True)
class Paired:
    """Two sides brought together."""

    pairs: tuple[tuple[Item, Item], ...]
    """In the order of A."""
    only_a: tuple[Item, ...]
    only_b: tuple[Item, ...]
    notes: tuple[str, ...] = ()
    """How, beyond equal names."""


def place_of(file: str, root: str) -> str:
    """Where a file lies below ``root``, without its suffix; "" for the root itself."""
    inside = PurePath(file).relative_to(root) if PurePath(file).is_relative_to(root) else PurePath(file)
    return "" if inside == PurePath() else inside.with_suffix("").as_posix()


def renaming(rules: Iterable[str]) -> Callable[[str], str]:
    """--rename as a function of a name. Raises NanhuntError for one without "=" or with a wrong expression."""
    compiled = []
    for rule in rules:
        old, separator, new = rule.partition("=")
        if not separator:
            raise NanhuntError(
                f"--rename {rule} has no =.", r"Write OLD=NEW: --rename '^model\.=transformer.'"
            )
        try:
            compiled.append((re.compile(old), new))
            re.sub(old, new, "")
        except (re.error, IndexError) as error:
            hint = r"OLD is a regular expression, and NEW may name its groups: --rename '(\d+)\.wq=\1.q_proj'"
            raise NanhuntError(f"--rename {rule} is no regular expression: {error}.", hint) from None

    def renamed(name: str) -> str:
        for old, new in compiled:
            name = old.sub(new, name)
        return name

    return renamed


def pair(a: Sequence[Item], b: Sequence[Item]) -> Paired:
    """Partners, each tensor once."""
    if len(a) == len(b) == 1:  # two files of one tensor each: there is nothing to mistake it for
        return Paired(((a[0], b[0]),), (), ())
    found: dict[int, Item] = {}
    rest_a, rest_b, notes = dict(enumerate(a)), list(b), []
    keys: tuple[tuple[Key, str], ...] = (
        (lambda item: (item.place, item.name), ""),
        (lambda item: item.path, ""),
        (lambda item: item.name or None, ""),
        (_plain, "without wrappers such as module."),
    )
    for key, note in keys:
        number = _by_key(key, key, rest_a, rest_b, found)
        if number and note:
            notes.append(f"{_names(number)} paired {note}")
    notes += _by_prefix(rest_a, rest_b, found)
    pairs = tuple((a[index], found[index]) for index in sorted(found))
    return Paired(pairs, tuple(rest_a.values()), tuple(rest_b), tuple(notes))


def _by_key(key: Key, other: Key, rest_a: dict[int, Item], rest_b: list[Item], found: dict[int, Item]) -> int:
    """Pairs what has the same key, ``key`` in A and ``other`` in B, each the only one on its side; how many."""
    in_a = Counter(key(item) for item in rest_a.values())
    in_b = Counter(other(item) for item in rest_b)
    partners = {other(item): item for item in rest_b if in_b[other(item)] == 1}
    chosen = {
        index: partners[key(item)]
        for index, item in rest_a.items()
        if key(item) is not None and in_a[key(item)] == 1 and key(item) in partners
    }
    _take(chosen, rest_a, rest_b, found)
    return len(chosen)


def _take(
    chosen: dict[int, Item], rest_a: dict[int, Item], rest_b: list[Item], found: dict[int, Item]
) -> None:
    gone = set(map(id, chosen.values()))
    found |= chosen
    for index in chosen:
        del rest_a[index]
    rest_b[:] = [item for item in rest_b if id(item) not in gone]


def _by_prefix(rest_a: dict[int, Item], rest_b: list[Item], found: dict[int, Item]) -> Iterator[str]:
    """Names that one side has under one more prefix, the prefix of most names first; says which."""
    tried: set[tuple[str, str]] = set()
    while True:
        votes = _prefixes(rest_a.values(), rest_b)
        if not votes.keys() - tried:
            return
        chosen = min(votes.keys() - tried, key=lambda each: (-len(votes[each]), each))
        tried.add(chosen)
        if _rivals(chosen, votes):
            continue  # encoder.w and decoder.w are both w: nothing says which
        side, prefix = chosen

        def without(item: Item, prefix: str = prefix) -> Hashable:
            return item.plain.removeprefix(prefix) if item.plain.startswith(prefix) else None

        key, other_key = (without, _plain) if side == "A" else (_plain, without)
        number = _by_key(key, other_key, rest_a, rest_b, found)
        if number:
            yield f"{_names(number)} of {side} paired without {prefix!r}"


def _rivals(chosen: tuple[str, str], votes: dict[tuple[str, str], set[str]]) -> bool:
    """Whether as many of the same names stand after another prefix of the same side."""
    return any(
        each != chosen and each[0] == chosen[0] and len(names) == len(votes[chosen]) and names & votes[chosen]
        for each, names in votes.items()
    )


def _names(number: int) -> str:
    return f"{number:,} {'name' if number == 1 else 'names'}"


def _plain(item: Item) -> Hashable:
    return item.plain or None


def _prefixes(a: Iterable[Item], b: Iterable[Item]) -> dict[tuple[str, str], set[str]]:
    """By side and prefix, the names of the other side that this side has after that prefix."""
    names = {"A": {item.plain for item in a}, "B": {item.plain for item in b}}
    found: dict[tuple[str, str], set[str]] = {}
    for side, other in (("A", "B"), ("B", "A")):
        for name in names[side]:
            parts = name.split(".")
            for cut in range(1, len(parts)):
                rest = ".".join(parts[cut:])
                if rest in names[other]:
                    found.setdefault((side, ".".join(parts[:cut]) + "."), set()).add(rest)
    return found
