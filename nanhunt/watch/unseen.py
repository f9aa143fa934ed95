"""Our frames do not count: not in the user's tracebacks, not in the places his warnings name."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch

_ROOM = str(Path(__file__).parent) + os.sep
_OVERRIDES = os.sep + str(Path("torch", "overrides.py"))
_OPS = os.sep + str(Path("torch", "_ops.py"))
_warnings: Any = warnings  # the function every warning ends in has no public name
_muted = False


def own(file: str) -> bool:
    """Whether a source file is part of this room."""
    return file.startswith(_ROOM)


def hide(error: BaseException) -> None:
    """Take our frames off an exception that passes through one of our wrappers.

    To be followed by a bare ``raise``: Python hands the traceback on as it then is, without this frame.
    """
    trace = error.__traceback__
    while trace is not None and _passed(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    error.__traceback__ = trace


def _passed(file: str) -> bool:
    # A dispatch mode calls operations through torch._ops, which plain torch does not.
    return own(file) or file.endswith(_OPS)


def clean(error: BaseException | None, seen: frozenset[int] = frozenset()) -> None:
    """Take our frames, and those torch adds while a function mode is active, off an exception and its causes."""
    if error is None or id(error) in seen:
        return
    error.__traceback__ = _cleaned(error.__traceback__)
    seen |= {id(error)}
    for other in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())):
        clean(other, seen)


def _cleaned(trace: TracebackType | None) -> TracebackType | None:
    kept: list[TracebackType] = []
    while trace is not None:
        if _is_detour(trace.tb_frame):
            kept = kept[:-1]  # the function was entered, and went to the mode; it is called once more below
        elif not own(trace.tb_frame.f_code.co_filename):
            kept.append(trace)
        trace = trace.tb_next
    for item, following in zip_longest(kept, kept[1:]):
        item.tb_next = following
    return kept[0] if kept else None


def _is_detour(frame: FrameType) -> bool:
    """``handle_torch_function``: it asks the mode instead of running the function."""
    code = frame.f_code
    file = code.co_filename
    return code.co_name == "handle_torch_function" and (file.endswith(_OVERRIDES) or own(file))


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """Keep warnings at the lines they would name without us, and our frames out of tracebacks made into text."""
    give, describe = warnings.warn, traceback.TracebackException.__init__

    @functools.wraps(give)
    def warn(
        message: Any, category: Any = None, stacklevel: int = 1, source: Any = None, **options: Any
    ) -> None:
        level = _real_level(sys._getframe(1), stacklevel) + 1
        give(message, category, level, source, **options)

    @functools.wraps(describe)
    def init(self: Any, exc_type: Any, exc_value: Any, exc_traceback: Any, **options: Any) -> None:
        if exc_value is not None and exc_value.__traceback__ is exc_traceback:
            clean(exc_value)
            exc_traceback = exc_value.__traceback__
        describe(self, exc_type, exc_value, exc_traceback, **options)

    # TorchScript translates warnings.warn, which it knows by identity: functions of torch.nn.functional call it.
    builtins: dict[int, str] = torch.jit._builtins._get_builtin_table()  # type: ignore[no-untyped-call]
    builtins[id(warn)] = "aten::warn"
    warnings.warn = warn
    traceback.TracebackException.__init__ = init  # type: ignore[method-assign]
    try:
        with _moved_warnings():
            yield
    finally:
        warnings.warn, traceback.TracebackException.__init__ = give, describe  # type: ignore[method-assign]
        del builtins[id(warn)]


def _real_level(frame: FrameType | None, level: int) -> int:
    """The stack level that reaches the frame which ``level`` would reach without us."""
    real = 1
    while level > 1 and frame is not None:
        frame, real = _outward(frame), real + 1
        if frame is not None and _is_detour(frame):
            frame, real = _outward(frame), real + 1  # the same function as below the detour
        elif frame is not None and not own(frame.f_code.co_filename):
            level -= 1
    return real


def _outward(frame: FrameType) -> FrameType | None:
    """The caller; warnings count no frames of the import system."""
    back = frame.f_back
    while back is not None and all(part in back.f_code.co_filename for part in ("importlib", "_bootstrap")):
        back = back.f_back
    return back


@contextlib.contextmanager
def _moved_warnings() -> Iterator[None]:
    """Have each warning that C code gives in one of our frames judged and shown at the line that called it."""
    original = _warnings._showwarnmsg

    def show(message: Any) -> None:
        frame = _giver(message) if own(message.filename) else None
        if frame is None:
            original(message)
        elif not _muted:
            names = frame.f_globals
            warnings.warn_explicit(
                message.message,
                message.category,
                frame.f_code.co_filename,
                frame.f_lineno,
                module=names.get("__name__", "<unknown>"),
                registry=names.setdefault("__warningregistry__", {}),
                source=message.source,
            )

    _warnings._showwarnmsg = show
    # Which are shown, and how often, is decided at the line they are moved to: here all are let by.
    for name, module in list(sys.modules.items()):
        if name.startswith(__package__ + "."):
            module.__dict__["__warningregistry__"] = None
    warnings.filterwarnings("always", module=__package__.replace(".", r"\.") + r"\.")
    ours = warnings.filters[0]
    try:
        yield
    finally:
        _warnings._showwarnmsg = original
        with contextlib.suppress(ValueError):  # the script may have reset the filters
            warnings.filters.remove(ours)  # type: ignore[attr-defined]
        _warnings._filters_mutated()


def _giver(message: Any) -> FrameType | None:
    """The frame that would have been named without us."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (frame.f_code.co_filename, frame.f_lineno) != (
        message.filename,
        message.lineno,
    ):
        frame = frame.f_back
    while frame is not None and (own(frame.f_code.co_filename) or _is_detour(frame)):
        # Above the detour stands the same function as below it.
        frame = frame.f_back.f_back if _is_detour(frame) and frame.f_back else frame.f_back
    return frame


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """No warnings from our own looking and repeating."""
    global _muted  # noqa: PLW0603 - as warnings are the process's
    before, _muted = _muted, True
    try:
        yield
    finally:
        _muted = before
