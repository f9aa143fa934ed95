"""What --rename would bring together names that do not pair: by shapes, layer numbers, first values and spelling.

Nothing is paired by this. It is a proposal, tried before it is made, for whoever knows what the names mean.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

import numpy as np

from nanhunt.difference.measure import to_doubles
from nanhunt.difference.measured import Doubles
from nanhunt.difference.pairing import Item, Paired, pair, renaming
from nanhunt.errors import NanhuntError
from nanhunt.load.listing import is_url

NUMBER = re.compile(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])")
"""The number of a layer or an expert: "layers.3.w1" has one, "w1" is a name."""
ALIKE = 0.02
"""Relative: values that were rounded to a format of 6 bits of mantissa or more are as near as that."""
FIRST = 64
"""Values that are looked at of a tensor."""
MOST_ALIKE = 64
"""Kinds of tensors of one shape, up to which each of A is held against each of B."""


@dataclass(frozen=True)
class Suggestion:
    """Rules for --rename, to be added to those given, and how many tensors more pair with them."""

    rules: tuple[str, ...] = ()
    pairs: int = 0


@dataclass(frozen=True)
class _Kind:
    """Tensors whose names differ by numbers alone."""

    template: str
    """The name with # for every number."""
    members: Mapping[tuple[str, ...], Item]
    """By their numbers."""

    @property
    def signature(self) -> Hashable:
        """What a partner has too: the numbers, and the shape of each."""
        return frozenset((numbers, item.tensor.shape) for numbers, item in self.members.items())

    @property
    def first_values(self) -> Doubles | None:
        """Of the first member, shape (n,) for n up to ``FIRST``; None where they cannot be had for little."""
        tensor = next(iter(self.members.values())).tensor
        if is_url(tensor.file):
            return None
        with contextlib.suppress(NanhuntError, OSError, MemoryError):
            return to_doubles(tensor.flat(0, min(FIRST, int(np.prod(tensor.shape)))), tensor.dtype)
        return None


def suggested(a: Sequence[Item], b: Sequence[Item], paired: Paired) -> Suggestion:
    """For all tensors of both sides and how they were paired; empty where nothing is found that pairs more."""
    matches = list(_matches(_kinds(paired.only_a), _kinds(paired.only_b)))
    if not matches:
        return Suggestion()
    readable, anchored = _readable(matches), [_anchored(old, new) for old, new in matches]
    best = max((_tried(rules, a, b) for rules in (readable, anchored)), key=lambda tried: tried.pairs)
    gained = best.pairs - len(paired.pairs)
    return replace(best, pairs=gained) if gained > 0 else Suggestion()


def _tried(rules: Sequence[str], a: Sequence[Item], b: Sequence[Item]) -> Suggestion:
    try:
        renamed = renaming(rules)
    except NanhuntError:  # NEW counts more numbers than OLD: a prefix that was seen through had one
        return Suggestion()
    found = pair([replace(item, name=renamed(item.name)) for item in a], b)
    return Suggestion(tuple(rules), len(found.pairs))


# ---------------------------------------------------------------------------------------------- which is which


def _kinds(items: Iterable[Item]) -> list[_Kind]:
    members: dict[str, dict[tuple[str, ...], Item]] = defaultdict(dict)
    for item in items:
        if item.name:
            members[NUMBER.sub("#", item.name)][tuple(NUMBER.findall(item.name))] = item
    return [_Kind(template, found) for template, found in members.items()]


def _matches(a: Iterable[_Kind], b: Iterable[_Kind]) -> Iterator[tuple[str, str]]:
    """(template in A, template in B) of kinds that belong together, each once."""
    in_a, in_b = _by_signature(a), _by_signature(b)
    for signature, some in in_a.items():
        others = in_b.get(signature, [])
        if max(len(some), len(others)) <= MOST_ALIKE:
            yield from (names for names in _best(some, others) if names[0] != names[1])


def _by_signature(kinds: Iterable[_Kind]) -> dict[Hashable, list[_Kind]]:
    found: dict[Hashable, list[_Kind]] = defaultdict(list)
    for kind in kinds:
        found[kind.signature].append(kind)
    return found


def _best(a: Sequence[_Kind], b: Sequence[_Kind]) -> Iterator[tuple[str, str]]:
    """The most alike first; of those that are as like another as each other, none."""
    values = {id(kind): kind.first_values for kind in (*a, *b)}
    scores = {
        (one.template, other.template): (
            _likeness(values[id(one)], values[id(other)]),
            _spelling(one.template, other.template),
        )
        for one in a
        for other in b
    }
    while scores:
        top = max(scores.values())
        level = [names for names, score in scores.items() if score == top]
        often = Counter(old for old, _ in level), Counter(new for _, new in level)
        yield from ((old, new) for old, new in level if often[0][old] == often[1][new] == 1)
        scores = {
            (old, new): score for (old, new), score in scores.items() if not (often[0][old] or often[1][new])
        }


def _likeness(a: Doubles | None, b: Doubles | None) -> int:
    """2: the first values are the same but for rounding; 1: nothing is known, as of norms near 1; 0: they are not."""
    if a is None or b is None or not (_tells(a) or _tells(b)):
        return 1
    return 2 if np.allclose(a, b, rtol=ALIKE, atol=0.0, equal_nan=True) else 0


def _tells(values: Doubles) -> bool:
    """Whether they are far enough apart to be told from those of another tensor."""
    return bool(values.size and (np.abs(values - values[0]) > 10 * ALIKE * np.abs(values[0])).any())


def _spelling(a: str, b: str) -> float:
    """How alike two names are: the share of words that both have, then the letters."""
    words = [Counter(re.split(r"[._]", name)) for name in (a, b)]
    shared = (words[0] & words[1]).total() / max(1, min(each.total() for each in words))
    return 2 * shared + SequenceMatcher(None, a, b, autojunk=False).ratio()


# ---------------------------------------------------------------------------------------------- rules


def _readable(matches: Sequence[tuple[str, str]]) -> list[str]:
    """Few short rules: one for what stands before all layer numbers, then one for each word that is another."""
    before, after = _before_numbers(matches)
    if before:
        matches = [(re.sub(rf"^{re.escape(before)}(?=\.)", after, old), new) for old, new in matches]
    rules = Counter(_rule(old, new) for old, new in matches if old != new)
    # Longest first: "ffn" is to change what "ffn_norm" leaves.
    ordered = sorted(_merged(rules), key=lambda rule: -len(rule.partition("=")[0]))
    return [*([f"^{_expression([before])}{BOUNDARY}={after}"] if before else []), *ordered]


def _before_numbers(matches: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """What most names of A and of B have before their first number, ("blk", "layers"); ("", "") where it is the same.

    Also where one is the end of the other: pairing sees through prefixes.
    """
    heads = Counter(
        (old.partition(".#")[0], new.partition(".#")[0])
        for old, new in matches
        if ".#" in old and ".#" in new
    )
    (old, new), count = heads.most_common(1)[0] if heads else (("", ""), 0)
    ours, theirs = old.split("."), new.split(".")
    while len(ours) > 1 and len(theirs) > 1 and ours[-1] == theirs[-1]:
        del ours[-1], theirs[-1]
    nested = f".{old}".endswith(f".{new}") or f".{new}".endswith(f".{old}")
    told = not nested and count > 1 and "#" not in old + new
    return (".".join(ours), ".".join(theirs)) if told else ("", "")


def _apart(a: list[str], b: list[str]) -> tuple[list[str], list[str], bool]:
    """(parts of A, parts of B that differ, whether A's are its first). A part stays where one side has none."""
    # A prefix of all names of one side, which pairing sees through.
    dropped = a.index(b[0]) if b[0] in a[:-1] else 0
    a, b = a[dropped:], b[b.index(a[0]) :] if not dropped and a[0] in b[:-1] else b
    shortest = min(len(a), len(b)) - 1
    end = next((n for n in range(shortest) if a[-1 - n] != b[-1 - n]), shortest)
    a, b = a[: len(a) - end], b[: len(b) - end]
    shortest = min(len(a), len(b)) - 1
    start = next((n for n in range(shortest) if a[n] != b[n]), shortest)
    return a[start:], b[start:], start == 0 and not dropped


def _rule(a: str, b: str) -> str:
    r"""OLD=NEW for what differs of two templates: "\battention\.wq\b=self_attn.q_proj"."""
    old, new, is_first = _apart(a.split("."), b.split("."))
    return f"{'^' if is_first else BOUNDARY}{_expression(old)}{BOUNDARY}={_replacement(new)}"


BOUNDARY = r"\b"


def _anchored(a: str, b: str) -> str:
    """OLD=NEW for two templates, that no other name is meant by."""
    return f"^{_expression(a.split('.'))}$={_replacement(b.split('.'))}"


def _expression(parts: Iterable[str]) -> str:
    escaped = r"\.".join(re.escape(part).replace(r"\#", r"(\d+)") for part in parts)
    return escaped.replace("=", r"\x3d")  # the first = ends OLD


def _replacement(parts: Iterable[str]) -> str:
    numbers = iter(range(1, 100))
    return re.sub("#", lambda _: rf"\{next(numbers)}", ".".join(parts).replace("\\", r"\\"))


def _merged(rules: Counter[str]) -> list[str]:
    r"""Rules that differ by one letter, the same in OLD and NEW, as one: attention\.w([qkv])\b=self_attn.\1_proj."""
    found: list[str] = []
    left = dict.fromkeys(rule for rule, _ in rules.most_common())
    while left:
        by_hole: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        for rule in left:
            for letter, hole in _holes(rule):
                by_hole[hole].setdefault(letter, rule)
        most = max(map(len, by_hole.values()), default=0)
        if most < 2:
            break
        hole = next(hole for hole, merged in by_hole.items() if len(merged) == most)
        old, new = hole
        letters = "".join(sorted(by_hole[hole]))
        found.append(f"{old.replace(HOLE, f'([{letters}])')}={new.replace(HOLE, ONE)}")
        for rule in by_hole[hole].values():
            del left[rule]
    return [*found, *left]


HOLE = "\0"
ONE = r"\1"


def _holes(rule: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """(letter, (OLD, NEW) without it) for every letter that stands at the same end of a word in both."""
    old, _, new = rule.partition("=")
    if "(" in old:  # numbers are groups already
        return
    plain = old.removeprefix("^").removeprefix(BOUNDARY)
    start = len(old) - len(plain)
    for at in range(start, len(old) - len(BOUNDARY)):
        letter = old[at]
        if not letter.isalpha() or old[at - 1] == "\\":
            continue
        for there, same in enumerate(new):
            if same == letter:
                yield letter, (_without(old, at), _without(new, there))


def _without(text: str, at: int) -> str:
    return f"{text[:at]}{HOLE}{text[at + 1 :]}"
