""".mat of MATLAB 5 to 7.2, by scipy.io: the extra nanhunt[mat]. Those of 7.3 are HDF5, which has a reader of its own.

Such files are small (2 GB a variable at most) and mostly compressed: they are read into memory, not mapped.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from nanhunt.load.arrays import byte_size
from nanhunt.load.container import Container, NotNumbers, RefusedTensor
from nanhunt.load.extras import is_plausible, required, whole
from nanhunt.load.reader import FileReader, Reading
from nanhunt.load.readers import npy
from nanhunt.load.source import Source
from nanhunt.load.tensor import Tensor
from nanhunt.load.wording import printable

_NUMBERS = (
    "double",
    "single",
    "logical",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
_SPARSE = "sparse"
_HOLDERS = ("struct", "cell", "object")
_WHAT = "a MATLAB file"


def _open(source: Source, reading: Reading) -> Container:
    """Every array of numbers. Raises NanhuntError for a damaged file, and where scipy is missing."""
    scipy = required("scipy.io", "mat", source, _WHAT)
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Tensor] = {}
    refused: dict[str, RefusedTensor] = {}
    unread: dict[str, str] = {}
    with whole(source, _WHAT), source.open() as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that occur twice
        for name, shape, kind in scipy.whosmat(stream):
            try:
                _check(source, name, tuple(shape), kind)
                stream.seek(0)
                values = scipy.loadmat(stream, variable_names=[name])[name]
                (numbers if kind == _SPARSE else tensors)[name] = _tensor(source, name, kind, values)
            except RefusedTensor as error:
                refused[name] = error
                if kind in _HOLDERS:
                    unread[name] = f"a MATLAB {kind}, which may hold numbers"
    return Container(source.file, tensors, "mat", refused, numbers, unread)


def _check(source: Source, name: str, shape: tuple[int, ...], kind: str) -> None:
    """Raises RefusedTensor for what is no array of numbers, or is larger than the file can hold."""
    label = f"{source.name}:{printable(name)}"
    if kind not in (*_NUMBERS, _SPARSE):
        message = f"{label} is a {printable(kind)} array, not numbers."
        raise NotNumbers(message, "Save the numbers in it as variables of their own.")
    size = byte_size(shape, 8)
    if kind != _SPARSE and (size is None or not is_plausible(size, source.size)):
        raise RefusedTensor(f"{label} {shape} claims more than the file can hold.", "Write it again.")


def _tensor(source: Source, name: str, kind: str, values: Any) -> Tensor:
    """The values as they are stored: whole doubles are kept as small integers, and are doubles again here."""
    stored = np.asarray(values.data if kind == _SPARSE else values)
    wanted = {"double": np.float64, "single": np.float32, "logical": np.bool_}.get(kind)
    if wanted is not None and stored.dtype.kind != "c":
        stored = stored.astype(wanted)
    stored = np.ascontiguousarray(stored.astype(stored.dtype.newbyteorder("=")))
    dtype, _ = npy.dtype_of(stored.dtype.str, f"{source.name}:{printable(name)}", None)
    note = "sparse: the values that are stored" if kind == _SPARSE else ""
    return Tensor(source.file, name, dtype, stored.shape, lambda: stored, note=note)


READER = FileReader("mat", (".mat",), lambda source: source.head.startswith(b"MATLAB 5.0"), _open)
