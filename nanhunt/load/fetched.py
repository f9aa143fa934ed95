"""What was fetched of objects far away, kept for who asks for the same bytes again: the most recent of all of them."""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field

BUDGET = 1 << 28
"""Bytes kept at once, of all objects together, those under way with them."""


@dataclass
class _Object:
    """Of one object."""

    starts: list[int] = field(default_factory=list)
    """Of its parts, ascending; they do not overlap."""
    parts: dict[int, tuple[int, Future[bytes]]] = field(default_factory=dict)
    """(bytes, what they are or will be) by start."""
    kept: int = 0
    """Bytes of all parts."""

    def end(self, number: int) -> int:
        """Where part ``number`` ends."""
        return self.starts[number] + self.parts[self.starts[number]][0]


class Fetched:
    """Parts of objects by where they begin; the least recently used ones are given up first. For any threads.

    Before all others go those of objects that were read to their end: the first part of one that waits for its turn
    holds its header, and would be fetched twice.
    """

    def __init__(self) -> None:
        self._objects: dict[str, _Object] = {}
        self._order: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._done: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._kept = 0
        self._lock = threading.RLock()

    @property
    def kept(self) -> int:
        """Bytes of all parts of all objects, those under way with them."""
        return self._kept

    def add(self, name: str, start: int, size: int, coming: Future[bytes]) -> None:
        """Keeps ``size`` bytes that no part has yet, and that may still be under way."""
        with self._lock:
            there = self._objects.setdefault(name, _Object())
            there.parts[start] = size, coming
            bisect.insort(there.starts, start)
            there.kept += size
            self._order[name, start] = None
            self._kept += size
            while self._kept > BUDGET and len(self._order) + len(self._done) > 1:
                self.forget(*next(iter(self._done or self._order)))

    def done(self, name: str) -> None:
        """An object was read to its end: what is kept of it will hardly be asked for again."""
        with self._lock:
            for start in self._objects.get(name, _Object()).starts:
                self._order.pop((name, start), None)
                self._done[name, start] = None

    def at(self, name: str, position: int) -> tuple[int, Future[bytes]] | None:
        """(where it begins, what it is or will be) of the part around a position; None where there is none."""
        with self._lock:
            there = self._objects.get(name, _Object())
            number = bisect.bisect_right(there.starts, position) - 1
            if number < 0 or position >= there.end(number):
                return None
            start = there.starts[number]
            (self._order if (name, start) in self._order else self._done).move_to_end((name, start))
            return start, there.parts[start][1]

    def gap(self, name: str, position: int) -> tuple[int, int | None]:
        """Where what is missing around ``position`` begins, and where the next part begins; None after the last."""
        with self._lock:
            there = self._objects.get(name, _Object())
            number = bisect.bisect_right(there.starts, position)
            before = there.end(number - 1) if number else 0
            return before, there.starts[number] if number < len(there.starts) else None

    def run_before(self, name: str, position: int, most: int) -> int:
        """Bytes without a gap that end at ``position``, counted up to about ``most``."""
        with self._lock:
            there = self._objects.get(name, _Object())
            number, begin = bisect.bisect_left(there.starts, position) - 1, position
            while number >= 0 and position - begin < most and there.end(number) == begin:
                begin = there.starts[number]
                number -= 1
            return position - begin

    def run_behind(self, name: str, position: int, most: int) -> int:
        """Where the bytes without a gap from ``position`` on end, looked for up to about ``most``."""
        with self._lock:
            there = self._objects.get(name, _Object())
            number = bisect.bisect_right(there.starts, position) - 1
            end = there.end(number)
            while (
                number + 1 < len(there.starts) and there.starts[number + 1] == end and end - position < most
            ):
                number += 1
                end = there.end(number)
            return end

    def streams(self, size: int) -> int:
        """Objects that at least ``size`` bytes are kept of: so many are read side by side; 1 for none."""
        with self._lock:
            return max(1, sum(there.kept >= size for there in self._objects.values()))

    def forget(self, name: str, start: int) -> None:
        """Gives up a part; nothing happens where it was given up before."""
        with self._lock:
            there = self._objects.get(name)
            if there is None or start not in there.parts:
                return
            self._order.pop((name, start), None)
            self._done.pop((name, start), None)
            size, _ = there.parts.pop(start)
            there.starts.remove(start)
            there.kept -= size
            self._kept -= size
            if not there.starts:
                del self._objects[name]
