"""Runs the user's script in this process as Python itself would have run it."""

from __future__ import annotations

import atexit
import builtins
import contextlib
import importlib.util
import os
import signal
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import BuiltinImporter, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from nanhunt.errors import NanhuntError

from .unseen import clean

_STDIN = "<stdin>"


@dataclass(frozen=True)
class Script:
    """What to run."""

    target: str
    """A path, "-" for standard input, or a module name."""
    arguments: tuple[str, ...] = ()
    module: bool = False
    """``-m``: the target is a module name."""

    @property
    def name(self) -> str:
        """As the report calls it."""
        return f"-m {self.target}" if self.module else self.target


def prepare(script: Script) -> Callable[[], None]:
    """Find and compile the script; the function returned runs it as ``__main__``.

    Raises NanhuntError when there is no such file or module. A SyntaxError is the script's own and is raised when
    it runs.
    """
    sys.path[0] = _first_path(script)
    if script.module:
        spec = _main_spec(script.target)
        return _from_spec(spec, spec.origin or script.target, script)
    packed = PathFinder.find_spec("__main__", [script.target]) if _is_packed(script.target) else None
    if packed is not None:
        return _from_spec(packed, script.target, script)
    source, file = _read(script.target)
    sys.argv = [script.target, *script.arguments]
    return lambda: _run(lambda: compile(source, file, "exec", dont_inherit=True), file, None)


def _first_path(script: Script) -> str:
    """What Python puts first on ``sys.path``."""
    if script.module or script.target == "-":
        return str(Path.cwd()) if script.module else ""
    if _is_packed(script.target):
        return str(Path(script.target).absolute())
    return str(Path(script.target).resolve().parent)


def _is_packed(target: str) -> bool:
    """Whether it is a folder or an archive, which Python runs by the ``__main__.py`` inside."""
    return target != "-" and (Path(target).is_dir() or zipfile.is_zipfile(target))


def _read(target: str) -> tuple[bytes, str]:
    if target == "-":
        return sys.stdin.buffer.read(), _STDIN
    file = Path(target)
    try:
        return file.read_bytes(), str(file.absolute())
    except OSError as error:
        hint = "Give the path of a Python script, or a module after -m."
        raise NanhuntError(f"cannot read the script {target}: {error.strerror}", hint) from None


def _from_spec(spec: ModuleSpec, name: str, script: Script) -> Callable[[], None]:
    """Like ``python -m``: the parent packages are imported, relative imports work."""
    sys.argv = [name, *script.arguments]
    loader: Any = spec.loader

    def code() -> CodeType:
        found = loader.get_code(spec.name)
        assert isinstance(found, CodeType)
        return found

    return lambda: _run(code, spec.origin or script.target, spec)


def _main_spec(name: str) -> ModuleSpec:
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.__main__".startswith(error.name):
            raise
        spec = None
    if spec is None or spec.loader is None or not hasattr(spec.loader, "get_code"):
        raise NanhuntError(
            f"there is no module {name} to run", "Start from the folder that holds it, as with python -m."
        )
    return spec


def _run(code: Callable[[], CodeType], file: str, spec: ModuleSpec | None) -> None:
    """Execute in a fresh ``__main__``, which stays the main module: pickle and multiprocessing look it up."""
    main = ModuleType("__main__")
    main.__dict__.update(
        __package__=spec.parent if spec else None,
        __loader__=spec.loader if spec else _loader(file),
        __spec__=spec,
        __annotations__={},
        __builtins__=builtins,
        __file__=file,
        __cached__=spec.cached if spec else None,
    )
    sys.modules["__main__"] = main
    exec(code(), main.__dict__)


def _loader(file: str) -> Any:
    """What Python names as the loader of the script."""
    return BuiltinImporter if file == _STDIN else SourceFileLoader("__main__", file)


def exit_code(run: Callable[[], None], raised: Callable[[BaseException], bool]) -> int:
    """Run it and its threads to their ends, and return the code Python would have ended with.

    ``raised`` is told of the exception it ends by, an exit included, and says whether an interrupt was our own.
    An exception is printed as Python prints it, without frames of ours. An interrupt ends the process by SIGINT,
    so that a shell loop around it stops too.
    """
    sys.excepthook = sys.__excepthook__
    try:
        code = _code(run, raised)
        _wait_for_threads()
    except KeyboardInterrupt as error:  # our own, from a thread
        return 1 if raised(error) else 130
    return code


def _wait_for_threads() -> None:
    """As Python does before its exit functions; some wait to be told that the end has come."""
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        threading._shutdown()  # type: ignore[attr-defined]


def _code(run: Callable[[], None], raised: Callable[[BaseException], bool]) -> int:
    try:
        run()
    except SystemExit as error:
        code = _code_of(error)
        raised(error)
        return code
    except KeyboardInterrupt as error:
        if raised(error):
            return 1
        _print(error)
        _interrupted()
    except BaseException as error:
        _print(error)
        raised(error)
        return 1
    return 0


def _code_of(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _print(error: BaseException) -> None:
    clean(error)
    with contextlib.suppress(BrokenPipeError):
        sys.excepthook(type(error), error, error.__traceback__)


def _interrupted() -> None:
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
