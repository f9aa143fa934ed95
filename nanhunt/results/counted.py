"""Tensors without a finding, of which a report keeps only counts."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nanhunt.results.codec import encode
from nanhunt.results.order import file_key, natural_key
from nanhunt.results.tensor import TensorReport


@dataclass(frozen=True)
class Healthy:
    """Judgements without a finding, counted by file: alike in everything but their names and numbers."""

    operation: str
    stored_dtype: str
    dtype: str
    options: Mapping[str, Any]
    notes: tuple[str, ...]
    files: Mapping[str, int]
    """Healthy tensors by file, files in natural order."""
    origin: str = ""
    """As in ``TensorReport``."""


@dataclass(frozen=True)
class Cell:
    """What is known of tensors without a finding that stand at one place of a run and are only counted."""

    at: Mapping[str, int | str]
    """Those of their coordinates that ``IN_CELLS`` names."""
    stored_dtype: str
    dtype: str
    tensors: int
    largest: float | None
    """The largest finite magnitude; None if it was not counted."""
    largest_of: str
    """The tensor that has it."""
    zeros: int
    values: int
    role: str = "values"
    """As in ``TensorReport``: what its largest magnitude must not exceed depends on it."""
    origin: str = ""
    """As in ``TensorReport``."""
    bits: int | None = None
    """As in ``Health``, of all its tensors; None if it is not known of every one."""


IN_CELLS = ("run", "path", "step", "epoch", "rank", "dp", "tp", "pp", "ep", "layer", "phase")


def cells_of(tensors: Iterable[TensorReport]) -> Iterable[Cell]:
    """Each of these tensors as a cell of its own, if it is part of a run."""
    return (_cell(tensor) for tensor in tensors if "run" in tensor.coordinates)


def _cell(tensor: TensorReport) -> Cell:
    at = {name: tensor.coordinates[name] for name in IN_CELLS if name in tensor.coordinates}
    health = tensor.health
    ends = [abs(end) for end in (health.min, health.max) if end is not None]
    return Cell(
        at, tensor.stored_dtype, tensor.dtype, 1, max(ends, default=None), tensor.tensor or tensor.file,
        health.zero or 0, math.prod(tensor.shape), tensor.role, tensor.origin, health.bits,
    )  # fmt: skip


def added(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """One cell for each place, in one total order."""
    found: dict[tuple[Any, ...], Cell] = {}
    for cell in cells:
        key = (
            cell.origin,
            cell.role,
            cell.stored_dtype,
            cell.dtype,
            *(cell.at.get(name) for name in IN_CELLS),
        )
        found[key] = _sum(found[key], cell) if key in found else cell
    return tuple(found[key] for key in sorted(found, key=_cell_key))


def _cell_key(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((part is None, part if isinstance(part, int) else natural_key(str(part))) for part in key)


def _sum(one: Cell, other: Cell) -> Cell:
    # Of equals the one with the smaller name, so that adding is order-free.
    first, second = sorted((one, other), key=lambda cell: (-(cell.largest or 0), cell.largest_of))
    return dataclasses.replace(
        first,
        largest=second.largest if first.largest is None else first.largest,
        tensors=one.tensors + other.tensors,
        zeros=one.zeros + other.zeros,
        values=one.values + other.values,
        bits=bits_of(one, other),
    )


def bits_of(*cells: Cell) -> int | None:
    """Of all of them: 32-bit words add up in any order."""
    known = [cell.bits for cell in cells if cell.bits is not None]
    return sum(known) % 2**32 if len(known) == len(cells) else None


def counted(tensor: TensorReport) -> Healthy:
    """A group of this one tensor."""
    return Healthy(
        tensor.operation, tensor.stored_dtype, tensor.dtype, tensor.options, tensor.notes, {tensor.file: 1},
        tensor.origin,
    )  # fmt: skip


def together(groups: Iterable[Healthy]) -> tuple[Healthy, ...]:
    """One group for all that are alike, in one total order."""
    texts: dict[int, str] = {}  # thousands of tensors share one mapping of options
    found: dict[tuple[str, ...], tuple[Healthy, Counter[str]]] = {}
    for group in groups:
        options = texts.get(id(group.options))
        if options is None:
            options = texts[id(group.options)] = json.dumps(encode(group.options), sort_keys=True)
        key = (group.origin, group.operation, group.stored_dtype, group.dtype, options, *group.notes)
        found.setdefault(key, (group, Counter()))[1].update(group.files)
    return tuple(
        dataclasses.replace(group, files={file: files[file] for file in sorted(files, key=file_key)})
        for _, (group, files) in sorted(found.items(), key=lambda item: item[0])
    )
