"""Ends the script after a report, from whichever of its threads the fault was found in."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from .incident import Incident

STOP = signal.SIGURG
"""Interrupts the first thread for another. Not SIGINT: a background job ignores that, and a script or asyncio may
have a handler of its own. Whoever has no handler for this one does not notice it.
"""
LEAVING = 5.0
"""Seconds that a thread which has stopped the script has for its own end."""
CAUGHT = 2
"""Times that a script may catch the exception and go on."""


class Stopped(SystemExit):
    """Ends the script after a report, with exit code 1. Not an Exception, so that ``except Exception`` lets it by."""

    def __init__(self) -> None:
        super().__init__(1)

    def __reduce__(self) -> tuple[type[Stopped], tuple[()]]:
        """A pool of processes hands it to the first."""
        return Stopped, ()


class StoppedTaskError(ArithmeticError):
    """Ends a task of a ``multiprocessing.Pool``: a worker that exits leaves its parent waiting for ever."""


class Stop:
    """The end of a script that has been reported on; ``instead`` is called where the user asked for something else."""

    def __init__(self, instead: Callable[[Incident], None] | None) -> None:
        self.instead = instead
        self.closing = False
        """Whether the script has ended by itself: there is nothing to stop."""
        self.times = 0
        self._stopper: int | None = None
        """The thread that has stopped the first one, and is about to end."""

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Let the first thread be stopped by another."""
        try:
            before = signal.signal(STOP, self._heed)
        except ValueError:  # only the first thread may
            yield
            return
        try:
            yield
        finally:
            if signal.getsignal(STOP) == self._heed:
                signal.signal(STOP, before)

    def interrupted(self) -> bool:
        """Whether a KeyboardInterrupt that ended the script was ours; waits for the thread that sent it."""
        if self._stopper is not None:
            _await_end(self._stopper)
        return bool(self.times)

    def now(self, incident: Incident) -> None:
        """Stop for the sake of ``incident``.

        Raises:
            Stopped: in the first thread.
            SystemExit: in another one, once the first is interrupted.
            StoppedTaskError: in a worker of a pool.

        """
        self.times += 1
        if self.instead is not None:
            return self.instead(incident)
        if self.closing:
            return None
        if _is_pool_worker():
            raise StoppedTaskError(f"nanhunt: {incident.what} (step {incident.step})")
        if threading.current_thread() is not threading.main_thread():
            self._stopper = threading.get_ident()
            self._interrupt_main()
            raise SystemExit(1)  # of its very class: a thread ends by it without a word
        if self.times > CAUGHT:
            # The script would train on with a broken model.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
        raise Stopped

    def _heed(self, *_: object) -> None:
        """The handler of that signal, in the first thread."""
        if self._stopper is not None:
            raise KeyboardInterrupt

    def _interrupt_main(self) -> None:
        """Stop the first thread in whatever it waits."""
        if signal.getsignal(STOP) == self._heed:
            first = threading.main_thread().ident
            assert first is not None
            signal.pthread_kill(first, STOP)
        else:  # the script has a use of its own for that signal
            os.kill(os.getpid(), signal.SIGINT)


def _await_end(thread: int) -> None:
    """Until that thread has left: Python ends one that is still in the engine's C++ by aborting the process.

    Not by Thread.join, which believes after an interrupted join that the thread has ended.
    """
    deadline = time.monotonic() + LEAVING
    while thread in sys._current_frames() and time.monotonic() < deadline:
        time.sleep(0.001)


def _is_pool_worker() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "multiprocessing.pool":
            return True
        frame = frame.f_back
    return False
