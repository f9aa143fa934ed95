"""Distributed training: which rank went bad by its own fault, and which were only handed the bad gradients.

Ranks tell each other by files: those with a fault of their own by their captures, the others by a mark in the folder
that nanhunt's processes share. Nobody asks by a collective: the script's own may be waiting.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import multiprocessing
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from .family import VARIABLE, is_own
from .incident import FoundBy, Incident

PATIENCE = 5.0
"""Seconds a rank without a fault of its own waits for the capture of the one that has: to explain a step takes time."""
LINGER = 1.0
"""Seconds it waits at its end: when one rank has ended, torch.distributed.run ends the others, told or not."""
HEARING = 0.5
"""Seconds a rank with a fault waits for the others to say that they are sound; below LINGER."""
_STOPPED = (
    "this rank stopped before the all-reduce: closed connections and timeouts of the others follow from it"
)


def world_size() -> int:
    """How many ranks there are, as torch.distributed.run tells each of them."""
    size = os.environ.get("WORLD_SIZE", "1")
    return int(size) if size.isdigit() else 1


def notes(folder: Path, since: float, incident: Incident) -> tuple[str, ...]:
    """Which rank was first, and that the others were sound where they have said so; () outside of a rank.

    ``folder`` is that of the captures, ``since`` the start of this process in seconds since the epoch.
    """
    if incident.rank is None or world_size() == 1:
        return ()
    handed = incident.found_by is FoundBy.REDUCED
    if handed:
        _mark(_shared(folder), incident)
    first = _first(folder, since, 0.0 if incident.culprits else PATIENCE)
    told = (f"rank {first[1]} was the first to go bad, at step {first[0]}",) if first else ()
    if handed:
        if told:
            _linger_at_the_end()
        return told
    if not incident.bad_gradients:
        return (*told, _STOPPED)
    sound = _sound(_shared(folder), since, incident)
    for rank in sound:
        _unmark(_shared(folder), incident.step, rank)
    return told + ((_spread(sound),) if sound else ())


def _linger_at_the_end() -> None:
    """When what this rank has to say is said, it ends after the guilty one, whom its end would end too."""
    if multiprocessing.parent_process() is not None:  # ends without atexit
        _linger()
        return
    atexit.unregister(_linger)
    atexit.register(_linger)


def _linger() -> None:
    time.sleep(LINGER)


def _mark(folder: Path, incident: Incident) -> None:
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"step-{incident.step}-rank-{incident.rank}.sound").touch()


def _unmark(folder: Path, step: int, rank: int) -> None:
    """It was heard: captures alone stay with the user."""
    with contextlib.suppress(OSError):
        (folder / f"step-{step}-rank-{rank}.sound").unlink()


def _shared(captures: Path) -> Path:
    """Where marks go: the folder of nanhunt's processes, or beside the captures if each rank runs a nanhunt itself."""
    folder = Path(os.environ.get(VARIABLE, os.devnull))
    return folder if folder.is_dir() and not is_own(folder) else captures


def _sound(folder: Path, since: float, incident: Incident) -> Sequence[int]:
    """The ranks that repeated this step alone and found it finite, once all others have said so or time is up."""
    deadline, found = time.monotonic() + HEARING, list[int]()
    while len(found) < world_size() - 1 and time.monotonic() < deadline:
        time.sleep(0.02)
        fresh = [
            file for file in folder.glob(f"step-{incident.step}-rank-*.sound") if _written(file) >= since
        ]
        found = sorted(int(file.stem.rpartition("-")[2]) for file in fresh)
    return found


def _written(file: Path) -> float:
    """When, in seconds since the epoch; long ago where it has gone meanwhile."""
    try:
        return file.stat().st_mtime
    except OSError:
        return -math.inf


def _spread(ranks: Sequence[int]) -> str:
    named = ", ".join(map(str, ranks))
    several = f"ranks {named} were" if len(ranks) > 1 else f"rank {named} was"
    return (
        f"{several} finite before the all-reduce (each has repeated the step alone): the gradients of all ranks "
        "went bad through this one's data"
    )


def _first(folder: Path, since: float, patience: float) -> tuple[int, int] | None:
    """(step, rank) of the first that went bad in this run, by the captures in the folder.

    A rank that was only handed the bad gradients of another writes no capture; it waits ``patience`` seconds for the
    other's. None when nobody has written one.
    """
    deadline = time.monotonic() + patience
    found = _captures(folder, since)
    while not found and time.monotonic() < deadline:
        time.sleep(0.05)
        found = _captures(folder, since)
    step, _, rank = min(found, default=(None, 0.0, 0))
    return (step, rank) if step is not None else None


def _captures(folder: Path, since: float) -> list[tuple[int, float, int]]:
    """(step, time, rank) of each capture written since."""
    found = []
    for file in folder.glob("step-*-rank-*.pt"):
        numbers = re.fullmatch(r"step-(\d+)-rank-(\d+)\.pt", file.name)
        if numbers and file.stat().st_mtime >= since:
            found.append((int(numbers[1]), file.stat().st_mtime, int(numbers[2])))
    return found
