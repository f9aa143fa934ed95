"""The checkpoints of a run, told by the names of files and folders alone: nothing is opened here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nanhunt.errors import NanhuntError
from nanhunt.load.listing import (
    bytes_at,
    entries,
    exists,
    files_below,
    inside,
    is_folder,
    is_url,
    look_anew,
    text,
)
from nanhunt.load.source import cannot_read
from nanhunt.load.tree import RANKS, Coordinates, coordinates, fits_layout
from nanhunt.load.wording import listed, printable
from nanhunt.results.order import natural_key

MARK = "NANHUNT_BAD"
"""A file of that name in a checkpoint, or beside one that is a file, says why it is not to be used."""


_PASS = re.compile(r"(?:^|/)Pass\d+\.pt$")
"""A forward pass, as SGLang's hooks dump the outputs of all modules."""


@dataclass(frozen=True)
class Checkpoint:
    """What was saved of one run at one step."""

    step: int
    """Or epoch, in runs that count nothing else."""
    paths: tuple[str, ...]
    """Its folder or file; one a rank where every rank has a folder of its own around its steps."""

    @cached_property
    def names(self) -> Mapping[str, int]:
        """Its files, hidden ones too, by path inside of it: their sizes in bytes."""
        found = {}
        for path in self.paths:
            for file, size in files_below(path):
                name = os.path.relpath(file, path) if file != path else ""
                if name != MARK:  # no other one need have it
                    found[name] = bytes_at(file) or 0 if size is None else size
        return found

    @cached_property
    def without_step(self) -> Mapping[str, str]:
        """Its files, and how they would be called if "#" were its step; "2" is the number of a rank as well."""
        step = re.compile(rf"(?<![0-9])0*{self.step}(?![0-9])")
        return {name: step.sub("#", name) for name in self.names}

    @property
    def marked(self) -> str:
        """Why somebody marked it as bad; "" where nobody did."""
        for path in self.paths:
            mark = inside(path, MARK) if is_folder(path) else f"{path}.{MARK}"
            if exists(mark):
                return text(mark).strip()
        return ""

    @property
    def is_dump(self) -> bool:
        """Whether it is a dump of what modules computed: files called after sides or calls, none of a model."""
        files = [file for path in self.paths for file, _ in files_below(path) if not _is_beside(file)]
        told = [coordinates(file, "") for file in files]
        calls = any({"side", "order"} & at.keys() for at in told) or all(map(_PASS.search, files))
        return calls and not any(at.get("phase") in ("model", "optimizer") for at in told)


def checkpoints(run: str, layout: str | None = None) -> list[Checkpoint]:
    """Those under a folder, oldest first: files and folders that are called after a step or an epoch.

    Where several runs lie in it, the outermost is meant. Raises NanhuntError for what is no folder, and where
    several runs lie side by side.
    """
    look_anew(run)
    if not is_folder(run):
        if not exists(run):
            raise cannot_read(run, FileNotFoundError(2, ""))
        raise NanhuntError(f"{printable(run)} is no folder.", "Name the folder that holds the checkpoints.")
    found: dict[str, dict[tuple[int, str], list[str]]] = {}
    for path, at in _places(run, run, layout):
        ranked = bool(at.keys() & set(RANKS))
        step = int(at.get("step", at.get("epoch", 0)))
        paths = found.setdefault(str(at["run"]), {}).setdefault((step, "" if ranked else path), [])
        paths += [] if path in paths else [path]
    if not found:
        return []
    series = found[_outermost(run, found)].items()
    ordered = sorted(series, key=lambda item: (item[0][0], natural_key(item[0][1])))
    return [Checkpoint(step, tuple(sorted(paths, key=natural_key))) for (step, _), paths in ordered]


def _outermost(run: str, names: Iterable[str]) -> str:
    depths: dict[int, list[str]] = {}
    for name in names:
        depths.setdefault(len(Path(name).parts), []).append(name)
    first = sorted(depths[min(depths)], key=natural_key)
    if len(first) > 1:
        raise NanhuntError(
            f"{printable(run)} holds several runs: {listed(map(printable, first))}.", "Name one of them."
        )
    return first[0]


def _places(run: str, folder: str, layout: str | None) -> Iterator[tuple[str, Coordinates]]:
    """Paths called after a step, in natural order, with what they say; what lies inside of them is theirs.

    Folders around the run are called as people like: only what is named inside of it counts.
    """
    try:
        shown = [entry for entry in entries(folder) if not entry.name.startswith(".")]
    except OSError as error:
        raise cannot_read(folder, error) from None
    for entry in shown:
        told = layout is not None and fits_layout(entry.path, layout)
        at = (
            coordinates(entry.path, "", layout) if told else coordinates(os.path.relpath(entry.path, run), "")
        )
        if told and "path" in at:
            yield str(at["path"]), at
        elif "path" in at and layout is None and (entry.is_folder or not _is_beside(entry.name)):
            yield entry.path if is_url(run) else os.path.normpath(entry.path), at
        elif entry.is_folder:
            yield from _places(run, entry.path, layout)


def _is_beside(name: str) -> bool:
    """Whether a file called after a step holds no tensors by its name: a log, an event file, a page."""
    return name.endswith(MARK) or Path(name).suffix.lower() in (
        ".json",
        ".jsonl",
        ".log",
        ".txt",
        ".yaml",
        ".yml",
        ".md",
        ".png",
        ".csv",
        ".html",
    )


# ---------------------------------------------------------------------------------------------- whole or not


def missing(checkpoint: Checkpoint, others: Iterable[Checkpoint]) -> str:
    """Why the names of its files say that it is not whole, in words; "" where they do not.

    It must have every file that all the others have, and every rank between those it has.
    """
    if checkpoint.marked:
        return f"marked as bad: {checkpoint.marked}"
    names = checkpoint.names
    lost = sorted(_lost(checkpoint, list(others)), key=natural_key)
    if lost:
        return f"{listed(map(printable, lost))} {'is' if len(lost) == 1 else 'are'} missing, and every other one has it"
    empty = [
        name
        for name, size in names.items()
        if not size and Path(name).suffix in (".json", ".pt", ".pth", ".bin")
    ]
    if empty:
        return f"{printable(min(empty, key=natural_key))} is empty"
    return next(_gaps(names), "")


def _lost(checkpoint: Checkpoint, others: Sequence[Checkpoint]) -> set[str]:
    """Files that all the others have, under one name or under one with their step in it, and this one has not."""
    if not others:
        return set()
    named = set.intersection(*(set(other.names) for other in others))
    numbered = set.intersection(
        *({after for name, after in each.without_step.items() if name not in named} for each in others)
    )
    own = set(checkpoint.without_step.values())
    lost = named - checkpoint.names.keys()
    return (numbered - own) | {
        name for name in lost if any(other.without_step[name] not in own for other in others)
    }


_RANK = re.compile(
    r"(?<=zero_pp_rank_)[0-9]+|(?<=mp_rank_)[0-9]+(?:_[0-9]{3})*|(?<=(?<!pp_)(?<!mp_)rank_)[0-9]+|(?<=rng_state_)[0-9]+"
)
_WORLD = re.compile(r"world_size_([0-9]+)")


def _gaps(names: Iterable[str]) -> Iterator[str]:
    """Files alike but for ranks: every combination of what is counted has to be there, from 0 on."""
    alike: dict[str, list[tuple[int, ...]]] = {}
    for name in names:
        numbers = tuple(int(part) for text in _RANK.findall(name) for part in text.split("_"))
        if numbers:
            alike.setdefault(_RANK.sub("#", name), []).append(numbers)
    for name, ranks in sorted(alike.items()):
        world = _WORLD.search(name)
        sizes = [max(column) + 1 for column in zip(*ranks, strict=False)]
        if world and len(sizes) == 1:
            sizes = [max(int(world[1]), sizes[0])]
        expected = 1
        for size in sizes:
            expected *= size
        if len(set(ranks)) < expected:
            yield f"only {len(set(ranks))} of {expected} ranks are there ({printable(name)})"
