"""``nanhunt.watch()`` for programs that cannot be started by ``nanhunt run``: a context, and a trainer's callback."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from dataclasses import replace
from typing import Any, Self

from nanhunt.options import declared, make

from .incident import Incident
from .message import incident_text
from .options import Keywords, WatchOptions
from .session import Session, Settings


class NanFoundError(ArithmeticError):
    """A step went bad; ``incident`` says where and why, the message is its report."""

    def __init__(self, incident: Incident, *, verbose: bool = False) -> None:
        super().__init__(incident_text(incident, verbose=verbose))
        self.incident = incident


def _print(verbose: bool, incident: Incident) -> None:
    sys.stderr.write(incident_text(incident, verbose=verbose))


def _raise(verbose: bool, incident: Incident) -> None:
    raise NanFoundError(incident, verbose=verbose)


class Watch:
    """A context manager, and a callback for Lightning and Transformers.

    ``with nanhunt.watch(): ...``; ``lightning.Trainer(callbacks=[nanhunt.watch()])``;
    ``transformers.Trainer(callbacks=[nanhunt.watch()])``. Neither library is imported: the trainers call the hooks
    they know by name, and any other hook does nothing here.
    """

    def __init__(self, keywords: Keywords) -> None:
        self.settings = _settings(keywords)
        printing = functools.partial(_print, self.settings.verbose)
        self.report = keywords.report or (printing if keywords.keep_going else _quiet)
        self.session: Session | None = None
        self._log: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        self._incidents: list[Incident] = []

    @property
    def incidents(self) -> tuple[Incident, ...]:
        """What was found so far."""
        return tuple(self._incidents)

    def _noted(self, incident: Incident) -> None:
        self._incidents.append(incident)
        self.report(incident)

    def start(self) -> None:
        """Begin to watch this thread; does nothing when it is watched already."""
        if self.session is not None:
            return
        self.session = Session(self.settings, self._noted)
        if self.settings.tensorboard is not None:
            from .tensorboard import Log

            self._log = Log(self.session, self.settings.tensorboard)
        self.session.__enter__()

    def stop(self, failed: bool = False) -> None:
        """Leave torch as it was found; unless the program has ``failed``, after a last look at the parameters."""
        session, self.session = self.session, None
        if session is not None:
            session.__exit__(True if failed else None)
            self._log.__exit__(None, None, None)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop(failed=exception[0] is not None)

    # Lightning: https://lightning.ai/docs/pytorch/stable/extensions/callbacks.html

    def setup(self, *_: Any, **__: Any) -> None:
        """Lightning asks every callback for it."""

    def on_fit_start(self, *_: Any, **__: Any) -> None:
        """Lightning: training begins."""
        self.start()

    def on_fit_end(self, *_: Any, **__: Any) -> None:
        """Lightning: training is over."""
        self.stop()

    def on_exception(self, *_: Any, **__: Any) -> None:
        """Lightning: training was broken off."""
        self.stop(failed=True)

    @property
    def state_key(self) -> str:
        """Lightning: the name of this callback's state in a checkpoint."""
        return type(self).__qualname__

    def state_dict(self) -> dict[str, Any]:
        """Lightning: nothing to keep."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning: nothing was kept."""

    # Transformers: https://huggingface.co/docs/transformers/main_classes/callback

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Transformers, and Lightning after ``on_fit_start``: training begins."""
        self.start()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Transformers, and Lightning before ``on_fit_end``: training is over."""
        self.stop()

    def __getattr__(self, name: str) -> Any:
        """Every other hook of either library: nothing to do."""
        if name.startswith(("on_", "teardown")):
            return _nothing
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _settings(keywords: Keywords) -> Settings:
    """Raises NanhuntError for a value that its option does not take."""
    given = {name: getattr(keywords, name) for name in declared(WatchOptions)}
    values = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in given.items()
    }
    made = make(Settings, values, lambda option: f"{option.name} =")
    return replace(made, stop=functools.partial(_raise, made.verbose))


def _quiet(incident: Incident) -> None:
    """The exception that follows holds the report."""


def _nothing(*_: Any, **__: Any) -> None:
    """A hook that is not needed."""
