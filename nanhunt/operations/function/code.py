"""The user's function: where it is, what it takes, and what it may not do."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from nanhunt.errors import NanhuntError
from nanhunt.load.wording import did_you_mean


@dataclass(frozen=True)
class Code:
    """A function of the user's."""

    name: str
    """As the report calls it: "losses.py:focal"."""
    call: Callable[..., Any]
    parameters: tuple[str, ...]
    """Those that take one value each, in order."""
    required: frozenset[str]
    """Those without a default."""
    by_name: frozenset[str]
    """Those that take their value by name only."""

    @property
    def word(self) -> str:
        """What code calls it; "" for a lambda, which has no name."""
        word = self.name.rpartition(":")[2].rpartition(".")[2]
        return word if word.isidentifier() else ""


def code_of(function: Callable[..., Any] | str, option: str) -> Code:
    """A function, or FILE.py:NAME of one, ready to be called.

    Raises NanhuntError, which names ``option``, where there is no such file or name, where the file raises when it
    is imported, and for what is no function or takes nothing.
    """
    if isinstance(function, str):
        name, call = _imported(function, option)
    elif callable(function):
        name, call = _name_of(function), function
    else:
        raise NanhuntError(
            f"{option} is a {type(function).__name__}, no function.", "Give a function, or FILE.py:NAME."
        )
    if isinstance(call, type):
        raise NanhuntError(
            f"{name} ({option}) is a class.",
            "Give a function, or an instance of the class: loss = Loss().",
        )
    call = getattr(call, "_orig_mod", call)  # a module under torch.compile takes anything
    try:
        # A torch.nn.Module hands its arguments on to forward.
        known = inspect.signature(getattr(call, "forward", call)).parameters.values()
    except (ValueError, TypeError):
        raise NanhuntError(
            f"{name} ({option}) does not say which parameters it has.", "Wrap it: def f(x): return ..."
        ) from None
    taken = [each for each in known if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    if not taken:
        raise NanhuntError(
            f"{name} ({option}) has no parameters with names.",
            "Tensors are given to parameters by name: def f(logits, targets): ...",
        )
    required = frozenset(each.name for each in taken if each.default is each.empty)
    by_name = frozenset(each.name for each in taken if each.kind is each.KEYWORD_ONLY)
    return Code(name, call, tuple(each.name for each in taken), required, by_name)


def _name_of(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", type(function).__name__)
    return f"{Path(code.co_filename).name}:{name}" if code is not None else name


def _imported(spec: str, option: str) -> tuple[str, Callable[..., Any]]:
    file, colon, name = spec.rpartition(":")
    if not colon or not name or not file:
        raise NanhuntError(f"{option} {spec} is not FILE.py:NAME.", f"Write {option} losses.py:my_loss.")
    path = Path(file)
    if not path.is_file():
        beside = sorted(str(each) for each in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise NanhuntError(
            f"{option}: there is no file {file}.", did_you_mean(file, beside) + "Name a Python file."
        )
    module = _module(path, option)
    found = getattr(module, name, None)
    functions = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
    if found is None:
        raise NanhuntError(
            f"{file} has no function {name} ({option}).",
            f"{did_you_mean(name, functions)}It has: {', '.join(functions) or 'none'}.",
        )
    if not callable(found):
        raise NanhuntError(
            f"{name} of {file} ({option}) is a {type(found).__name__}, no function.",
            f"It has these functions: {', '.join(functions) or 'none'}.",
        )
    return f"{path.name}:{name}", found


@functools.cache
def _module(path: Path, option: str) -> ModuleType:
    """The file run as a module, which may import what lies beside it."""
    spec = importlib.util.spec_from_file_location(f"_nanhunt_function_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise NanhuntError(f"{option}: {path} is no Python file.", "Its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as import does: dataclasses and pickle look modules up there
    try:
        with _beside(path.resolve().parent), aside():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise NanhuntError(
            f"{path} ({option}) cannot be imported: {type(error).__name__}: {error}.",
            "It is run once, from top to bottom; run it yourself to see where it fails.",
        ) from None
    return module


def aside() -> redirect_stdout[TextIO]:
    """What the user's code prints meanwhile goes to stderr: standard output is the report's, maybe as JSON."""
    return redirect_stdout(sys.stderr)


@contextmanager
def uncompiled() -> Iterator[None]:
    """A function under torch.compile is run as it is written: compiled code has no lines to name."""
    if "torch._dynamo" not in sys.modules:  # which the decorator imports, in seconds
        yield
        return
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
