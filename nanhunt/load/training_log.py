"""What a trainer wrote down itself beside its checkpoints: losses and norms by step."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanhunt.errors import NanhuntError
from nanhunt.load.listing import text
from nanhunt.load.tree import coordinates
from nanhunt.results.report import Logged

NAME = "trainer_state.json"
"""As transformers' Trainer calls it."""
_NAMES = ("loss", "grad_norm")
_DAMAGED = (NanhuntError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
_BEFORE = 2
"""Entries kept before the first that is not finite, or before the last."""


@dataclass(frozen=True)
class TrainingLog:
    """What the logs beside some checkpoints say."""

    lines: tuple[Logged, ...]
    """Up to the first number that is not finite, of each run; none where nothing was logged."""
    files: frozenset[str]
    """Those that this is all of: every log goes on from the ones before it."""


def read_log(files: Iterable[str], layout: str | None = None) -> TrainingLog:
    """Of the trainer_state.json files (transformers' Trainer) among ``files``, the newest of each run.

    One that is damaged says nothing: it is no tensor file.
    """
    runs: dict[str, list[tuple[int, str]]] = {}
    for file in files:
        if Path(file).name == NAME:
            at = coordinates(file, "", layout)
            runs.setdefault(str(at.get("run", "")), []).append((int(at.get("step", 0)), file))
    lines: list[Logged] = []
    read: set[str] = set()
    for run, logs in sorted(runs.items()):
        _, newest = max(logs)
        with contextlib.suppress(*_DAMAGED):
            state = json.loads(text(newest))
            entries = [entry for entry in state["log_history"] if isinstance(entry.get("step"), int)]
            lines += (each for name in _NAMES for each in _series(run, newest, name, entries))
            read |= {file for _, file in logs}
    return TrainingLog(tuple(lines), frozenset(read))


def _series(run: str, file: str, name: str, entries: list[Mapping[str, Any]]) -> Iterator[Logged]:
    told = [
        (entry["step"], float(entry[name])) for entry in entries if isinstance(entry.get(name), int | float)
    ]
    if told:
        last = next((at for at, (_, value) in enumerate(told) if not math.isfinite(value)), len(told) - 1)
        kept = told[max(0, last - _BEFORE) : last + 1]
        yield Logged(run, file, name, tuple(step for step, _ in kept), tuple(value for _, value in kept))
