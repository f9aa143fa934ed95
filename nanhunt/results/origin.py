"""Reports of several jobs that use the same file names: which job a tensor comes from is said, so none are mixed up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from nanhunt.results.counted import Cell, Healthy
from nanhunt.results.report import Logged, ReadError, Report
from nanhunt.results.tensor import TensorReport

Item = TypeVar("Item", TensorReport, ReadError, Healthy, Cell, Logged)


def kept_apart(reports: Mapping[str, Report]) -> list[Report]:
    """``reports`` by the name each was saved under: files that several of them judged in one dtype get its name.

    A matrix of jobs by dtype judges the same files in different dtypes: these stay together.
    """
    seen = Counter(key for report in reports.values() for key in set(_judged(report)))
    shared = {file for (file, _), times in seen.items() if times > 1}
    return (
        [_labelled(report, name, shared) for name, report in reports.items()]
        if shared
        else [*reports.values()]
    )


def _judged(report: Report) -> Iterator[tuple[str, str]]:
    yield from ((tensor.file, tensor.dtype) for tensor in report.tensors)
    yield from ((file, group.dtype) for group in report.healthy for file in group.files)
    yield from ((error.file, "") for error in report.errors)


def _labelled(report: Report, name: str, shared: set[str]) -> Report:
    return replace(
        report,
        tensors=tuple(_named(each, name) if each.file in shared else each for each in report.tensors),
        errors=tuple(_named(each, name) if each.file in shared else each for each in report.errors),
        healthy=tuple(part for group in report.healthy for part in _parted(group, name, shared)),
        cells=tuple(_named(cell, name) if _holds(_place(cell), shared) else cell for cell in report.cells),
        logged=tuple(_named(each, name) if _holds(each.run, shared) else each for each in report.logged),
    )


def _place(cell: Cell) -> str:
    return str(cell.at.get("path", cell.at.get("run", "")))


def _holds(place: str, files: set[str]) -> bool:
    """Whether one of the files lies there."""
    return any(file.startswith(place) for file in files)


def _parted(group: Healthy, name: str, shared: set[str]) -> Iterator[Healthy]:
    """The files that only one report has, and those that get its name."""
    others = {file: number for file, number in group.files.items() if file not in shared}
    named = {file: number for file, number in group.files.items() if file in shared}
    if others:
        yield replace(group, files=others)
    if named:
        yield _named(replace(group, files=named), name)


def _named(item: Item, name: str) -> Item:
    """From the report ``name``; what that report says of an origin is kept."""
    return replace(item, origin=f"{name}: {item.origin}" if item.origin else name)
