"""The first line of the user's own file whose result is not finite, forward or backward."""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import nanhunt
from nanhunt.operations.trace import explained, first_bad

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
    watcher = _Watcher()
    with torch.autograd.set_detect_anomaly(True, check_nan=False), watcher:  # nodes then know their lines
        value = run()
    if watcher.found is not None or not value.requires_grad:
        return watcher.found
    lines: list[Line] = []
    handles = [node.register_hook(_checker(node, lines)) for node in _nodes(value.grad_fn)]
    (value * torch.tensor(upstream, dtype=torch.float64).to(value.dtype)).sum().backward()  # type: ignore[no-untyped-call]
    for handle in handles:
        handle.remove()
    found = first_bad(run, upstream)
    if not lines:
        return None
    return Line(lines[0].file, lines[0].number, lines[0].source, found.text if found else lines[0].what, True)


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Looks at every operation, and at the line of the user's that called it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Line | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.found is None:
            text = explained(func.overloadpacket.__name__, args, result)
            if text:
                self.found = _here(text)
        return result


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
