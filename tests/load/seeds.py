"""Small whole files of every format that is read: what fuzzing begins with."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
import struct
import tarfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)
CONTENT = {"a": torch.ones(3, 4), "b": [torch.zeros(2, dtype=torch.bfloat16)]}


def numpy_bytes(save: Callable[..., Any], *arguments: Any, **options: Any) -> bytes:
    """What a function of NumPy writes."""
    stream = io.BytesIO()
    save(stream, *arguments, **options)
    return stream.getvalue()


def torch_bytes(content: Any, **options: Any) -> bytes:
    """What torch.save writes."""
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def gguf() -> bytes:
    """A float and a quantized tensor, metadata of several kinds."""
    text = lambda word: struct.pack("<Q", len(word)) + word  # noqa: E731
    pairs = text(b"a") + struct.pack("<If", 6, 1.0)
    pairs += text(b"words") + struct.pack("<IIQ", 9, 8, 2) + 2 * text(b"ab")
    entries = text(b"w") + struct.pack("<IQQIQ", 2, 4, 3, 0, 0)
    entries += text(b"q") + struct.pack("<IQIQ", 1, 64, 8, 64)
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 2) + pairs + entries
    return head + bytes(-len(head) % 32) + VALUES.tobytes() + bytes(16) + bytes(68)


def field(number: int, content: bytes | int) -> bytes:
    """A field of a protobuf message, shorter than 128 bytes."""
    if isinstance(content, int):
        return bytes([number << 3, content])
    return bytes([number << 3 | 2, len(content)]) + content


def onnx() -> bytes:
    """A model with one initializer as bytes and one as numbers."""
    raw = field(1, 3) + field(1, 4) + field(2, 1) + field(8, b"w") + field(9, VALUES.tobytes())
    typed = field(1, bytes([2])) + field(2, 10) + field(5, bytes([1, 2])) + field(8, b"h")
    return field(1, 8) + field(2, b"pytorch") + field(7, field(5, raw) + field(5, typed) + field(2, b"g"))


def msgpack() -> bytes:
    """An array, a number and a list."""
    array = b"\x93\x92\x03\x04\xa7float32\xc4" + bytes([48]) + VALUES.tobytes()
    return (
        b"\x83\xa1w\xc7"
        + bytes([len(array)])
        + b"\x01"
        + array
        + b"\xa1x\xcb"
        + struct.pack(">d", 0.5)
        + b"\xa1y\x92\x01\xc0"
    )


def pt_tar() -> bytes:
    """A checkpoint of torch before 0.1.10: one storage, one tensor."""
    pickles = lambda *items: b"".join(pickle.dumps(item, 2) for item in items)  # noqa: E731
    parts = {
        "sys_info": b"",
        "pickle": b"\x80\x02}X\x01\x00\x00\x00wX\x02\x00\x00\x0010Qs.",
        "tensors": pickles(1, (10, 7, torch.FloatTensor)) + struct.pack("<2i5q", 2, 0, 3, 4, 4, 1, 0),
        "storages": pickles(1, (7, "cpu", torch.FloatStorage))
        + struct.pack("<q", 12)
        + VALUES.tobytes()
        + pickles([]),
    }
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


SMALL = {
    "npy": numpy_bytes(np.save, VALUES),
    "npy-big-endian": numpy_bytes(np.save, VALUES.astype(">f8")),
    "npz": numpy_bytes(np.savez, logits=VALUES, targets=np.arange(3)),
    "npz-compressed": numpy_bytes(np.savez_compressed, logits=VALUES, targets=np.arange(3)),
    "pt": torch_bytes(CONTENT),
    "pt-legacy": torch_bytes(CONTENT, _use_new_zipfile_serialization=False),
    "pt-tar": pt_tar(),
    "safetensors": safetensors_bytes({"a": CONTENT["a"], "b": CONTENT["b"][0]}),
    "index": json.dumps({"metadata": {"n": 1}, "weight_map": {"a": "shard", "b": "shard"}}).encode(),
    "gguf": gguf(),
    "onnx": onnx(),
    "msgpack": msgpack(),
    "table": b"a,b,label\n1.5,2,0\n,3e8,1\nnan,-inf,2\n",
}
"""By name; all of them read without an optional package."""


def packaged() -> dict[str, bytes]:
    """Those whose packages are installed."""
    found = {}
    if importlib.util.find_spec("pyarrow"):
        found |= _arrow()
    if importlib.util.find_spec("h5py"):
        found["hdf5"] = _hdf5()
    if importlib.util.find_spec("scipy"):
        import scipy.io

        found["mat"] = numpy_bytes(scipy.io.savemat, {"x": VALUES, "n": np.arange(3)}, do_compression=True)
    return found


def _arrow() -> dict[str, bytes]:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({
        "a": VALUES.tolist(), "b": [1.0, None, 3.0], "c": [[1.0], [2.0, 3.0], []],
        "d": pa.array([1.0, 2.0, 1.0]).dictionary_encode(),
        "e": pa.array([[("k", 1.0)], None, []], pa.map_(pa.string(), pa.float64())),
    })  # fmt: skip
    streams = [io.BytesIO() for _ in range(3)]
    parquet.write_table(table, streams[0])
    for stream, kind in zip(streams[1:], (pa.ipc.new_file, pa.ipc.new_stream), strict=True):
        with kind(stream, table.schema) as writer:
            writer.write_table(table)
    return dict(zip(("parquet", "arrow", "arrow-stream"), (each.getvalue() for each in streams), strict=True))


def _hdf5() -> bytes:
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["a/w"] = VALUES
        file.create_dataset("packed", data=VALUES, chunks=(2, 2), compression="gzip")
    return stream.getvalue()
