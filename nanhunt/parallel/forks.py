"""Work in forked processes: nothing is shared, so nothing is waited for.

Threads that call NumPy every few microseconds hand the interpreter's lock to and fro, and meet again in the kernel,
where both map pages of the same file: two of them are 1.4 times as fast as one. Two processes are twice as fast. A
fork takes a millisecond or two, and has everything that the work needs: only results are pickled.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, NoReturn, TypeVar

from nanhunt.errors import NanhuntError
from nanhunt.parallel.serial import Serial

Item = TypeVar("Item")
Result = TypeVar("Result")


class Forks(Serial):
    """Processes forked for one ``map`` each, this one among them.

    Every one of them makes all the items, which must come out the same; ``fn`` must not change anything.
    """

    def __init__(self, workers: int) -> None:
        """``workers``: how many processes, this one included."""
        self._workers = workers

    def in_order(self, work: Callable[[Any], Result], items: Iterator[Any]) -> Iterator[Result]:
        """Process number i % workers does item i, the first one is this one.

        Raises NanhuntError when a process was ended from outside.
        """
        count = self._workers
        children: list[_Child] = []
        alive: tuple[int, int] | None = None
        try:
            try:
                with _interrupts_held():  # else one could come between a fork and its name in the list
                    alive = os.pipe()
                    for number in range(1, count):
                        children.append(_fork(work, items, number, count, alive))
            except OSError:  # no more processes are allowed: this one does everything
                _end(children)
                count = 1
            for index, item in enumerate(items):
                number = index % count
                yield children[number - 1].result() if number else work(item)
        finally:
            _end(children)
            for end in alive or ():
                os.close(end)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of the block; what is forked in it never hears one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class _Child:
    process: int
    outcomes: IO[bytes]

    def result(self) -> Any:
        """The next one; raises what the work raised."""
        try:
            succeeded, outcome = pickle.load(self.outcomes)  # written by a fork of this process
        except (EOFError, pickle.UnpicklingError):  # nothing more, or half a result
            hint = "Perhaps memory ran out; judge fewer files at once, or ask who ended it."
            raise NanhuntError("A process that judged part of the input was ended.", hint) from None
        if not succeeded:
            raise outcome
        return outcome


def _end(children: list[_Child]) -> None:
    """Ends them, whatever they are at."""
    with _interrupts_held():
        while children:
            child = children.pop()
            child.outcomes.close()
            # Where the parent of this process had it ignore SIGCHLD, an ended child is gone at once.
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                if os.waitpid(child.process, os.WNOHANG) == (0, 0):
                    os.kill(child.process, signal.SIGKILL)
                    os.waitpid(child.process, 0)


def _fork(
    work: Callable[[Item], Result], items: Iterator[Item], number: int, count: int, alive: tuple[int, int]
) -> _Child:
    reading, writing = os.pipe()
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of threads that hold locks: NumPy's own wait for work, and know of forks.
            warnings.simplefilter("ignore", DeprecationWarning)
            process = os.fork()
        if process == 0:
            os.close(reading)
            _end_with_parent(*alive)
            _work_and_exit(work, items, number, count, writing)
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return _Child(process, os.fdopen(reading, "rb"))


def _end_with_parent(waiting: int, held: int) -> None:
    """Ends this process, whatever it is at, when its parent has ended, however that was (SIGKILL leaves it no word).

    The parent alone holds the other end of this pipe, and nobody writes to it: reading returns when it has gone.
    """
    os.close(held)

    def watch() -> None:
        os.read(waiting, 1)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _work_and_exit(
    work: Callable[[Item], Result], items: Iterator[Item], number: int, count: int, writing: int
) -> NoReturn:
    """What the child does; it never returns into the code that forked, nor flushes what that has written."""
    try:
        with os.fdopen(writing, "wb") as stream:
            for index, item in enumerate(items):
                if index % count == number:
                    outcome = _outcome(work, item)
                    stream.write(outcome)
                    stream.flush()
    finally:
        os._exit(0)


def _outcome(work: Callable[[Item], Result], item: Item) -> bytes:
    try:
        return pickle.dumps((True, work(item)))
    except Exception as error:
        return pickle.dumps((False, error))
