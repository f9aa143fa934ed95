"""What a file is, judged by its first bytes and never by its suffix."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nanhunt.errors import NanhuntError
from nanhunt.load.readers import index, npy
from nanhunt.load.source import Source
from nanhunt.load.wording import READABLE

if TYPE_CHECKING:
    from zipfile import ZipInfo

HEAD = 4096
"""Bytes looked at."""


class Format(enum.StrEnum):
    """The formats nanhunt reads."""

    NPY = "npy"
    NPZ = "npz"
    PT = "pt"
    PT_LEGACY = "pt-legacy"
    SAFETENSORS = "safetensors"
    INDEX = "index"


class UnknownContent(NanhuntError):  # noqa: N818 - says what it is instead
    """Bytes of another format: a search of a folder passes them by."""


@dataclass(frozen=True)
class Recognised:
    """A format, and for a zip the table of contents that told it."""

    format: Format
    entries: tuple[ZipInfo, ...] = ()


def recognise(source: Source) -> Recognised:
    """The format of the bytes in ``source``.

    Raises UnknownContent naming what it looks like, NanhuntError for a damaged archive or a git LFS pointer.
    """
    head = source.head(HEAD)
    if head.startswith(npy.MAGIC):
        return Recognised(Format.NPY)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(source)
    if _is_safetensors(head):
        return Recognised(Format.SAFETENSORS)
    if _is_legacy_pt(head):
        return Recognised(Format.PT_LEGACY)
    if head.lstrip()[:1] == b"{" and f'"{index.KEY}"'.encode() in head:
        return Recognised(Format.INDEX)
    if head.startswith(b"version https://git-lfs"):
        raise NanhuntError(
            f"{source.name} is a git LFS pointer, not the file itself.", "Fetch it: git lfs pull"
        )
    raise _unknown(source, head)


def _zip(source: Source) -> Recognised:
    # Loaded here because they bring zipfile and its decompressors.
    from nanhunt.load.readers import pt, zipped

    entries = tuple(zipped.entries(source))
    names = [entry.filename for entry in entries]
    if pt.is_pt(names):
        return Recognised(Format.PT, entries)
    if any(name.endswith(".npy") for name in names) or not names:
        return Recognised(Format.NPZ, entries)
    hint = f"Unzip it and name the files in it; nanhunt reads {READABLE}."
    raise UnknownContent(f"{source.name} is a zip archive without .npy files or a torch checkpoint.", hint)


def _is_safetensors(head: bytes) -> bool:
    if head[8:9] != b"{":
        return False
    # The length before the brace is little-endian: text has no zero in its last byte, an absurd length may.
    return head[7] == 0 or b'"data_offsets"' in head


def _is_legacy_pt(head: bytes) -> bool:
    from nanhunt.load.readers import pt

    return head[:1] == b"\x80" and pt.LEGACY_MAGIC in head[:32]


_UNPACK = "Unpack it first, or pipe it: {} | nanhunt check -"
_SAVE = "Read it with its own library and save the numbers: numpy.save('logits.npy', array)."
_SAVEZ = "Load it in its own library and save the arrays: numpy.savez('weights.npz', **arrays)."
_DOWNLOAD = "Download it again and look at what came."

_FOREIGN: tuple[tuple[str, bytes, str], ...] = (
    ("HDF5 (Keras .h5, NetCDF)", rb"\x89HDF\r\n\x1a\n", "numpy.save('x.npy', h5py.File(PATH)['NAME'][...])"),
    ("a PNG image", rb"\x89PNG", _SAVE),
    ("a JPEG image", rb"\xff\xd8\xff", _SAVE),
    ("a GIF image", rb"GIF8", _SAVE),
    ("a TIFF image", rb"II\*\x00|MM\x00\*", _SAVE),
    ("a PDF", rb"%PDF", _SAVE),
    ("gzip", rb"\x1f\x8b", _UNPACK.format("zcat PATH")),
    ("zstandard", rb"\x28\xb5\x2f\xfd", _UNPACK.format("zstdcat PATH")),
    ("xz", rb"\xfd7zXZ\x00", _UNPACK.format("xzcat PATH")),
    ("bzip2", rb"BZh[1-9]1AY", _UNPACK.format("bzcat PATH")),
    ("LZ4", rb"\x04\x22\x4d\x18", _UNPACK.format("lz4cat PATH")),
    ("a tar archive (NeMo, or torch before 0.4)", rb"(?s).{257}ustar", "Unpack it: tar xf PATH"),
    ("Parquet", rb"PAR1", _SAVE),
    ("Arrow", rb"ARROW1|FEA1", _SAVE),
    ("GGUF", rb"GGUF", "Check the .safetensors it was made from; its blocks are quantized."),
    ("MATLAB", rb"MATLAB 5\.0", "numpy.save('logits.npy', scipy.io.loadmat(PATH)['NAME'])"),
    ("TensorFlow Lite", rb"(?s).{4}TFL3", _SAVE),
    ("a TensorFlow SavedModel", rb"\x08\x01\x12", _SAVEZ),
    ("a TensorFlow checkpoint's state", rb"model_checkpoint_path:", _SAVEZ),
    ("ONNX", rb"\x08[\x03-\x1f][\x12:]", _SAVEZ),
    ("an HTML page", rb"(?i)\s*<(!doctype )?html", _DOWNLOAD),
    ("nothing but zero bytes: a download or write that never finished", rb"\x00{64}\x00*\Z", _DOWNLOAD),
    ("a Python pickle", rb"\x80[\x02-\x05]", "Unpickling can run code. " + _SAVE),
    ("JSON", rb"\s*[\[{]\s*([\"\[{}\]0-9-]|\Z)", "Save numpy.array(values) with numpy.save."),
)  # fmt: skip
"""What people hand in by mistake: name, first bytes, way out."""


def _unknown(source: Source, head: bytes) -> UnknownContent:
    for name, pattern, hint in _FOREIGN:
        if re.match(pattern, head):
            return UnknownContent(f"{source.name} is not a tensor file: it looks like {name}.", hint)
    if _is_text(head):
        hint = "Convert a table of numbers: numpy.save('logits.npy', numpy.loadtxt(PATH, delimiter=','))."
        return UnknownContent(f"{source.name} is not a tensor file: it looks like text.", hint)
    return UnknownContent(
        f"{source.name} is in no format that nanhunt knows.", f"It reads {READABLE}. {_SAVE}"
    )


def _is_text(head: bytes) -> bool:
    text = head.decode("utf-8", "ignore")
    readable = sum(char.isprintable() or char.isspace() for char in text)
    return len(text.encode()) > 0.95 * len(head) and readable > 0.95 * len(text)
