"""Processes that the script starts are watched too. Imports no torch: a child that does not use it pays nothing.

Two environment variables reach every child: PYTHONPATH leads to ``startup/sitecustomize.py``, which waits for torch
to be imported, and ``NANHUNT_FAMILY`` names a folder of the first process, where the children put what they found.
Forked children have the session already; they too report by the folder.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import mmap
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nanhunt.literal import PLAIN
from nanhunt.options import as_written, make

from .options import WatchOptions

if TYPE_CHECKING:
    from .incident import Incident
    from .session import Session
    from .unlooked import Unlooked

VARIABLE = "NANHUNT_FAMILY"
_STARTUP = str(Path(__file__).parent / "startup")


def say(text: str) -> None:
    """Standard error, after what the script has printed: its standard output is its own, and may be closed."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        encoding = sys.stderr.encoding or "utf-8"
        sys.stderr.write(text.encode(encoding, PLAIN).decode(encoding))
        sys.stderr.flush()


@dataclass(frozen=True, kw_only=True)
class Orders(WatchOptions):
    """How a child is to be watched: the first process's settings."""

    quiet: bool = False
    """Whether only the first process writes to standard error."""


class Family:
    """The first process's side: lets children know while it is entered, then reads what they have written."""

    def __init__(self, orders: Orders, session: Session) -> None:
        self.orders = orders
        self.session = session
        self.folder: Path | None = None
        self._pid = os.getpid()
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> Family:
        with contextlib.suppress(OSError):  # no temporary folder: children are not followed
            self.folder = Path(tempfile.mkdtemp(prefix=f"nanhunt-{os.getpid()}-"))
            (self.folder / "orders.json").write_text(json.dumps(asdict(self.orders)))
            path = os.pathsep.join(filter(None, [_STARTUP, os.environ.get("PYTHONPATH")]))
            for name, value in ((VARIABLE, str(self.folder)), ("PYTHONPATH", path)):
                self._before[name] = os.environ.get(name)
                os.environ[name] = value
            follow_forks(self.session, self.folder, self.orders)
        return self

    @property
    def is_first(self) -> bool:
        """Not in a forked child that has come to the script's end."""
        return os.getpid() == self._pid

    @property
    def found(self) -> bool:
        """Whether there is an incident; of this process's children too, if it is the first."""
        return bool(self.session.incidents or (self.is_first and self._files("*.report")))

    def __exit__(self, *exception: object) -> None:
        if not self.is_first:
            return
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def reports(self) -> list[tuple[str, dict[str, Any]]]:
        """(text, incident as JSON has it) of each incident of a child, in the order of their files' times."""
        files = sorted(self._files("*.report"), key=lambda file: file.stat().st_mtime_ns)
        read = [json.loads(file.read_text()) for file in files]
        return [(item["text"], item["incident"]) for item in read]

    def steps(self) -> list[int]:
        """Completed steps of each child that used torch."""
        return [int.from_bytes(file.read_bytes()[:8], "little") for file in self._files("*.steps")]

    def add_unlooked(self, unlooked: Unlooked) -> None:
        """Add what the children did that nobody looked at."""
        for file in self._files("*.steps"):
            unlooked.add(file.read_bytes()[8:])

    def _files(self, pattern: str) -> list[Path]:
        return list(self.folder.glob(pattern)) if self.folder is not None else []


class Member:
    """A child's side: its session, and its files in the family's folder."""

    def __init__(self, session: Session, folder: Path, orders: Orders, base: int = 0) -> None:
        self.session = session
        self.folder = folder
        self.orders = orders
        self.base = base
        """Steps that a forked child's parent had done."""
        self.pid = os.getpid()
        self.reports = 0
        with (folder / f"{self.pid}.steps").open("w+b") as file:
            size = 8 + len(session.unlooked.packed())
            file.truncate(size)
            self._steps = mmap.mmap(file.fileno(), size)
        session.process = _process_name
        session.report = self.report
        session.listeners.append(self.count)

    def report(self, incident: Incident) -> None:
        """Tell the user at once, and the first process for its report."""
        from .message import encoded, incident_text

        text = incident_text(incident, verbose=self.orders.verbose)
        if not self.orders.quiet:
            say(text)
        self.reports += 1
        with contextlib.suppress(OSError):  # the first process is gone
            part = self.folder / f"{self.pid}-{self.reports}.part"
            part.write_text(json.dumps({"text": text, "incident": encoded(incident)}))
            part.rename(part.with_suffix(".report"))

    def count(self, *_: object) -> None:
        """Note the steps and what was not looked at so far; memory that outlives the process, however it ends."""
        steps = max(self.session.steps - self.base, 0).to_bytes(8, "little")
        self._steps[:] = steps + self.session.unlooked.packed()

    def finish(self) -> None:
        """The process ends: the last looks, once."""
        if os.getpid() != self.pid or self.session.stop.closing:
            return
        with contextlib.suppress(Exception):
            error = sys.exc_info()[1] or getattr(sys, "last_value", None)
            if error is not None:
                self.session.raised(error)
            self.session.__exit__(None, None, None)
            self.count()


def _process_name() -> str:
    """As multiprocessing calls it, or the script of its own."""
    from multiprocessing import current_process, parent_process

    if parent_process() is not None:
        return current_process().name
    return Path(sys.argv[0]).name if getattr(sys, "argv", [""])[0] else f"child {os.getpid()}"


def is_own(folder: Path) -> bool:
    """Whether this very process has made the folder for its children: then its siblings know nothing of it."""
    return folder.name.startswith(f"nanhunt-{os.getpid()}-")


def follow() -> None:
    """In a child that was started: watch it from when it imports torch."""
    if VARIABLE in os.environ:
        when_imported("torch", _watch)


def _watch() -> None:
    # Without the variable this process is nanhunt itself.
    folder = Path(os.environ.get(VARIABLE, os.devnull))
    if not (folder / "orders.json").is_file():
        return
    from .session import Session, Settings

    orders = Orders(**json.loads((folder / "orders.json").read_text()))
    session = Session(make(Settings, as_written(orders)), lambda incident: None)
    session.__enter__()
    _ends(Member(session, folder, orders))
    follow_forks(session, folder, orders)


def follow_forks(session: Session, folder: Path, orders: Orders) -> None:
    """From now on children forked by this process report to the family."""
    from multiprocessing.util import register_after_fork

    members: list[Member] = []

    def forked() -> None:
        if not session.stop.closing and folder.is_dir():
            with contextlib.suppress(Exception):
                session.forked()
                members[:] = [Member(session, folder, orders, session.steps)]

    os.register_at_fork(after_in_child=forked)
    # multiprocessing forgets what was to be done at the end of the parent, then asks again.
    register_after_fork(session, lambda _: [_ends(member) for member in members])  # type: ignore[func-returns-value]


def _ends(member: Member) -> None:
    from multiprocessing.util import Finalize

    atexit.register(member.finish)
    Finalize(None, member.finish, exitpriority=100)  # multiprocessing's children run no atexit functions


def when_imported(name: str, then: Callable[[], None]) -> Callable[[], None]:
    """Call ``then`` right after a module has been imported for the first time, or at once.

    Returns what ends the waiting.
    """
    waiting = _Waiting(name, then)
    if name in sys.modules:
        then()
    else:
        sys.meta_path.insert(0, waiting)
    return waiting.end


class _Waiting:
    """Finds nothing itself; sees the module being found."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self.name = name
        self.then = then

    def end(self) -> None:
        """Wait no longer."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        """Step aside for the other finders, and have their loader call back."""
        if name != self.name:
            return None
        self.end()
        spec = importlib.util.find_spec(name)
        loader: Any = spec.loader if spec is not None else None
        if loader is not None:
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                with contextlib.suppress(Exception):
                    del loader.exec_module
                    self.then()

            loader.exec_module = exec_module
        return spec
