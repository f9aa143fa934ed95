"""What was fetched of objects far away, kept for who asks for the same bytes again: the most recent of all of them."""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict

BUDGET = 1 << 28
"""Bytes kept at once, of all objects together."""


class Fetched:
    """Parts of objects by where they begin; the least recently used ones are given up first. For any threads."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[int, bytes]] = {}
        self._starts: dict[str, list[int]] = {}
        self._order: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._kept = 0
        self._lock = threading.RLock()

    def add(self, name: str, start: int, data: bytes) -> None:
        """Keeps bytes that no part has yet."""
        with self._lock:
            self._parts.setdefault(name, {})[start] = data
            bisect.insort(self._starts.setdefault(name, []), start)
            self._order[name, start] = None
            self._kept += len(data)
            while self._kept > BUDGET and len(self._order) > 1:
                self._drop(*next(iter(self._order)))

    def at(self, name: str, position: int) -> memoryview | None:
        """What is kept from there on, up to the end of its part; None where nothing is."""
        with self._lock:
            starts = self._starts.get(name, [])
            number = bisect.bisect_right(starts, position) - 1
            if number < 0:
                return None
            start = starts[number]
            part = self._parts[name][start]
            if position >= start + len(part):
                return None
            self._order.move_to_end((name, start))
            return memoryview(part)[position - start :]

    def gap(self, name: str, position: int) -> tuple[int, int | None]:
        """Where what is missing around ``position`` begins, and where the next part begins; None after the last."""
        with self._lock:
            starts, parts = self._starts.get(name, []), self._parts.get(name, {})
            number = bisect.bisect_right(starts, position)
            before = starts[number - 1] + len(parts[starts[number - 1]]) if number else 0
            return before, starts[number] if number < len(starts) else None

    def run_before(self, name: str, position: int, most: int) -> int:
        """Bytes without a gap that end at ``position``, counted up to about ``most``."""
        with self._lock:
            starts, parts = self._starts.get(name, []), self._parts.get(name, {})
            number, begin = bisect.bisect_left(starts, position) - 1, position
            while number >= 0 and position - begin < most:
                if starts[number] + len(parts[starts[number]]) != begin:
                    break
                begin = starts[number]
                number -= 1
            return position - begin

    def _drop(self, name: str, start: int) -> None:
        del self._order[name, start]
        self._kept -= len(self._parts[name].pop(start))
        self._starts[name].remove(start)
