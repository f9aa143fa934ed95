"""The first line of the user's own file whose result is not finite, forward or backward."""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import nanhunt
from nanhunt.operations.trace import Watcher, backward, first_bad

_LIBRARIES = tuple(str(Path(module.__file__ or "").parent) for module in (torch, nanhunt))


@dataclass(frozen=True)
class Line:
    """Where in the user's code a number went bad, and how."""

    file: str
    """Name of the file without its folder."""
    number: int
    source: str
    """The line, stripped; "" where the source is not at hand."""
    what: str
    """E.g. "exp(100) = inf"."""
    backward: bool

    def __str__(self) -> str:
        where = f"{self.file}:{self.number}" + (f" `{self.source}`" if self.source else "")
        return f"{where}: {self.what}{' in its backward pass' if self.backward else ''}"


def first_bad_line(run: Callable[[], torch.Tensor], upstream: float = 1.0) -> Line | None:
    """Runs it forward, and backward from the sum of its result times ``upstream``; None where nothing goes bad."""
    found: list[Line] = []
    # Under anomaly detection the graph's nodes know their lines.
    with (
        torch.autograd.set_detect_anomaly(True, check_nan=False),
        Watcher(lambda what: found.append(_here(what))),
    ):
        value = run()
    if found or not value.requires_grad:
        return found[0] if found else None
    lines: list[Line] = []
    handles = [node.register_hook(_checker(node, lines)) for node in _nodes(value.grad_fn)]
    backward(value, upstream)
    for handle in handles:
        handle.remove()
    if not lines:
        return None
    first = first_bad(run, upstream)
    return replace(lines[0], what=first.text) if first else lines[0]


def _here(what: str) -> Line:
    """The innermost line outside of the libraries."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        frame = frame.f_back
    return _line(frame.f_code.co_filename, frame.f_lineno, what, backward=False)


def _line(file: str, number: int, what: str, *, backward: bool) -> Line:
    return Line(Path(file).name, number, linecache.getline(file, number).strip(), what, backward)


def _nodes(root: Any) -> Iterator[Any]:
    """All nodes of the graph that have a line."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if "traceback_" in node.metadata:
            yield node
        waiting += [each for each, _ in node.next_functions]


def _checker(node: Any, lines: list[Line]) -> Callable[[Any, Any], None]:
    def check(made: Sequence[Any], given: Sequence[Any]) -> None:
        if not lines and _is_bad(made) and not _is_bad(given):
            name = type(node).__name__.removesuffix("0").removesuffix("Backward").lower()
            for file, number in reversed(_frames(node)):
                if not file.startswith(_LIBRARIES):
                    lines.append(_line(file, number, f"{name} makes NaN or infinity", backward=True))
                    return

    return check


def _frames(node: Any) -> list[tuple[str, int]]:
    text = "".join(node.metadata["traceback_"])
    return [
        (file, int(number)) for file, number in re.findall(r'^ *File "(.*)", line ([0-9]+), in', text, re.M)
    ]


def _is_bad(gradients: Sequence[Any]) -> bool:
    return any(isinstance(each, torch.Tensor) and not bool(each.isfinite().all()) for each in gradients)
