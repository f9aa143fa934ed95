"""Checkpoints on disk: bad ones are marked, and rotation keeps the last good one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from nanhunt.load.checkpoints import MARK, Checkpoint, checkpoints
from nanhunt.scan.last_good import last_good


def mark(path: str | os.PathLike[str], why: str) -> Path:
    """Writes why a checkpoint is bad into its folder (or beside its file); ``nanhunt last-good`` passes it over.

    Returns the path of the mark. Raises OSError where it cannot be written.
    """
    place = Path(path)
    file = place / MARK if place.is_dir() else place.with_name(f"{place.name}.{MARK}")
    file.write_text(f"{why}\n", encoding="utf-8")
    return file


def rotate(run: str | os.PathLike[str], keep: int, layout: str | None = None) -> list[str]:
    """Deletes the oldest checkpoints but for ``keep``, and never the newest that is whole and finite.

    Returns what was deleted. In a distributed run one process calls it, when all have saved.
    ``layout``: how checkpoints are called, where that cannot be known, as in --layout.
    Raises ValueError for a ``keep`` below 1, NanhuntError for what is no run, OSError where deleting fails.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: at least one checkpoint is kept")
    series = checkpoints(os.fspath(run), layout)
    old = series[:-keep]
    if not old:
        return []
    good = last_good(series).checkpoint
    return [path for each in old if each != good for path in _deleted(each)]


def _deleted(checkpoint: Checkpoint) -> list[str]:
    for path in checkpoint.paths:
        if Path(path).is_dir():
            shutil.rmtree(path)
        else:
            Path(path).unlink()
            Path(f"{path}.{MARK}").unlink(missing_ok=True)
    return list(checkpoint.paths)
