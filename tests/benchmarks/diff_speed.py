"""``nanhunt diff`` against a bare read of both files: ``python tests/benchmarks/diff_speed.py [MiB]``.

Whole processes, medians of 3: two equal files, one flipped value, every value rounded; with the files in the page
cache, and read from the disk. The bare read maps both files and compares them with NumPy.

``diff_speed.py --larger-than-memory [GiB]`` compares two sparse files of that size (8), which differ in a NaN and in
every value of a tensor of 1/64, and prints the most memory that any process of it held, mapped pages included:
180 MiB, where the files are 8 GiB each.

Measured on two idle cores, 2 x 2 GiB, beside the bare read: equal 0.74 s (0.46) from the page cache and 3.70 s (3.21)
from disk, one value flipped 1.01 (0.69) and 4.13 (3.08), every value rounded 3.44 (0.50) and 5.70 (3.69): 10 to 15 ns a
value and core are arithmetic, most of it exponents, dot products and the largest differences.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

TENSORS = 8
BARE = """
import sys, mmap
import numpy as np
one, other = (np.memmap(path, np.uint8, "r") for path in sys.argv[1:])
step = 1 << 24
print(all([np.array_equal(one[at:at + step], other[at:at + step]) for at in range(0, one.size, step)]))
"""


def forget(paths: Iterable[str]) -> None:
    """Takes files out of the page cache."""
    for path in paths:
        with Path(path).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(*command: str, times: int = 3, forgotten: Sequence[str] = ()) -> float:
    """The median of several runs, each with those files out of the page cache."""
    taken = []
    for _ in range(times):
        forget(forgotten)
        began = time.monotonic()
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        taken.append(time.monotonic() - began)
    return statistics.median(taken)


def write(path: Path, change: str, mebibytes: int) -> str:
    """A checkpoint of that size; the same values but for the change."""
    values = np.random.default_rng(0).standard_normal(mebibytes * (1 << 18) // TENSORS, np.float32)
    changed = values * np.float32(1 + 2e-7) if change == "every value rounded" else values
    tensors = {f"layers.{number}.weight": changed for number in range(TENSORS)}
    if change == "one value flipped":
        flipped = changed.copy()
        flipped[flipped.size // 2] *= -1
        tensors[f"layers.{TENSORS - 1}.weight"] = flipped
    save_file(tensors, path)
    return str(path)


def write_sparse(path: Path, gibibytes: int, change: bool) -> str:
    """A checkpoint of that size that is holes but for the differences."""
    count = gibibytes << 28
    sizes = {f"layers.{number}.weight": count // 4 for number in range(3)}
    sizes |= {"rounded": count // 64, "last": count // 4 - count // 64}
    header, at = {}, 0
    for name, size in sizes.items():
        header[name] = {"dtype": "F32", "shape": [size], "data_offsets": [at, at := at + 4 * size]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        begin = file.tell()
        file.truncate(begin + at)
        if change:
            file.seek(begin + 4 * 12345)
            file.write(np.float32(np.nan).tobytes())
            file.seek(begin + header["rounded"]["data_offsets"][0])
            for _ in range(0, sizes["rounded"], 1 << 18):
                file.write(np.full(1 << 18, 1e-3, np.float32))
    return str(path)


def memory(gibibytes: int) -> None:
    """Prints a line."""
    with tempfile.TemporaryDirectory() as folder:
        a, b = (
            write_sparse(Path(folder) / f"{name}.safetensors", gibibytes, change)
            for name, change in (("a", False), ("b", True))
        )
        took = seconds(sys.executable, "-m", "nanhunt", "diff", a, b, times=1)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"2 x {gibibytes} GiB: {took:.1f} s, peak memory of a process {peak:.0f} MiB")


def main(mebibytes: int) -> None:
    """Prints a table."""
    with tempfile.TemporaryDirectory() as folder:
        a = write(Path(folder) / "a.safetensors", "", mebibytes)
        start = seconds(sys.executable, "-m", "nanhunt", "--version")
        print(f"2 x {mebibytes} MiB; start of the process {start:.2f} s")
        for change in ("equal", "one value flipped", "every value rounded"):
            b = write(Path(folder) / "b.safetensors", change, mebibytes)
            for place, forgotten in (("cached", ()), ("from disk", (a, b))):
                bare = seconds(sys.executable, "-c", BARE, a, b, forgotten=forgotten)
                took = seconds(sys.executable, "-m", "nanhunt", "diff", a, b, forgotten=forgotten)
                rate = 2 * mebibytes / 1024 / max(took - start, 1e-3)
                print(f"{change:20} {place:9}  {took:.2f} s ({rate:.1f} GiB/s), bare read {bare:.2f} s")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest peak memory of all of these {peak:.0f} MiB, mapped pages of the files included")


if __name__ == "__main__":
    asked = [int(word) for word in sys.argv[1:] if word.isdigit()]
    if "--larger-than-memory" in sys.argv:
        memory(*asked or [8])
    else:
        main(*asked or [256])
