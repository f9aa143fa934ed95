"""Two inputs -> one Difference: read as for a check, paired by name, measured block by block by any executor."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from nanhunt.difference.judge import Pair, finding, judged
from nanhunt.difference.measure import measure, sums_of_equal
from nanhunt.difference.measured import Measured, Sums, Tolerance, narrower, rounding
from nanhunt.difference.options import DiffOptions
from nanhunt.difference.pairing import Item, pair, place_of, renaming
from nanhunt.difference.rows import RowsMeasured, measure_rows
from nanhunt.difference.rules import EXTRA, MISSING
from nanhunt.difference.suggestion import suggested
from nanhunt.errors import NanhuntError
from nanhunt.load import Container, NothingToCheck, NotNumbers, find, open_path, tensor_at
from nanhunt.load.call_order import CallOrder, read_call_order
from nanhunt.load.folder import Found
from nanhunt.load.listing import bytes_at, is_url, look_anew
from nanhunt.load.roles import Candidates
from nanhunt.load.tensor import COMPLEX, FLOATING, INTEGER, Tensor, as_real
from nanhunt.load.tree import coordinates
from nanhunt.operations import rules
from nanhunt.operations.registry import DEFAULT, OPERATIONS
from nanhunt.operations.rule import Rule
from nanhunt.options import as_written
from nanhunt.parallel import Fastest
from nanhunt.results.difference import Difference, TensorDifference, Unpaired
from nanhunt.results.exit_code import INTERRUPTED
from nanhunt.results.order import natural_key
from nanhunt.results.report import NotLookedAt, ReadError

BLOCK = 1 << 22
"""Values of a unit of work: 16 MiB of float32 on each side."""
ROW_VALUES = 1 << 20
"""Logits of a unit of work, of which a few rows at a time are taken in float64."""
ORDERED = ("pt", "pt-legacy", "npz", "memory")
"""Formats that keep the order in which a program wrote tensors, which is the order in which it computed them."""
T = TypeVar("T")


@dataclass
class Side:
    """One of the two inputs, opened."""

    name: str
    """What the user named."""
    items: list[Item] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    errors: list[ReadError] = field(default_factory=list)
    not_looked_at: list[NotLookedAt] = field(default_factory=list)
    calls: CallOrder = field(default_factory=CallOrder)
    """What index files beside the tensors say."""

    def where(self, tensor: Tensor, layout: str | None) -> Mapping[str, int | str]:
        """Its coordinates, with the number of its call where an index file has it."""
        number = self.calls.of(tensor.file)
        at = coordinates(tensor.file, tensor.name, layout)
        return at if number is None else {"order": number, **at}

    def add(self, container: Container, place: str, rename: Callable[[str], str]) -> None:
        """All tensors of a container, plain numbers too; what of it cannot be read becomes an error."""
        self.containers.append(container)
        for tensor in (*container.tensors.values(), *container.numbers.values()):
            name = rename(tensor.name.replace("/", "."))
            self.items.append(Item(place, name, as_real(tensor) if tensor.dtype in COMPLEX else tensor))
        for error in container.missing:
            self.failed(container.file, error)
        for name, refused in container.refused.items():
            if not isinstance(refused, NotNumbers):
                self.failed(f"{container.file}:{name}", refused)
        self.not_looked_at += [
            NotLookedAt(f"{container.file}:{name}", what) for name, what in container.unread.items()
        ]

    def failed(self, file: str, error: Exception) -> None:
        """Something that could not be read."""
        self.errors.append(_error(file, error))


@dataclass
class Comparison:
    """How to compare two inputs."""

    options: DiffOptions
    executor: Executor = field(default_factory=Fastest)
    """Who measures blocks."""
    advance: Callable[[int], None] = lambda _: None
    """Told of bytes of both sides as they are done."""
    expect: Callable[[int | None], None] = lambda _: None
    """Told of all bytes of two paths before the first is opened (None: they cannot be known)."""
    ends_with_what_is_known: bool = False
    """Whether Ctrl-C while tensors are measured gives a result, of exit code INTERRUPTED, and is not raised."""

    def paths(self, a: str, b: str) -> Difference:
        """Two files or folders. What cannot be read is an error in the result, and the rest is still compared."""
        for path in (a, b):
            look_anew(path)
        one, other = self._listed(a), self._listed(b)
        sizes = [bytes_at(file) for _, found in (one, other) for file in found.files]
        self.expect(None if None in sizes else sum(size or 0 for size in sizes))
        return self.sides(self._opened(*one, renaming(self.options.rename)), self._opened(*other, str))

    def side(self, contents: str | Container, name: str, rename: Callable[[str], str]) -> Side:
        """One input: a path, or a container as of values in memory; ``name`` is what reports call it."""
        if isinstance(contents, str):
            look_anew(contents)
            return self._opened(*self._listed(contents), rename)
        side = Side(name)
        side.add(contents, "", rename)
        return side

    def sides(self, a: Side, b: Side) -> Difference:
        """Two opened inputs. Raises NanhuntError for an unknown rule."""
        codes = rules.chosen("difference", self.options.select, self.options.ignore)
        items, order = _in_order(a, self.options.layout)
        paired = pair(items, b.items)
        suggestion = suggested(items, b.items, paired)
        pairs = [Pair(one.tensor, other.tensor) for one, other in paired.pairs]
        errors = [*a.errors, *b.errors]
        if not pairs and not errors:
            errors.append(_error(b.name, _nothing_in_common(items, b.items)))
        results, interrupted = self._known(pairs, a, codes)
        found = tuple(each for each in results if isinstance(each, TensorDifference))
        errors += [each for each in results if isinstance(each, ReadError)]
        difference = Difference(
            a.name,
            b.name,
            as_written(self.options),
            found,
            only_a=_unpaired(paired.only_a, paired.only_b, MISSING, codes),
            only_b=_unpaired(paired.only_b, paired.only_a, EXTRA, codes),
            order=order,
            pairing=paired.notes,
            renames=suggestion.rules,
            renamed=suggestion.pairs,
            errors=tuple(errors),
            not_looked_at=(*a.not_looked_at, *b.not_looked_at),
        ).decided()
        return replace(difference, exit_code=INTERRUPTED) if interrupted else difference

    def _listed(self, path: str) -> tuple[Side, Found]:
        """An input of which nothing is opened yet, and its files; none, and why, where they cannot be listed."""
        side = Side(path)
        try:
            return side, find([path], self.options.exclude)
        except NanhuntError as error:
            side.failed(path, error)
            return side, Found()

    def _opened(self, side: Side, found: Found, rename: Callable[[str], str]) -> Side:
        side.not_looked_at += [NotLookedAt(file, what) for file, what in found.passed_over]
        side.calls = read_call_order(file for file, _ in found.passed_over)
        for file in found.files:
            try:
                container = open_path(file, self.options.stored_dtype)
            except NothingToCheck:
                side.not_looked_at.append(NotLookedAt(file, "no tensors"))
            except NanhuntError as error:
                side.failed(file, error)
            else:
                side.add(container, place_of(file, side.name), rename)
        return side

    # ------------------------------------------------------------------------------------------ measuring

    def _known(
        self, pairs: Sequence[Pair], side: Side, codes: frozenset[str]
    ) -> tuple[list[TensorDifference | ReadError], bool]:
        """(all that can be told of the pairs, whether Ctrl-C ended it)."""
        results: list[TensorDifference | ReadError] = []
        try:
            for each in self._each(pairs, side, codes):
                results.append(each)
        except KeyboardInterrupt:
            if not self.ends_with_what_is_known:
                raise
            return [*results, _interrupted(len(results), len(pairs))], True
        return results, False

    def _each(
        self, pairs: Sequence[Pair], side: Side, codes: frozenset[str]
    ) -> Iterator[TensorDifference | ReadError]:
        labels = _Labels(side, self.options)
        for each, measured in self._measured(pairs):
            if isinstance(measured, Exception):
                yield _error(each.a.label, measured)
                continue
            tolerance = _tolerance(each, self.options)
            rows = None
            if measured is not None and not measured.identical and measured.differing.count:
                measured = self._with_sums(each, measured)  # noqa: PLW2901 - the same, completed
                rows = self._rows(each, labels)
            found = judged(each, measured, tolerance, rows, codes)
            yield replace(found, coordinates=side.where(each.a, self.options.layout))

    def _measured(self, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Measured | Exception | None]]:
        """Every pair with what its values say; None where the shapes differ."""
        for each in pairs:
            # Now, and not by every process: what is compressed is unpacked into a file of its own.
            for tensor in (each.a, each.b):
                if is_url(tensor.file):  # it is fetched by whoever compares it
                    continue
                with contextlib.suppress(NanhuntError, OSError, MemoryError):
                    _ = tensor.shards or tensor.data  # cached
        blocks = list(_blocks(pairs, self.options))  # Dask takes no iterators
        for number, group in itertools.groupby(self._blocks(blocks), key=lambda item: item[0]):
            yield pairs[number], functools.reduce(_together, (measured for _, measured in group))

    def _blocks(self, blocks: Sequence[list[_Block]]) -> Iterator[tuple[int, Measured | Exception | None]]:
        for batch in self.executor.map(_measure, blocks):
            for number, size, measured in batch:
                yield number, measured
                self.advance(size)

    def _with_sums(self, pair: Pair, measured: Measured) -> Measured:
        """With the sums over what is equal: only where something else differs are they needed."""
        ranges = [
            (pair.a, start, min(start + BLOCK, stop))
            for first, stop in measured.equal
            for start in range(first, stop, BLOCK)
        ]
        return replace(measured, sums=sum(self.executor.map(_sums, ranges), measured.sums))

    def _rows(self, pair: Pair, labels: _Labels) -> RowsMeasured | None:
        """Row by row, for what is called logits."""
        if not labels.are_logits(pair.a):
            return None
        classes = pair.a.shape[-1]
        count, step = math.prod(pair.a.shape[:-1]), max(1, ROW_VALUES // classes)
        known = labels.of(pair.a)
        blocks = [
            _Rows(pair, known, first, min(first + step, count), self.options.max_rows)
            for first in range(0, count, step)
        ]
        return functools.reduce(lambda one, other: one + other, self.executor.map(_measure_rows, blocks))


@dataclass(frozen=True)
class _Block:
    """Some values of a pair, not read yet."""

    number: int
    """Of the pair."""
    pair: Pair
    start: int
    stop: int
    tolerance: Tolerance
    most: int


def _blocks(pairs: Sequence[Pair], options: DiffOptions) -> Iterator[list[_Block]]:
    """All values of all pairs in order, about ``BLOCK`` at a time; at least one block a pair."""
    batch: list[_Block] = []
    room = BLOCK
    for number, each in enumerate(pairs):
        size = math.prod(each.a.shape) if each.comparable else 0
        tolerance = _tolerance(each, options)
        for start in range(0, max(1, size), BLOCK):
            block = _Block(number, each, start, min(start + BLOCK, size), tolerance, options.max_rows)
            batch.append(block)
            room -= block.stop - block.start
            if room <= 0:
                yield batch
                batch, room = [], BLOCK
    if batch:
        yield batch


def _measure(batch: list[_Block]) -> list[tuple[int, int, Measured | Exception | None]]:
    """(number of the pair, bytes of both sides, what is known) of every block."""
    return [(block.number, *_measured(block)) for block in batch]


def _measured(block: _Block) -> tuple[int, Measured | Exception | None]:
    if not block.pair.comparable:
        return 0, None
    try:
        a = block.pair.a.flat(block.start, block.stop)
        b = block.pair.b.flat(block.start, block.stop)
        found = measure(a, b, block.pair.dtypes, block.start, block.tolerance, block.most)
        block.pair.a.release(a)
        block.pair.b.release(b)
        return a.nbytes + b.nbytes, found
    except (NanhuntError, OSError, MemoryError) as error:
        return 0, error


def _together(
    one: Measured | Exception | None, other: Measured | Exception | None
) -> Measured | Exception | None:
    if isinstance(one, Measured) and isinstance(other, Measured):
        return one + other
    return one if isinstance(one, Exception) else other


def _sums(part: tuple[Tensor, int, int]) -> Sums:
    tensor, start, stop = part
    values = tensor.flat(start, stop)
    found = sums_of_equal(values, tensor.dtype)
    tensor.release(values)
    return found


@dataclass(frozen=True)
class _Rows:
    """Some rows of logits, not read yet."""

    pair: Pair
    labels: Tensor | None
    first: int
    last: int
    most: int


def _measure_rows(block: _Rows) -> RowsMeasured:
    a = block.pair.a.rows(-1).range(block.first, block.last)
    b = block.pair.b.rows(-1).range(block.first, block.last)
    labels = None if block.labels is None else block.labels.flat(block.first, block.last)
    found = measure_rows(a, b, block.pair.dtypes, labels, block.first, block.most)
    block.pair.a.release(a)
    block.pair.b.release(b)
    return found


def _tolerance(each: Pair, options: DiffOptions) -> Tolerance:
    """What the user says; by default the rounding of the format with fewer digits, and none of integers."""
    form = narrower(*each.dtypes)
    if options.rtol is None and options.atol is None and options.max_ulp is None:
        return rounding(form)
    return Tolerance(form, options.max_ulp, options.rtol, options.atol)


class _Labels:
    """Which tensors of A are logits, and the labels beside them."""

    def __init__(self, side: Side, options: DiffOptions) -> None:
        self._options = options
        self._side = side
        softmax = OPERATIONS[DEFAULT]
        self._logits, self._targets = softmax.role("logits"), softmax.role("targets")

    def are_logits(self, tensor: Tensor) -> bool:
        """Whether a softmax over the last axis is what follows: by name, or because the user says so."""
        if tensor.dtype not in FLOATING or not tensor.shape or tensor.shape[-1] < 2 or 0 in tensor.shape:
            return False
        if self._options.logits:
            from fnmatch import fnmatchcase

            return any(fnmatchcase(tensor.name, glob) for glob in self._options.logits)
        stem = tensor.name or place_of(tensor.file, "").rpartition("/")[2]
        return self._logits.suits(replace(tensor, name=stem))

    def of(self, logits: Tensor) -> Tensor | None:
        """Class numbers, one for each row; None where none are known."""
        if self._options.targets:
            container = next((each for each in self._side.containers if each.file == logits.file), None)
            found = tensor_at(self._options.targets, self._targets, self._options.stored_dtype, container)
            return found if self._fits(found, logits) else None
        beside = [item.tensor for item in self._side.items if item.tensor.file == logits.file]
        near = Candidates(self._targets.among(beside)).nearest(logits)
        return near[0] if len(near) == 1 and self._fits(near[0], logits) else None

    @staticmethod
    def _fits(labels: Tensor, logits: Tensor) -> bool:
        return labels.dtype in INTEGER and labels.dtype != "bool" and labels.shape == logits.shape[:-1]


# ---------------------------------------------------------------------------------------------- order, words


def _in_order(side: Side, layout: str | None) -> tuple[list[Item], str]:
    """The tensors of A in the order in which a run makes them, and what that order is."""
    formats = {container.file: container.format for container in side.containers}
    places = {id(item): side.where(item.tensor, layout) for item in side.items}
    known = {name for place in places.values() for name in place}
    keys = {id(item): _order(item, index, places[id(item)], formats) for index, item in enumerate(side.items)}
    items = sorted(side.items, key=lambda item: keys[id(item)])
    inside = "as written in the file" if set(formats.values()) <= set(ORDERED) else "layer, name"
    times = [IN_WORDS.get(name, name) for name in IN_TIME if name in known]
    return items, ", ".join((*times, *(["file"] if len(formats) > 1 else []), inside))


IN_TIME = ("step", "micro", "order")
"""Coordinates by which one tensor was made before another, coarse before fine."""
IN_WORDS = {"order": "call"}


def _order(
    item: Item, index: int, where: Mapping[str, int | str], formats: Mapping[str, str]
) -> tuple[object, ...]:
    tensor = item.tensor
    inside: tuple[object, ...] = (index,)
    if formats[tensor.file] not in ORDERED:
        layerless = -1 if _is_first(tensor.name) else math.inf
        inside = (where.get("layer", layerless), natural_key(tensor.name), tensor.name)
    return (*(where.get(name, -1) for name in IN_TIME), natural_key(tensor.file), tensor.file, *inside)


def _is_first(name: str) -> bool:
    """Whether a tensor without a layer number comes before the layers: embeddings do, norms and heads do not."""
    return any(word in name.lower() for word in ("emb", "wte", "wpe", "patch", "stem"))


def _unpaired(
    items: Iterable[Item], others: Sequence[Item], rule: Rule[object, object, object], codes: frozenset[str]
) -> tuple[Unpaired, ...]:
    shapes: dict[tuple[int, ...], list[Item]] = {}
    for other in others:
        shapes.setdefault(other.tensor.shape, []).append(other)
    found = []
    for item in items:
        tensor = item.tensor
        same = shapes.get(tensor.shape, [])
        like = same[0].tensor.name if len(same) == 1 else ""
        told = finding(rule, 0, tensor.label) if rule.code in codes else None
        found.append(Unpaired(tensor.file, tensor.name, tensor.shape, tensor.dtype, like, told))
    return tuple(found)


def _nothing_in_common(a: Sequence[Item], b: Sequence[Item]) -> NanhuntError:
    def some(items: Sequence[Item]) -> str:
        return ", ".join(item.path or "one tensor without a name" for item in items[:3]) or "nothing"

    return NanhuntError(
        f"No tensor of A has a partner in B: A holds {some(a)}; B holds {some(b)}.",
        "Say how B calls them: --rename 'OLD=NEW', a regular expression for the names of A.",
    )


def _interrupted(done: int, pairs: int) -> ReadError:
    return ReadError(
        "the rest",
        f"interrupted after {done:,} of {pairs:,} pairs of tensors.",
        "Run it again to compare it.",
    )


def _error(file: str, error: Exception) -> ReadError:
    hint = error.hint if isinstance(error, NanhuntError) else "Check that the file is readable and whole."
    return ReadError(file, str(error) or type(error).__name__, hint)
