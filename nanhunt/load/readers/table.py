""".csv, .tsv and what numpy.savetxt writes: tables of numbers as text.

Without a header the whole table is one tensor. With one, numbered columns (logit_0, logit_1, ...) or columns called by
numbers alone make a tensor, every other column is one of its own, and columns of text are left out. Empty cells are no
numbers: the others are checked, no more.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from nanhunt.errors import NanhuntError
from nanhunt.load.arrays import spooled_values
from nanhunt.load.container import Container
from nanhunt.load.reader import FileReader, Reading
from nanhunt.load.source import HEAD, Source
from nanhunt.load.tensor import Tensor
from nanhunt.load.wording import printable

_DELIMITERS = (",", "\t", ";", " ")
_LONGEST_LINE = 1 << 26
"""Characters; a row of a million numbers has a third of that."""
_CELLS_AT_ONCE = 1 << 18
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")
_EMPTY = np.uint64(0x7FF00000000007A2)
"""A NaN that no text gives (R's NA): marks cells without a number."""
_NOTE = "text does not say its number format: float64, or what --dtype says"


@dataclass(frozen=True)
class _Form:
    """How a table is written."""

    delimiter: str
    header: tuple[str, ...] | None
    """Names of the columns; None: the first line holds numbers."""
    columns: int


def _form(source: Source) -> _Form | None:
    """What the first lines of a file show; None where it is no table with a column of numbers."""
    text = _text(source.head)
    if not text.strip() or text.lstrip()[0] in "[{<" or not all(c.isprintable() or c.isspace() for c in text):
        return None
    lines = [line for line in text.splitlines() if line.strip()]
    if len(source.head) == HEAD and len(lines) > 1:
        lines.pop()  # it may be cut off
    found = (_as_table(lines, delimiter) for delimiter in _DELIMITERS)
    return next((form for form in found if form), None)


def _text(head: bytes) -> str:
    """The head as text, without a character that its end cuts in two; "" for what is none."""
    try:
        return head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        cut = len(head) == HEAD and error.start > HEAD - 4
        return head[: error.start].decode("utf-8-sig") if cut else ""


def _as_table(lines: Sequence[str], delimiter: str) -> _Form | None:
    try:
        rows = list(_rows(lines, delimiter))
    except csv.Error:
        return None
    width = len(rows[0])
    if width < 2 or len({len(row) for row in rows}) > 1:
        return None
    if all(map(_is_number, itertools.chain(*rows))):
        numbered = len(rows) > 1 and rows[0] == [str(number) for number in range(width)]
        return _Form(delimiter, tuple(rows[0]) if numbered else None, width)
    columns = [column[1:] for column in zip(*rows, strict=True)]
    numeric = sum(map(_is_numeric, columns))
    # Prose has spaces, code has commas.
    if delimiter == " " or not numeric or (numeric < width and len(rows) < 3):
        return None
    return _Form(delimiter, tuple(cell.strip() for cell in rows[0]), width)


def _rows(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """The cells of every line that is not empty."""
    if delimiter == " ":
        yield from (line.split() for line in lines if line.strip())
    else:
        yield from (row for row in csv.reader(lines, delimiter=delimiter) if row)


def _is_numeric(column: Sequence[str]) -> bool:
    filled = [cell for cell in column if cell.strip()]
    return bool(filled) and all(map(_is_number, filled))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


@dataclass
class _Columns:
    """What is known of the columns after the rows so far."""

    text: npt.NDArray[np.bool_]
    """Holds something that is no number."""
    whole: npt.NDArray[np.bool_]
    """Holds whole numbers without a point."""
    empty: npt.NDArray[np.int64]
    """Cells without a number."""
    rows: int = 0
    values: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    """(rows, columns), mapped."""

    def add(self, block: list[list[str]]) -> npt.NDArray[np.float64]:
        """The numbers of a few rows."""
        for column in np.flatnonzero(self.whole):
            self.whole[column] = all(_WHOLE.fullmatch(row[column]) for row in block)
        self.rows += len(block)
        try:
            return np.array(block, np.float64)
        except ValueError:
            return self._one_by_one(block)

    def _one_by_one(self, block: list[list[str]]) -> npt.NDArray[np.float64]:
        numbers = np.zeros((len(block), len(self.text)))
        bits = numbers.view(np.uint64)
        for (row, column), _ in np.ndenumerate(numbers):
            cell = block[row][column]
            if _is_number(cell):
                numbers[row, column] = float(cell)
            else:
                bits[row, column] = _EMPTY
                self.empty[column] += 1
                self.text[column] |= bool(cell.strip())
        return numbers


def _open(source: Source, reading: Reading) -> Container:
    """The tensors in a table. Raises NanhuntError where its lines differ in length."""
    form = _form(source)
    if form is None:
        raise _damaged(source, "it changed while it was read")
    found = _read(source, form)
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Tensor] = {}
    for name, columns in _groups(form).items():
        if found.text[columns].any():
            continue
        part = (
            found.values[:, columns[0] : columns[-1] + 1] if len(columns) > 1 else found.values[:, columns[0]]
        )
        empty = int(found.empty[columns].sum())
        if empty and len(columns) == 1:
            numbers[name] = _without_empty(source, name, part, empty)
        elif empty:  # a matrix keeps its rows, and a row with a gap is not healthy
            note = f"{_cells(empty)} empty: NaN, as pandas reads {'it' if empty == 1 else 'them'}"
            tensors[name] = Tensor(source.file, name, "float64", part.shape, _as_is(part), note=note)
        elif len(columns) == 1 and form.header and found.whole[columns].all():
            tensors[name] = Tensor(source.file, name, "int64", part.shape, _as_integers(part))
        else:
            tensors[name] = Tensor(source.file, name, "float64", part.shape, _as_is(part), note=_NOTE)
    return Container(source.file, tensors, "table", {}, numbers)


def _as_is(values: npt.NDArray[Any]) -> Any:
    return lambda: values


def _as_integers(values: npt.NDArray[np.float64]) -> Any:
    return lambda: values.astype(np.int64)


def _cells(count: int) -> str:
    return "1 cell is" if count == 1 else f"{count:,} cells are"


def _without_empty(source: Source, name: str, values: npt.NDArray[np.float64], empty: int) -> Tensor:
    flat = np.ascontiguousarray(values).reshape(-1)
    kept = flat[flat.view(np.uint64) != _EMPTY]
    note = f"{_cells(empty)} empty: the others were checked, no more"
    return Tensor(source.file, name, "float64", kept.shape, lambda: kept, note=note)


def _read(source: Source, form: _Form) -> _Columns:
    width = form.columns
    found = _Columns(np.zeros(width, bool), np.ones(width, bool), np.zeros(width, np.int64))

    def copy(target: IO[bytes]) -> None:
        with source.open() as stream, io.TextIOWrapper(stream, "utf-8-sig", "replace", newline="") as text:
            rows = _rows(_lines(source, text), form.delimiter)
            if form.header is not None:
                next(rows)
            while block := list(itertools.islice(rows, max(1, _CELLS_AT_ONCE // width))):
                _check_widths(source, block, found.rows + 1 + (form.header is not None), width)
                target.write(found.add(block).tobytes())

    try:
        found.values = spooled_values(source, copy, np.dtype(np.float64)).reshape(-1, width)
    except csv.Error as error:
        raise _damaged(source, str(error)) from None
    return found


def _lines(source: Source, text: IO[str]) -> Iterator[str]:
    while line := text.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise _damaged(source, f"a line has over {len(line):,} characters")
        yield line


def _check_widths(source: Source, block: list[list[str]], first: int, width: int) -> None:
    for number, row in enumerate(block, first):
        if len(row) != width:
            raise _damaged(source, f"line {number:,} has {len(row):,} cells, and the first one {width:,}")


def _groups(form: _Form) -> dict[str, list[int]]:
    """Columns by the name of their tensor: those that are called alike, but for consecutive numbers, together."""
    if form.header is None:
        return {"": list(range(form.columns))}
    groups: dict[str, list[int]] = {}
    stem, following = None, -1
    for column, title in enumerate(form.header):
        word, number = re.fullmatch(r"(.*?)[._-]?([0-9]{0,9})", title, re.DOTALL).groups()  # type: ignore[union-attr]
        if number and word == stem and int(number) == following and word in groups:
            groups[word].append(column)
        else:
            stem = word if number and word not in groups else None
            groups.setdefault(word if stem is not None else _unused(title, groups), []).append(column)
        following = int(number) + 1 if number else -1
    return groups


def _unused(title: str, groups: dict[str, list[int]]) -> str:
    spellings = itertools.chain([title], (f"{title}#{number}" for number in itertools.count(2)))
    return next(spelling for spelling in spellings if spelling not in groups)


def _damaged(source: Source, why: str) -> NanhuntError:
    return NanhuntError(f"{source.name} is no whole table: {printable(why)[:120]}.", "Write it again.")


READER = FileReader("table", (".csv", ".tsv"), lambda source: _form(source) is not None, _open)
