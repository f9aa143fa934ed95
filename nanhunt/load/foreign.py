"""Files that nanhunt does not read, told by their first bytes: what they are, and the way to a file it reads."""

from __future__ import annotations

import re

from nanhunt.errors import NanhuntError
from nanhunt.load.source import Source
from nanhunt.load.wording import READABLE


class UnknownContent(NanhuntError):  # noqa: N818 - says what it is instead
    """Bytes of another format: a search of a folder passes them by, and says so."""

    def __init__(self, message: str, hint: str, kind: str) -> None:
        super().__init__(message, hint)
        self.kind = kind
        """What it looks like: "ONNX", "text"."""


_UNPACK = "Unpack it first, or pipe it: {} | nanhunt check -"
_SAVE = "Read it with its own library and save the numbers: numpy.save('logits.npy', array)."
_SAVEZ = "Load it in its own library and save the arrays: numpy.savez('weights.npz', **arrays)."
_TABLE = "A table of numbers needs two columns at least: numpy.save('x.npy', numpy.loadtxt(PATH{})) converts others."
_DOWNLOAD = "Download it again and look at what came."

_FOREIGN: tuple[tuple[str, bytes, str], ...] = (
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
    ("encrypted Parquet", rb"PARE", _SAVE),
    ("Feather of version 1", rb"FEA1", "Write it again with pyarrow.feather.write_feather."),
    ("TensorFlow Lite", rb"(?s).{4}TFL3", _SAVE),
    ("a TensorFlow SavedModel", rb"\x08\x01\x12", _SAVEZ),
    ("a TensorFlow checkpoint's state", rb"model_checkpoint_path:", _SAVEZ),
    ("an HTML page", rb"(?i)\s*<(!doctype )?html", _DOWNLOAD),
    ("nothing but zero bytes: a download or write that never finished", rb"\x00{64}\x00*\Z", _DOWNLOAD),
    ("a Python pickle", rb"\x80[\x02-\x05]", "Unpickling can run code. " + _SAVE),
    ("JSON", rb"\s*[\[{]\s*([\"\[{}\]0-9-]|\Z)", "Save numpy.array(values) with numpy.save."),
)  # fmt: skip
"""What people hand in by mistake: name, first bytes, way out."""


def refusal(source: Source) -> NanhuntError:
    """What to say about a file that no reader recognises; UnknownContent unless it only stands for another."""
    head = source.head
    if head.startswith(b"version https://git-lfs"):
        return NanhuntError(
            f"{source.name} is a git LFS pointer, not the file itself.", "Fetch it: git lfs pull"
        )
    if source.archive is not None:
        hint = f"Unzip it and name the files in it; nanhunt reads {READABLE}."
        message = f"{source.name} is a zip archive without .npy files or a torch checkpoint."
        return UnknownContent(message, hint, "zip archive")
    for name, pattern, hint in _FOREIGN:
        if re.match(pattern, head):
            return UnknownContent(
                f"{source.name} is not a tensor file: it looks like {name}.", hint, name.partition(":")[0]
            )
    if _is_text(head):
        return UnknownContent(
            f"{source.name} is not a tensor file: it looks like text.", _table(head), "text"
        )
    message = f"{source.name} is in no format that nanhunt knows."
    return UnknownContent(message, f"It reads {READABLE}. {_SAVE}", "unknown format")


def _table(head: bytes) -> str:
    """The way to a file for numbers as text; pandas and R write a line of names above them."""
    first = head.decode("utf-8", "ignore").partition("\n")[0]
    return _TABLE.format("" if first.startswith("#") or _are_numbers(first.split()) else ", skiprows=1")


def _are_numbers(words: list[str]) -> bool:
    try:
        _ = [float(word) for word in words]
    except ValueError:
        return False
    return True


def _is_text(head: bytes) -> bool:
    text = head.decode("utf-8", "ignore")
    readable = sum(char.isprintable() or char.isspace() for char in text)
    return len(text.encode()) > 0.95 * len(head) and readable > 0.95 * len(text)
