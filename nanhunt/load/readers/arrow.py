"""Parquet and Arrow (IPC files and streams, as Feather 2 and Hugging Face's datasets are), by pyarrow: nanhunt[arrow].

Columns of numbers and of lists of numbers; lists in structures (top-k log-probabilities) under dotted names. Lists of
one length make a tensor. Where lengths differ, or values are missing, nothing is made up: the numbers that are there
are checked as numbers, and the report says why no more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from nanhunt.errors import NanhuntError
from nanhunt.load.arrays import spooled_values
from nanhunt.load.container import Container, NotNumbers, RefusedTensor
from nanhunt.load.extras import is_plausible, required, whole
from nanhunt.load.reader import FileReader, Reading
from nanhunt.load.source import Source
from nanhunt.load.tensor import Tensor
from nanhunt.load.wording import printable

_PARQUET, _FILE, _STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
_DTYPES = {"halffloat": "float16", "float": "float32", "double": "float64", "bool": "bool"} | {
    f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_FLOATS = re.compile("float|double")
"""In the spelling of a type: of what is packed in ways that a few bytes can mean terabytes, and not read here."""
_BATCH_BYTES = 1 << 24
"""Of one column, in memory at once."""
_FEW = 256
"""Rows."""
_DEEPEST = 20
_WHAT = "a Parquet or Arrow file"

Batches = Callable[[str], Iterator[Any]]
"""The arrays of one column, in order."""


def _is_arrow(source: Source) -> bool:
    head = source.head
    if head.startswith((_PARQUET, _FILE)):
        return True
    # A stream begins with a mark, the length of its schema, and that as a flatbuffer.
    length = int.from_bytes(head[4:8], "little")
    return head.startswith(_STREAM) and 0 < length < 1 << 24 and length % 8 == 0 and len(head) > 16


def _open(source: Source, reading: Reading) -> Container:
    """Every column of numbers. Raises NanhuntError for a damaged file, and where pyarrow is missing."""
    pyarrow = required("pyarrow", "arrow", source, _WHAT)
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Tensor] = {}
    refused: dict[str, RefusedTensor] = {}
    unread: dict[str, str] = {}
    with whole(source, _WHAT):
        schema, batches = _parquet(source) if source.head.startswith(_PARQUET) else _ipc(pyarrow, source)
        for column in schema:
            for leaf in _leaves(pyarrow, column.type, (column.name,), ()):
                try:
                    tensor = _tensor(source, leaf, batches)
                except RefusedTensor as error:
                    refused[leaf.name] = error
                    if isinstance(error, NotNumbers) and _FLOATS.search(leaf.type):
                        unread[leaf.name] = f"a column of {printable(leaf.type)[:60]}"
                    continue
                (numbers if tensor.note else tensors)[leaf.name] = tensor
    return Container(source.file, tensors, "arrow", refused, numbers, unread)


def _parquet(source: Source) -> tuple[Any, Batches]:
    from pyarrow import parquet

    def batches(name: str) -> Iterator[Any]:
        with source.open() as stream:
            file = parquet.ParquetFile(stream)
            # How large rows are is seen from a few: the metadata of columns, where they are damaged, end the process.
            few = next(file.iter_batches(_FEW, columns=[name]), None)
            size = max(1, few.nbytes // max(1, len(few))) if few is not None else 1
            for batch in file.iter_batches(max(1, _BATCH_BYTES // size), columns=[name]):
                yield batch.column(0)

    with source.open() as stream:
        return parquet.read_schema(stream), batches


def _ipc(pyarrow: Any, source: Source) -> tuple[Any, Batches]:
    def opened(stream: IO[bytes]) -> Any:
        kind = pyarrow.ipc.open_file if source.head.startswith(_FILE) else pyarrow.ipc.open_stream
        return kind(stream)

    def batches(name: str) -> Iterator[Any]:
        with source.open() as stream, opened(stream) as reader:
            several = (
                (reader.get_batch(number) for number in range(reader.num_record_batches))
                if source.head.startswith(_FILE)
                else reader
            )
            for batch in several:
                column = batch.column(batch.schema.get_field_index(name))
                column.validate(full=True)  # its offsets come from the file, and C++ follows them unasked
                yield column

    with source.open() as stream, opened(stream) as reader:
        return reader.schema, batches


@dataclass(frozen=True)
class _Leaf:
    """Numbers (or what is none) in a column, and the way to them."""

    path: tuple[str, ...]
    """Names: of the column, of fields in it."""
    steps: tuple[int | None, ...]
    """From the column: into the values of a list (None), or a field by its number."""
    type: str
    """As Arrow spells it."""

    @property
    def name(self) -> str:
        return ".".join(self.path)


def _leaves(pyarrow: Any, kind: Any, path: tuple[str, ...], steps: tuple[int | None, ...]) -> Iterator[_Leaf]:
    if isinstance(kind, pyarrow.BaseExtensionType):
        kind = kind.storage_type
    types = pyarrow.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if len(steps) > _DEEPEST:
        raise ValueError(f"columns in columns, {len(steps)} levels deep")
    if types.is_struct(kind):
        for number in range(kind.num_fields):
            inner = kind.field(number)
            yield from _leaves(pyarrow, inner.type, (*path, inner.name), (*steps, number))
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        yield from _leaves(pyarrow, kind.value_type, path, (*steps, None))
    elif types.is_map(kind):  # a list of structures of two fields
        yield from _leaves(pyarrow, kind.item_type, (*path, "value"), (*steps, None, 1))
    else:
        yield _Leaf(path, steps, str(kind))


@dataclass
class _Seen:
    """What the batches of one leaf have in common."""

    rows: int = 0
    values: int = 0
    lengths: list[tuple[int, int]] = field(default_factory=list)
    """(shortest, longest) list of each level."""
    nulls: int = 0

    def widen(self, level: int, shortest: int, longest: int) -> None:
        if level == len(self.lengths):
            self.lengths.append((shortest, longest))
        low, high = self.lengths[level]
        self.lengths[level] = min(low, shortest), max(high, longest)

    @property
    def note(self) -> str:
        """Why this is no tensor; "" where it is one."""
        ragged = next(((low, high) for low, high in self.lengths if low != high), None)
        if ragged:
            return f"lists of {ragged[0]:,} to {ragged[1]:,} numbers: each number was checked, no more"
        if self.nulls:
            return f"{self.nulls:,} values are null: the others were checked, no more"
        return ""


def _tensor(source: Source, leaf: _Leaf, batches: Batches) -> Tensor:
    """The numbers of one leaf, in a temporary file. Raises RefusedTensor for what is no number."""
    label = f"{source.name}:{printable(leaf.name)}"
    dtype = _DTYPES.get(leaf.type)
    if dtype is None:
        message = f"{label} is {printable(leaf.type)[:40]}, not numbers."
        raise NotNumbers(message, "Store numbers: float32.")
    stored = np.dtype(dtype)
    seen = _Seen()

    def copy(stream: IO[bytes]) -> None:
        for column in batches(leaf.path[0]):
            values = _flat(column, leaf.steps, seen)
            seen.values += len(values)
            if not is_plausible(seen.values * stored.itemsize, source.size):
                message = f"{label} claims more values than {source.size:,} bytes can hold."
                raise RefusedTensor(message, "Write it again.")
            stream.write(values.to_numpy(zero_copy_only=False).astype(stored, copy=False).tobytes())

    values = spooled_values(source, copy, stored)
    note = seen.note
    shape = (seen.values,) if note else (seen.rows, *(low for low, _ in seen.lengths))
    if math.prod(shape) != values.size:
        raise NanhuntError(f"{label} has {values.size:,} values for the shape {shape}.", "Write it again.")
    return Tensor(source.file, leaf.name, dtype, shape, lambda: values.reshape(shape), note=note)


def _flat(array: Any, steps: tuple[int | None, ...], seen: _Seen) -> Any:
    """The numbers in an array of lists and structures that are not null."""
    seen.rows += len(array)
    level = 0
    for step in steps:
        array = _present(_plain(array), seen)
        if step is not None:
            array = array.flatten()[step]
            continue
        array = _listed(array)
        if len(array):
            lengths = array.value_lengths().to_numpy(zero_copy_only=False)
            seen.widen(level, int(lengths.min()), int(lengths.max()))
        level += 1
        array = array.flatten()
    return _present(_plain(array), seen)


def _listed(array: Any) -> Any:
    """A map as the list of structures that it is: pyarrow neither counts nor flattens maps. Others are given back."""
    import pyarrow

    if isinstance(array, pyarrow.MapArray):
        return pyarrow.ListArray.from_arrays(array.offsets, array.values)
    return array


def _plain(array: Any) -> Any:
    """Without what an extension type or a dictionary wraps around the values."""
    array = getattr(array, "storage", array)
    return array.dictionary_decode() if hasattr(array, "dictionary_decode") else array


def _present(array: Any, seen: _Seen) -> Any:
    seen.nulls += array.null_count
    return array.drop_null() if array.null_count else array


READER = FileReader("arrow", (".parquet", ".arrow", ".feather"), _is_arrow, _open)
