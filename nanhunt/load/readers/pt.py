""".pt, .pth, .bin, .ckpt: what torch.save writes, a zip with a pickle and the bytes of its storages, memory-mapped.

Read without torch, and without executing anything: see ``pickled``. The layout is that of torch/serialization.py:
a pickle whose tensors refer to storages by key, and the bytes of those storages.
"""

from __future__ import annotations

import itertools
import math
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.convert import native
from nanhunt.errors import NanhuntError
from nanhunt.load.arrays import CHUNK, Ranges, byte_size, mapped, ranges, unpacked
from nanhunt.load.container import Container, RefusedTensor
from nanhunt.load.extras import is_plausible
from nanhunt.load.numbers import plain_numbers, settings_of
from nanhunt.load.reader import FileReader, Reading
from nanhunt.load.readers import objects, pickled, zipped
from nanhunt.load.readers.cursor import ByteOrder
from nanhunt.load.readers.numpy_pickle import numpy_array
from nanhunt.load.readers.optimizer import owned
from nanhunt.load.readers.pickled import External, Global, Instance
from nanhunt.load.source import Source
from nanhunt.load.tensor import BITS, COMPLEX, FLOATING, INTEGER, Tensor
from nanhunt.load.wording import printable

if TYPE_CHECKING:
    from zipfile import ZipInfo

LARGEST_PICKLE = 1 << 30
"""Bytes of a pickle; what it describes lies elsewhere."""
KNOWN = (*FLOATING, *INTEGER, *COMPLEX)

_PICKLE = re.compile(r"([^/]+/)?data\.pkl")
_STORAGE = re.compile(r"([^/]+/)?data/[^/]+")
_STORAGE_DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16",
    "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128", "ComplexFloatStorage": "complex64", "UntypedStorage": "",
}  # fmt: skip
_WRAPPERS = (
    "_rebuild_parameter", "_rebuild_parameter_with_state", "Parameter", "Buffer",
    "_rebuild_device_tensor_from_cpu_tensor", "_rebuild_device_tensor_from_numpy",
)  # fmt: skip
"""Calls whose first argument is the tensor itself."""
_TYPED = ("_rebuild_from_type", "_rebuild_from_type_v2")
"""Calls of subclasses: a function, the subclass, the function's arguments."""
_NO_VALUES = {
    "_rebuild_meta_tensor_no_storage": (
        "is a meta tensor: it has a shape and no values", "Save the model after its weights are loaded.",
    ),
}  # fmt: skip
"""Calls of tensors that have no values: what they are, and the way to some."""


@dataclass(frozen=True)
class Storage:
    """Bytes that tensors are views of."""

    size: int
    """In bytes."""
    map: Callable[[int, np.dtype[Any], int], npt.NDArray[Any]]
    """``map(offset in bytes, dtype, count)``: so many values from there on."""
    ranges: Callable[[int, np.dtype[Any]], Ranges | None] = lambda offset, dtype: None
    """``ranges(offset in bytes, dtype)``: how those far away are fetched one by one."""


class Damaged(Exception):  # noqa: N818 - becomes a NanhuntError that names the file
    """The file does not hold what its pickle says."""


Storages = Callable[[External], tuple[Storage, str]]
"""The storage that an external object means, and its dtype ("" for untyped)."""


def _is_pt(source: Source) -> bool:
    """Whether a zip was written by torch.save (or torch.jit.save)."""
    return any(_PICKLE.fullmatch(entry.filename) for entry in source.archive or ())


def _open(source: Source, reading: Reading) -> Container:
    """The tensors, arrays and numbers of a zip checkpoint under dotted names, memory-mapped.

    Classes of any kind are read through: nothing is imported for them. Raises NanhuntError for a damaged file.
    """
    entries = source.archive or ()
    by_name = {entry.filename: entry for entry in entries}
    name = next(entry.filename for entry in entries if _PICKLE.fullmatch(entry.filename))
    folder = name.removesuffix("data.pkl")
    offsets = zipped.offsets(source, [entry for entry in entries if _STORAGE.fullmatch(entry.filename)])
    big = f"{folder}byteorder" in by_name and _entry_bytes(source, by_name[f"{folder}byteorder"]) == b"big"

    def storage(external: External) -> tuple[Storage, str]:
        dtype, key, *_ = identity(external)
        entry = by_name.get(f"{folder}data/{key}")
        if entry is None:
            raise Damaged(f"it has no storage {printable(key)[:40]}")
        return _zip_storage(source, entry, offsets[entry.filename], big=big), dtype

    return checkpoint(source, lambda: pickled.load(_entry_bytes(source, by_name[name])), storage, "pt")


def unpickled(source: Source) -> object:
    """The object in a zip checkpoint, its tensors as the calls that rebuild them; None where there is none.

    Raises NanhuntError for a damaged archive.
    """
    entry = next((entry for entry in source.archive or () if _PICKLE.fullmatch(entry.filename)), None)
    try:
        return None if entry is None else pickled.load(_entry_bytes(source, entry)).object
    except pickled.BadPickle as error:
        raise _damaged(source, str(error)) from None


def identity(external: External) -> tuple[str, str, int, tuple[int, int] | None]:
    """(dtype, key, bytes a value, (first value, values) of a view or None) of a storage. Raises Damaged."""
    match external.identity:
        case ("storage", Global(_, kind), str(key), _, int(), *rest):
            view = rest[0] if rest else None
        case _:
            raise Damaged("it refers to something that is no storage")
    dtype = _STORAGE_DTYPES.get(kind, kind)
    itemsize = np.dtype(BITS.get(dtype, dtype)).itemsize if dtype in KNOWN else 1
    match view:
        case (str(), int(first), int(count)):
            return dtype, key, itemsize, (first, count)
        case None:
            return dtype, key, itemsize, None
    raise Damaged("it refers to something that is no storage")


def mapped_storage(source: Source, start: int, size: int, *, big: bool) -> Storage:
    """Bytes as they lie in the file."""
    order: ByteOrder = ">" if big else "<"

    def read(offset: int, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
        return mapped(source, start + offset, dtype.newbyteorder(order), (count,))

    def apart(offset: int, dtype: np.dtype[Any]) -> Ranges | None:
        return ranges(source, start + offset, dtype.newbyteorder(order))

    return Storage(size, read, apart)


def _zip_storage(source: Source, entry: ZipInfo, start: int | None, *, big: bool) -> Storage:
    if start is not None:
        return mapped_storage(source, start, entry.file_size, big=big)
    if problem := zipped.problem(entry):
        raise Damaged(f"{printable(entry.filename)} {problem[0]}")

    def copy(target: IO[bytes]) -> None:
        with zipped.opened(source, entry) as plain:
            shutil.copyfileobj(plain, target, CHUNK)

    def read(offset: int, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
        whole = unpacked(source, copy, np.dtype(np.uint8), (entry.file_size,))
        values = whole[offset : offset + count * dtype.itemsize].view(dtype.newbyteorder(">" if big else "<"))
        return native(values)

    return Storage(entry.file_size, read)


def _entry_bytes(source: Source, entry: ZipInfo) -> bytes:
    problem = zipped.problem(entry)
    if problem is None and entry.file_size > LARGEST_PICKLE:
        problem = f"claims {entry.file_size:,} bytes", ""
    if problem:
        raise NanhuntError(
            f"{source.name}:{printable(entry.filename)} {problem[0]}.", "Save it with torch.save."
        )
    with zipped.opened(source, entry) as stream:
        return stream.read()


def _damaged(source: Source, why: str) -> NanhuntError:
    message = f"{source.name} is a torch checkpoint that is truncated or damaged: {why}."
    return NanhuntError(message, "Copy, download or save it again.")


_OF_TENSORS = re.compile(
    r"torch\.(_utils|_tensor|storage)\.\w+|torch\.(\w*Storage|Size|device|bool|[a-z]*int\d+|b?float\d\w*|complex\d+)|"
    r"torch\.(nn|optim)\.[\w.]+|"
    r"numpy\._?core\.(multiarray|numeric)\.\w+|numpy\.(dtype|ndarray|dtypes\.\w+|random\.[\w.]+)|"
    r"collections\.(OrderedDict|defaultdict|Counter|deque)|"
    r"builtins\.(bytes|bytearray|complex|dict|frozenset|int|list|object|range|set|slice|str|tuple)|"
    r"_codecs\.encode|copyreg\._reconstructor|ml_dtypes\.\w+"
)
"""What every checkpoint names: how tensors, arrays, modules and plain data are put together."""


def checkpoint(source: Source, load: Callable[[], pickled.Loaded], storage: Storages, form: str) -> Container:
    """What an unpickled checkpoint holds, under dotted names. Raises NanhuntError for a damaged one."""
    try:
        loaded = load()
        content = loaded.object
        found = objects.contents(content)
        tensors: dict[str, Tensor] = {}
        refused: dict[str, RefusedTensor] = {}
        for path, value in found.values:
            name = _unused(".".join(path), tensors, refused)
            try:
                tensors[name] = _value(source, name, value, storage)
            except RefusedTensor as error:
                refused[name] = error
    except (pickled.BadPickle, Damaged) as error:
        raise _damaged(source, str(error)) from None
    except objects.TooManyObjects as error:
        hint = "Save its tensors alone: torch.save(model.state_dict(), 'weights.pt')."
        message = f"{source.name} nests its contents absurdly, {error.args[0]:,} levels deep."
        raise NanhuntError(message, hint) from None
    tensors |= owned(content, tensors)
    numbers = plain_numbers(source, found.numbers)
    for name in [name for name, tensor in tensors.items() if tensor.note]:
        numbers[name] = tensors.pop(name)  # whatever it is called, its values are no rows
    unread = {".".join(path): what for path, what in found.unread}
    return Container(
        source.file,
        tensors,
        form,
        refused,
        numbers,
        unread,
        told=_told(content),
        settings=settings_of(content),
        not_run=tuple(name for name in loaded.named if not _OF_TENSORS.fullmatch(name)),
    )


def _told(content: object) -> dict[str, str]:
    """The texts that ``nanhunt run`` writes beside the tensors of a capture."""
    said = content.get("nanhunt") if isinstance(content, dict) else None
    items = said.items() if isinstance(said, dict) else ()
    return {key: value for key, value in items if isinstance(key, str) and isinstance(value, str)}


def _unused(name: str, *taken: Mapping[str, object]) -> str:
    """``name``, numbered where {"a.b": ..., "a": {"b": ...}} spells it twice."""
    spellings = itertools.chain([name], (f"{name}#{number}" for number in itertools.count(2)))
    return next(spelling for spelling in spellings if not any(spelling in names for names in taken))


def _value(source: Source, name: str, value: Instance, storage: Storages) -> Tensor:
    label = f"{source.name}:{printable(name)}" if name else source.name
    while value.made_by.name in (*_WRAPPERS, *_TYPED):
        value = _unwrapped(value)
    if value.made_by.module.startswith("numpy"):
        dtype, array = numpy_array(value, label)
        return Tensor(source.file, name, dtype, array.shape, lambda: array)
    if value.made_by.name in _IN_PARTS:
        part, note = _IN_PARTS[value.made_by.name]
        return replace(_part(source, name, part(value.args), storage), note=note)
    if value.made_by.name in _NO_VALUES:
        what, hint = _NO_VALUES[value.made_by.name]
        raise RefusedTensor(f"{label} {what}.", hint)
    view = _view(value, storage)
    if view.dtype not in KNOWN:
        hint = "Save tensor.to(torch.float32) instead."
        raise RefusedTensor(f"{label} is {printable(view.dtype)[:40]}, which nanhunt cannot judge.", hint)
    view.check()
    if not is_plausible(math.prod(view.shape) * view.stored.itemsize, source.size):
        what = (
            f"shows the same {view.storage.size:,} bytes again and again, as {math.prod(view.shape):,} values"
        )
        raise RefusedTensor(f"{label} {what}.", "Save what was expanded, without .expand().")
    return Tensor(source.file, name, view.dtype, view.shape, view.read, ranges=view.ranges())


def _part(source: Source, name: str, part: Any, storage: Storages) -> Tensor:
    """What of a tensor in parts is judged: a plain tensor, or a single number."""
    if isinstance(part, float):
        return Tensor(source.file, name, "float64", (), lambda: np.array(part))
    if not isinstance(part, Instance) or part.made_by.name in _IN_PARTS:
        raise Damaged("it holds a tensor in parts without values")
    return _value(source, name, part, storage)


def _stored_values(args: tuple[Any, ...]) -> Any:
    """The values of a sparse tensor, the last of its parts that is a tensor."""
    match args:
        case (_, tuple(parts), *_):
            tensors = [part for part in parts if isinstance(part, Instance) and part.made_by.name != "Size"]
            return tensors[-1] if tensors else None


def _buffer(args: tuple[Any, ...]) -> Any:
    """The values of all the tensors in a nested one."""
    return args[0] if args else None


def _scales(args: tuple[Any, ...]) -> Any:
    """What the integers of a quantized tensor are multiplied with: one number, or one a channel."""
    match args:
        case (_, _, _, _, (_, scales, *_), *_):
            return scales


_IN_PARTS: dict[str, tuple[Callable[[tuple[Any, ...]], Any], str]] = {
    "_rebuild_sparse_tensor": (_stored_values, "sparse: the values that are stored"),
    "_rebuild_nested_tensor": (_buffer, "nested: the values of all tensors in it"),
    "_rebuild_qtensor": (_scales, "quantized: the scales, which every value is a multiple of"),
}
"""Calls of tensors that are no array of values: which of their parts is judged, and what the report says of it."""


def _unwrapped(value: Instance) -> Instance:
    """The tensor in a Parameter, or in a subclass that is rebuilt from a plain one."""
    match value.made_by.name, value.args:
        case name, (Instance() as inner, *_) if name in _WRAPPERS:
            return inner
        case _, (Global() as made_by, _, tuple(args), *_):
            return Instance(made_by, args)
    raise Damaged("it holds a Parameter without values")


@dataclass(frozen=True)
class _View:
    """A tensor as strides over a storage."""

    storage: Storage
    dtype: str
    offset: int
    """Of the first value, in values."""
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In values."""
    conjugate: bool
    negative: bool

    @property
    def stored(self) -> np.dtype[Any]:
        return np.dtype(BITS.get(self.dtype, self.dtype))

    @property
    def extent(self) -> int:
        """Values from the first to the last."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    def check(self) -> None:
        """Raises Damaged for a view that is not inside of its storage."""
        if byte_size(self.shape, self.stored.itemsize) is None or (
            (self.offset + self.extent) * self.stored.itemsize > self.storage.size
        ):
            raise Damaged("a tensor reaches past the end of its storage")

    def ranges(self) -> Ranges | None:
        """How its values are fetched one by one, where they lie far away and one after the other as torch has them."""
        in_order = self.extent == math.prod(self.shape) and self.strides == contiguous(self.shape)
        if not in_order or self.conjugate or self.negative:
            return None
        return self.storage.ranges(self.offset * self.stored.itemsize, self.stored)

    def read(self) -> npt.NDArray[Any]:
        """The values, a view of the mapped storage; a copy where torch kept a sign to itself."""
        size = self.stored.itemsize
        flat = self.storage.map(self.offset * size, self.stored, self.extent)
        steps = tuple(stride * size for stride in self.strides)
        values: npt.NDArray[Any] = np.lib.stride_tricks.as_strided(flat, self.shape, steps)
        if 0 in self.shape:
            values = np.empty(self.shape, self.stored)
        if self.conjugate:
            values = np.conj(values)
        return np.negative(values) if self.negative else values


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides in values of an array in C order."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _view(value: Instance, storage: Storages) -> _View:
    metadata: Any = None
    typed: Any = None
    match value.made_by.name, value.args:
        case "_rebuild_tensor_v3", (External() as where, offset, shape, strides, _, _, typed, *rest):
            metadata = rest[0] if rest else None
        case "_rebuild_tensor" | "_rebuild_tensor_v2", (External() as where, offset, shape, strides, *rest):
            metadata = rest[2] if len(rest) > 2 else None
        case _:
            match value.state:  # how torch wrote tensors before 0.2
                case (External() as where, offset, shape, strides, *_):
                    pass
                case _:
                    raise Damaged(f"it rebuilds a tensor by {printable(value.made_by.path)[:60]}")
    if not _sizes(shape) or not _sizes(strides) or not _sizes((offset,)) or len(shape) != len(strides):
        raise Damaged("a tensor has no sizes")
    found, dtype = storage(where)
    flags = metadata if isinstance(metadata, dict) else {}
    return _View(
        found, typed.name if isinstance(typed, Global) else dtype, offset, tuple(shape), tuple(strides),
        bool(flags.get("conj")), bool(flags.get("neg")),
    )  # fmt: skip


def _sizes(value: Any) -> TypeGuard[tuple[int, ...]]:
    return isinstance(value, tuple | list) and all(
        type(size) is int and 0 <= size < 1 << 62 for size in value
    )


READER = FileReader("pt", (".pt", ".pth", ".ckpt"), _is_pt, _open, (".bin",))
