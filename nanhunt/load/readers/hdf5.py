"""HDF5 (.h5, Keras, NetCDF 4, MATLAB 7.3) and .keras, a zip with one inside, by h5py: the extra nanhunt[hdf5].

Contiguous datasets are mapped where they lie; those in chunks are unpacked through a temporary file when they are
read. Links and storage outside of the file are not followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nanhunt.errors import NanhuntError
from nanhunt.load.arrays import byte_size, mapped, slices, unpacked
from nanhunt.load.container import Container, NotNumbers, RefusedTensor
from nanhunt.load.extras import is_plausible, required, whole
from nanhunt.load.reader import FileReader, Reading
from nanhunt.load.readers import npy, zipped
from nanhunt.load.source import Source, spooled
from nanhunt.load.tensor import Tensor
from nanhunt.load.wording import printable

if TYPE_CHECKING:
    from zipfile import ZipInfo

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_PLACES = (0, 512, 1024, 2048)
"""Where the signature may stand, behind a block of the user's own."""
_WEIGHTS = ".weights.h5"
_WHAT = "an HDF5 file"


def _is_hdf5(source: Source) -> bool:
    return any(source.head.startswith(SIGNATURE, at) for at in _PLACES) or _inside(source) is not None


def _inside(source: Source) -> ZipInfo | None:
    """The weights in a .keras."""
    return next((each for each in source.archive or () if each.filename.endswith(_WEIGHTS)), None)


def _open(source: Source, reading: Reading) -> Container:
    """All datasets under dotted names. Raises NanhuntError for a damaged file, and where h5py is missing."""
    h5py = required("h5py", "hdf5", source, _WHAT)
    entry = _inside(source)
    file = source if entry is None else _unzipped(source, entry)
    tensors: dict[str, Tensor] = {}
    refused: dict[str, RefusedTensor] = {}
    unread: dict[str, str] = {}
    with whole(source, _WHAT), file.open() as stream, h5py.File(stream, "r") as opened:
        for path, dataset in _datasets(h5py, opened):
            name = path.replace("/", ".")
            try:
                tensors[name] = _tensor(h5py, file, path, dataset, reading.stored_dtype)
            except RefusedTensor as error:
                refused[name] = error
                inner = h5py.check_vlen_dtype(dataset.dtype)
                if isinstance(inner, np.dtype) and inner.kind in "fc":
                    unread[name] = f"lists of any length of {inner}"
        unread |= {path.replace("/", "."): what for path, what in _links(h5py, opened)}
    return Container(source.file, tensors, "keras" if entry else "hdf5", refused, unread=unread)


def _unzipped(source: Source, entry: ZipInfo) -> Source:
    """The entry as a file of its own: a part of the archive where it is stored, unpacked where it is compressed."""
    if problem := zipped.problem(entry):
        raise NanhuntError(f"{source.name}:{printable(entry.filename)} {problem[0]}.", problem[1])
    start = zipped.offsets(source, [entry])[entry.filename]
    if start is not None and source.unnamed is None:
        return replace(source, size=entry.file_size, start=(source.start or 0) + start)
    with zipped.opened(source, entry) as plain:
        return replace(source, size=entry.file_size, unnamed=spooled(plain, source.name))


def _datasets(h5py: Any, file: Any) -> Iterator[tuple[str, Any]]:
    """(path, dataset) of what the file itself holds: its hard links, each object once."""
    found: list[tuple[str, Any]] = []

    def visit(path: str, each: Any) -> None:
        if isinstance(each, h5py.Dataset):
            found.append((path, each))

    file.visititems(visit)
    yield from found


def _links(h5py: Any, file: Any) -> Iterator[tuple[str, str]]:
    """(path, what it is) of links to other files, which are not followed."""
    groups = [file]
    file.visititems(lambda _, each: groups.append(each) if isinstance(each, h5py.Group) else None)
    for group in groups:
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                path = f"{group.name}/{name}".lstrip("/")
                yield path, f"a link to another file ({printable(link.filename)[:60]})"


def _tensor(h5py: Any, source: Source, path: str, dataset: Any, stored_dtype: str | None) -> Tensor:
    """Raises RefusedTensor for what holds no numbers, or lies in other files."""
    name = path.replace("/", ".")
    label = f"{source.name}:{printable(name)}"
    if dataset.shape is None:
        raise NotNumbers(f"{label} is empty.", "Write values into it.")
    if dataset.external or dataset.is_virtual:
        raise RefusedTensor(
            f"{label} lies in other files, which are not opened for it.", "Copy it: h5repack."
        )
    said = str(dataset.attrs.get("dtype", "")) or None  # how Keras says bfloat16
    dtype, stored = npy.dtype_of(_spelled(dataset.dtype), label, stored_dtype or said)
    shape = tuple(dataset.shape)
    size, packed = byte_size(shape, stored.itemsize), dataset.id.get_storage_size()
    if size is None or not is_plausible(size, min(packed, source.size)):
        message = f"{label} {str(shape)[:80]} claims more than its {packed:,} packed bytes can hold."
        raise RefusedTensor(message, "Write it again.")
    offset = dataset.id.get_offset()

    def read() -> npt.NDArray[Any]:
        if offset is not None:
            return mapped(source, offset, stored, shape)
        with whole(source, _WHAT):
            return unpacked(source, copy, stored, shape)

    def copy(target: IO[bytes]) -> None:
        with source.open() as stream, h5py.File(stream, "r") as opened:
            _copy(opened[path], stored, target)

    if offset is not None and offset + size > source.size:
        raise RefusedTensor(f"{label} reaches past the end of the file.", "Copy or write it again.")
    return Tensor(source.file, name, dtype, shape, read)


def _spelled(dtype: np.dtype[Any]) -> Any:
    """As the header of a .npy has it: h5py knows numbers, text, records, references."""
    return dtype.descr if dtype.names else dtype.str


def _copy(dataset: Any, stored: np.dtype[Any], stream: IO[bytes]) -> None:
    for index in slices(dataset.shape, (dataset.chunks or (1,))[0], stored.itemsize):
        block = np.ascontiguousarray(dataset[index])
        stream.write(block.view(stored).tobytes())


READER = FileReader("hdf5", (".h5", ".hdf5", ".keras"), _is_hdf5, _open)
