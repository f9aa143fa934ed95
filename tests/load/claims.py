"""Files of a few kilobytes that claim terabytes, of every format; and, as a program, what reading them costs.

    python tests/load/claims.py FILE ...

Prints a JSON line for each: its name, seconds, bytes by which the peak of memory grew, what was said.
"""

from __future__ import annotations

import importlib.util
import io
import json
import resource
import signal
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

HUGE = 1 << 40
LARGEST_FILE = 1 << 27
"""Bytes of a file that reading may write: what packages unpack may be 64 MiB and 1,032 times what it is packed in."""


def npy(shape: tuple[int, ...] = (HUGE,), order: str = "False") -> bytes:
    """A header, and sixteen bytes."""
    text = f"{{'descr': '<f4', 'fortran_order': {order}, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(16)


def zipped(
    name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED, claimed: int | None = None
) -> bytes:
    """A zip of one entry, whose table of contents may claim another size."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(name, content)
        if claimed is not None:
            archive.filelist[0].file_size = claimed
    return stream.getvalue()


def overlapping(count: int = 2000) -> bytes:
    """A zip of many entries that are all the same packed zeros: each may unpack to a thousand times its bytes."""
    header = npy((1 << 20,))[:-16]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    plain = header + bytes(1 << 22)
    packed = packer.compress(plain) + packer.flush()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.npy", plain)
        first = archive.filelist[0]
        for number in range(1, count):
            again = zipfile.ZipInfo(f"{number}.npy")
            again.compress_type, again.CRC = zipfile.ZIP_DEFLATED, first.CRC
            again.compress_size, again.file_size, again.header_offset = len(packed), len(plain), 0
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
    return stream.getvalue()


def safetensors(shape: int = HUGE, end: int = 16) -> bytes:
    """A header, and sixteen bytes."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [shape], "data_offsets": [0, end]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


def gguf(dimension: int, text: int = 1, tensors: int = 1) -> bytes:
    """A tensor with one dimension, after a piece of text that claims ``text`` bytes."""
    pair = struct.pack("<Q", 1) + b"a" + struct.pack("<IQ", 8, text) + b"x"
    entry = struct.pack("<Q", 1) + b"w" + struct.pack("<IQIQ", 1, dimension, 0, 0)
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, 1) + pair + entry + bytes(64)


def varint(number: int) -> bytes:
    """As protobuf writes it."""
    found = bytearray()
    while number >= 128:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def onnx(*parts: bytes) -> bytes:
    """A model with one initializer of ``HUGE`` float32, and what follows in it."""
    tensor = b"\x08" + varint(HUGE) + b"\x10\x01" + b"\x42\x01w" + b"".join(parts)
    inner = b"\x2a" + varint(len(tensor)) + tensor
    return b"\x08\x08" + b"\x12\x07pytorch" + b"\x3a" + varint(len(inner)) + inner


def onnx_elsewhere() -> bytes:
    """The same, whose values are said to lie in the model itself, from byte 0 on."""
    told = [(b"location", b"elsewhere.onnx"), (b"length", str(4 * HUGE).encode())]
    entries = [b"\x0a" + varint(len(key)) + key + b"\x12" + varint(len(word)) + word for key, word in told]
    return onnx(*(b"\x6a" + varint(len(entry)) + entry for entry in entries), b"\x70\x01")


def msgpack(length: int = 16) -> bytes:
    """An array of ``HUGE`` float32 in ``length`` bytes, and a list of four billion."""
    inner = b"\x93\x91\xcf" + struct.pack(">Q", HUGE) + b"\xa7float32\xc6" + struct.pack(">I", length)
    inner += bytes(16)
    return b"\x82\xa1w\xc7" + bytes([len(inner)]) + b"\x01" + inner + b"\xa1x\xdd\xff\xff\xff\xff\xc0"


def hdf5(**options: object) -> bytes:
    """A dataset of ``HUGE`` float32 of which nothing was ever written."""
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_dataset("w", shape=(HUGE,), dtype="f4", **options)
    return stream.getvalue()


def mat(*, packed: bool, claimed: int = 1 << 30, shape: tuple[int, int] = (1, 1 << 30)) -> bytes:
    """A variable of a gibibyte of doubles whose bytes are missing."""
    flags = struct.pack("<IIII", 6, 8, 6, 0)
    sizes = struct.pack("<IIii", 5, 8, *shape)
    name = struct.pack("<HH4s", 1, 1, b"w")
    body = flags + sizes + name + struct.pack("<II", 9, claimed) + bytes(16)
    element = struct.pack("<II", 14, len(body) + claimed * (not packed) & 0xFFFFFFFF) + body
    if packed:
        content = zlib.compress(struct.pack("<II", 14, len(body)) + body)
        element = struct.pack("<II", 15, len(content)) + content
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49) + element


def parquet() -> bytes:
    """A column of 17 million values that are all the same, in one page of a few bytes."""
    import pyarrow as pa
    from pyarrow import parquet

    stream = io.BytesIO()
    same = pa.DictionaryArray.from_arrays(np.zeros(17_500_000, np.int8), pa.array([0.0], pa.float32()))
    lone = {"max_rows_per_page": 1 << 30, "write_batch_size": 1 << 25, "row_group_size": 1 << 27}
    try:
        parquet.write_table(pa.table({"w": same}), stream, **lone)
    except TypeError:  # older ones cannot be told
        return b"PAR1"
    return stream.getvalue()


def arrow() -> bytes:
    """A column whose buffer claims to unpack to a terabyte."""
    import pyarrow as pa

    stream = io.BytesIO()
    table = pa.table({"w": pa.array(np.zeros(1 << 16, np.float32))})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(stream, table.schema, options=options) as writer:
        writer.write_table(table)
    content = bytearray(stream.getvalue())
    packed = content.index(b"\x28\xb5\x2f\xfd")  # before it stands how many bytes it unpacks to
    content[packed - 8 : packed] = struct.pack("<q", 4 * HUGE)
    return bytes(content)


def torch_files() -> dict[str, bytes]:
    """Views of one value, of terabytes, in both of torch's formats."""
    import torch

    found = {}
    for name, zipped_too in (("view.pt", True), ("view-legacy.pt", False)):
        stream = io.BytesIO()
        content = {"w": torch.zeros(1).expand(HUGE), "fine": torch.ones(2)}
        torch.save(content, stream, _use_new_zipfile_serialization=zipped_too)
        found[name] = stream.getvalue()
    return found


MAKERS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "shape.npy": ("", npy),
    "fortran.npy": ("", lambda: npy((1 << 20, 1 << 20), "True")),
    "shape.npz": ("", lambda: zipped("w.npy", npy())),
    "stored.npz": ("", lambda: zipped("w.npy", npy(), zipfile.ZIP_STORED)),
    "entry.npz": ("", lambda: zipped("w.npy", npy(), claimed=4 * HUGE + 80)),
    "overlapping.npz": ("", overlapping),
    "pickle.pt": ("", lambda: zipped("archive/data.pkl", b"\x80\x02}q\x00.", claimed=HUGE)),
    "header.safetensors": ("", lambda: struct.pack("<Q", 1 << 55) + b'{"w":{"data_offsets":[0,16]}}'),
    "shape.safetensors": ("", safetensors),
    "end.safetensors": ("", lambda: safetensors(HUGE, 4 * HUGE)),
    "dimension.gguf": ("", lambda: gguf(HUGE)),
    "text.gguf": ("", lambda: gguf(4, text=HUGE)),
    "count.gguf": ("", lambda: gguf(4, tensors=HUGE)),
    "dims.onnx": ("", onnx),
    "bytes.onnx": ("", lambda: onnx(b"\x4a" + varint(4 * HUGE))),
    "elsewhere.onnx": ("", onnx_elsewhere),
    "array.msgpack": ("", msgpack),
    "bytes.msgpack": ("", lambda: msgpack((1 << 32) - 1)),
    "line.csv": ("", lambda: b"1," * 2047 + b"1\n" + b"1," * 4_000 + b"\n"),
    "m.safetensors.index.json": (
        "",
        lambda: b'{"weight_map": ' + b'{"a":' * 5_000 + b"1" * 5_000 + b"}" * 5_001,
    ),
    "chunked.h5": ("h5py", lambda: hdf5(chunks=(1 << 20,))),
    "contiguous.h5": ("h5py", hdf5),
    "packed.h5": ("h5py", lambda: hdf5(chunks=(1 << 20,), compression="gzip")),
    "m.keras": ("h5py", lambda: zipped("model.weights.h5", hdf5(chunks=(1 << 20,)))),
    "plain.mat": ("scipy", lambda: mat(packed=False)),
    "packed.mat": ("scipy", lambda: mat(packed=True)),
    "small-shape.mat": ("scipy", lambda: mat(packed=True, shape=(1, 1))),
    "same.parquet": ("pyarrow", parquet),
    "buffer.arrow": ("pyarrow", arrow),
}
"""By name: the package that is needed, and what makes it."""


def write(folder: Path) -> list[str]:
    """Those whose packages are installed; their paths."""
    made = {
        name: make()
        for name, (package, make) in MAKERS.items()
        if not package or importlib.util.find_spec(package)
    }
    made |= torch_files()
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return [str(folder / name) for name in sorted(made)]


def main() -> None:
    """See above."""
    import nanhunt

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    for path in sys.argv[1:]:
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        report = nanhunt.check(path)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        said = [error.message for error in report.errors]
        print(json.dumps([Path(path).name, time.perf_counter() - began, grown, said]), flush=True)


if __name__ == "__main__":
    main()
