""".npz: a zip of .npy files, mapped inside it; compressed ones go through a temporary file."""

from __future__ import annotations

import shutil
from typing import IO, Any
from zipfile import ZipInfo

import numpy.typing as npt

from nanhunt.load.arrays import CHUNK, mapped, unpacked
from nanhunt.load.container import Container, RefusedTensor
from nanhunt.load.reader import FileReader, Reading
from nanhunt.load.readers import npy, zipped
from nanhunt.load.source import Source
from nanhunt.load.tensor import Tensor
from nanhunt.load.wording import printable

SUFFIX = ".npy"


def _is_npz(source: Source) -> bool:
    entries = source.archive
    return entries is not None and (not entries or any(each.filename.endswith(SUFFIX) for each in entries))


def _open(source: Source, reading: Reading) -> Container:
    """Every .npy in the archive, under its name without the suffix.

    Entries that are no numbers are refused one by one. Raises NanhuntError for a damaged archive.
    """
    tensors: dict[str, Tensor] = {}
    refused: dict[str, RefusedTensor] = {}
    for entry in source.archive or ():
        if not entry.filename.endswith(SUFFIX):
            continue
        name = entry.filename.removesuffix(SUFFIX)
        try:
            tensors[name] = _tensor(source, entry, name, reading.stored_dtype)
        except RefusedTensor as error:
            refused[name] = error
    return Container(source.file, tensors, "npz", refused)


def _tensor(source: Source, entry: ZipInfo, name: str, stored_dtype: str | None) -> Tensor:
    label = f"{source.name}:{printable(name)}"
    if problem := zipped.problem(entry):
        raise RefusedTensor(f"{label} {problem[0]}.", problem[1])
    with zipped.opened(source, entry) as plain:
        header = npy.read_header(plain, entry.file_size, label, stored_dtype)
    start = zipped.offsets(source, [entry])[entry.filename]

    def read() -> npt.NDArray[Any]:
        if start is not None:
            return mapped(source, start + header.offset, header.stored, header.shape, header.order)
        return unpacked(source, copy, header.stored, header.shape, header.order)

    def copy(target: IO[bytes]) -> None:
        with zipped.opened(source, entry) as plain:
            plain.read(header.offset)
            shutil.copyfileobj(plain, target, CHUNK)

    return Tensor(source.file, name, header.dtype, header.shape, read)


READER = FileReader("npz", (".npz",), _is_npz, _open)
