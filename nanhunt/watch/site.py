"""Where in the user's code an operation was called: found cheaply, turned into words only when asked."""

from __future__ import annotations

import contextlib
import functools
import linecache
import os
import sys
import sysconfig
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType

import torch

_PACKAGES = (os.path.dirname(torch.__file__), os.path.dirname(os.path.dirname(__file__)))  # noqa: PTH120
_FOREIGN_FILES = {contextlib.__file__, functools.__file__}


@dataclass(frozen=True)
class Site:
    """One place in a source file."""

    file: str
    """As Python knows it, made relative to the working directory where it lies below it."""
    line: int
    function: str
    """Qualified name; "<module>" at the top of a script."""
    source: str
    """The line's text, stripped; "" where the file cannot be read (standard input, exec)."""
    column: int = field(default=0, compare=False)
    """Where the call begins in the line, in characters from 1; 0 where that is not known."""
    end_column: int = field(default=0, compare=False)
    """Behind its last character; 0 where it ends on another line."""

    @property
    def short(self) -> str:
        """``train.py:41``."""
        return f"{self.file}:{self.line}"


class _Foreign(dict[str, bool]):
    """Whether a file belongs to torch, nanhunt or a standard wrapper. A dict, since it is asked per operation."""

    def __missing__(self, file: str) -> bool:
        inside = any(file.startswith(package + os.sep) for package in _PACKAGES)
        self[file] = found = inside or file in _FOREIGN_FILES or file.startswith("<frozen")
        return found


foreign = _Foreign()


class _Installed(dict[str, bool]):
    """Whether a file belongs to an installed package or to Python: right lines, but not ones the user can edit."""

    def __missing__(self, file: str) -> bool:
        folders = [
            folder + os.sep for folder in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
        ]
        inside = any(part in file for part in ("site-packages", "dist-packages")) or file.startswith(
            tuple(folders)
        )
        self[file] = found = inside or foreign[file]
        return found


installed = _Installed()
OWN, INSTALLED, FOREIGN = range(3)


class _Places(dict[str, int]):
    """Whose a file is: the user's OWN, of an INSTALLED package, or FOREIGN. A dict, since it is asked per call."""

    def __missing__(self, file: str) -> int:
        self[file] = found = FOREIGN if foreign[file] else INSTALLED if installed[file] else OWN
        return found


places = _Places()
Line = tuple[CodeType, int]
"""A place that runs: its code and the instruction, turned into a ``Site`` only when it is asked for."""


def own_line(frame: FrameType | None, at_module: Line | None, module_call: str) -> Line | None:
    """The innermost line from ``frame`` outwards that the user can edit.

    The walk ends at the call of a module (a frame of the file ``module_call``): ``at_module`` is the line for that.
    """
    while frame is not None and installed[file := frame.f_code.co_filename]:
        if file == module_call and at_module is not None:
            return at_module
        frame = frame.f_back
    return (frame.f_code, frame.f_lasti) if frame is not None else None


def caller(frame: FrameType | None) -> tuple[CodeType, int]:
    """(code, last instruction) of the innermost frame, from ``frame`` outwards, that is the user's.

    No traceback object, no line number, no string: those are worked out by ``resolve`` when they are needed.
    """
    start = frame
    while frame is not None and foreign[frame.f_code.co_filename]:
        frame = frame.f_back
    found = frame or start
    assert found is not None
    return found.f_code, found.f_lasti


def user_frame() -> FrameType | None:
    """The innermost frame of the user's code on this thread, with its variables; None outside of any."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and foreign[frame.f_code.co_filename]:
        frame = frame.f_back
    return frame


def resolve(code: CodeType, instruction: int) -> Site:
    """The line of an instruction offset, as a Site."""
    nowhere = (None, None, None, None)
    start, end, column, end_column = next(
        islice(code.co_positions(), max(instruction, 0) // 2, None), nowhere
    )
    line = start or code.co_firstlineno
    source = linecache.getline(code.co_filename, line)
    return Site(
        file=_relative(code.co_filename),
        line=line,
        function=code.co_qualname,
        source=source.strip(),
        column=_characters(source, column) + 1 if column is not None else 0,
        end_column=_characters(source, end_column) + 1 if end_column is not None and end == start else 0,
    )


def _characters(line: str, offset: int) -> int:
    """A place in a line that Python counts in bytes of UTF-8."""
    return len(line.encode()[:offset].decode(errors="replace")) if line else offset


def _relative(file: str) -> str:
    with contextlib.suppress(ValueError, OSError):
        return str(Path(file).resolve().relative_to(Path.cwd()))
    return file
