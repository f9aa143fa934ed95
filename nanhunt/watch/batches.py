"""Which samples of a data set the running batch is made of, as the DataLoader's sampler told."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data.dataloader import _BaseDataLoaderIter

from .recorder import Recorders
from .unseen import hide

AHEAD = 256
"""Batches that workers may be asked for before they are used."""


class Batches:
    """The indices that each iterator of a DataLoader was given, while ``followed``."""

    def __init__(self) -> None:
        self.given: weakref.WeakKeyDictionary[Any, deque[tuple[int, Any]]] = weakref.WeakKeyDictionary()
        self.last: weakref.ref[Any] | None = None

    @contextlib.contextmanager
    def followed(self, recorders: Recorders) -> Iterator[None]:
        """Note what samplers say, and record nothing while samples are fetched: a batch is an input of the step."""
        index_of: Callable[[Any], Any] = _BaseDataLoaderIter._next_index
        following: Callable[[Any], Any] = _BaseDataLoaderIter.__next__

        @functools.wraps(index_of)
        def next_index(iterator: Any) -> Any:
            index = index_of(iterator)
            asked = self.given.setdefault(iterator, deque(maxlen=AHEAD))
            asked.append((asked[-1][0] + 1 if asked else 0, index))
            self.last = weakref.ref(iterator)
            return index

        @functools.wraps(following)
        def next_batch(iterator: Any) -> Any:
            recorder = recorders.recorder
            if recorder.aside:
                return following(iterator)
            with recorder.pause():
                recorder.step_aside()
                try:
                    return following(iterator)
                except BaseException as error:
                    hide(error)
                    raise
                finally:
                    recorder.step_back()

        _BaseDataLoaderIter._next_index = next_index  # type: ignore[method-assign]
        _BaseDataLoaderIter.__next__ = next_batch  # type: ignore[assignment,method-assign]
        try:
            yield
        finally:
            _BaseDataLoaderIter._next_index = index_of  # type: ignore[method-assign]
            _BaseDataLoaderIter.__next__ = following  # type: ignore[assignment,method-assign]

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
