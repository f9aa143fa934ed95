"""Which samples of a data set the running batch is made of, as the DataLoader's sampler told."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data.dataloader import _BaseDataLoaderIter

AHEAD = 256
"""Batches that workers may be asked for before they are used."""


class Batches:
    """The indices that each iterator of a DataLoader was given, while ``followed``."""

    def __init__(self) -> None:
        self.given: weakref.WeakKeyDictionary[Any, deque[tuple[int, Any]]] = weakref.WeakKeyDictionary()
        self.last: weakref.ref[Any] | None = None

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Note what samplers say; take the note back afterwards."""
        original: Callable[[Any], Any] = _BaseDataLoaderIter._next_index

        @functools.wraps(original)
        def next_index(iterator: Any) -> Any:
            index = original(iterator)
            asked = self.given.setdefault(iterator, deque(maxlen=AHEAD))
            asked.append((asked[-1][0] + 1 if asked else 0, index))
            self.last = weakref.ref(iterator)
            return index

        _BaseDataLoaderIter._next_index = next_index  # type: ignore[method-assign]
        try:
            yield
        finally:
            _BaseDataLoaderIter._next_index = original  # type: ignore[method-assign]

    def indices(self) -> list[int] | None:
        """Of the batch that was handed out last, in its order; None where nobody told."""
        iterator = self.last() if self.last is not None else None
        if iterator is None:
            return None
        number = iterator._num_yielded - 1
        found = next((index for count, index in self.given.get(iterator, ()) if count == number), None)
        return (
            list(found)
            if isinstance(found, list | tuple) and all(isinstance(one, int) for one in found)
            else None
        )
