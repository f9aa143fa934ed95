"""What a trainer wrote down itself beside its checkpoints: losses and norms by step."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nanhunt.errors import NanhuntError
from nanhunt.load.listing import text
from nanhunt.load.tree import coordinates
from nanhunt.results.report import Logged

NAME = "trainer_state.json"
"""As transformers' Trainer calls it."""
_NAMES = ("loss", "grad_norm")
_BEFORE = 2
"""Entries kept before the first that is not finite, or before the last."""


def logged(files: Iterable[str], layout: str | None = None) -> Iterator[Logged]:
    """Of the trainer_state.json files (transformers' Trainer) among ``files``, the newest of each run.

    Every one holds the log from the beginning on. One that is damaged says nothing: it is no tensor file.
    """
    newest: dict[str, tuple[int, str]] = {}
    for file in files:
        if Path(file).name == NAME:
            at = coordinates(file, "", layout)
            run, step = str(at.get("run", "")), int(at.get("step", 0))
            newest[run] = max(newest.get(run, (-1, "")), (step, file))
    for run, (_, file) in sorted(newest.items()):
        try:
            state = json.loads(text(file))
            entries = [entry for entry in state["log_history"] if isinstance(entry.get("step"), int)]
        except (NanhuntError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        yield from (each for name in _NAMES for each in _series(run, file, name, entries))


def _series(run: str, file: str, name: str, entries: list[Mapping[str, Any]]) -> Iterator[Logged]:
    told = [
        (entry["step"], float(entry[name])) for entry in entries if isinstance(entry.get(name), int | float)
    ]
    if told:
        last = next((at for at, (_, value) in enumerate(told) if not math.isfinite(value)), len(told) - 1)
        kept = told[max(0, last - _BEFORE) : last + 1]
        yield Logged(run, file, name, tuple(step for step, _ in kept), tuple(value for _, value in kept))
