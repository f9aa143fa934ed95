"""How far it goes: time, memory and report size of inputs that are large in one way each, and how time grows.

    python tests/benchmarks/scale.py [CASE ...] [--share 0.1]

``--share`` makes every case so much smaller. Each runs as its own process; memory is its peak, mapped pages included.
The slope is log(time) over log(size) between half the size and all of it: 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def many_files(folder: Path, share: float) -> None:
    """3,000 files of logits, one in a hundred with a NaN."""
    logits = np.random.default_rng(0).standard_normal((16, 100)).astype(np.float32)
    for step in range(int(3000 * share)):
        logits[3, 5] = np.nan if step % 100 == 0 else 0
        np.save(folder / f"step-{step}.npy", logits)


def many_tensors(folder: Path, share: float) -> None:
    """20,000 tensors in one file, each of 1,024 values."""
    _safetensors(folder / "model.safetensors", int(20_000 * share), (1024,))


def sparse(folder: Path, share: float) -> None:
    """20 GB of zeros, which lie nowhere on the disk: 20 tensors."""
    _safetensors(folder / "model.safetensors", 20, (int(250_000_000 * share),))


def wide(folder: Path, share: float) -> None:
    """One row of 1e8 classes."""
    _zeros(folder / "logits.npy", (1, int(1e8 * share)))


def tall(folder: Path, share: float) -> None:
    """1e8 rows of 2 classes."""
    _zeros(folder / "logits.npy", (int(1e8 * share), 2))


CASES: dict[str, Callable[[Path, float], None]] = {
    each.__name__: each for each in (many_files, many_tensors, sparse, wide, tall)
}


def _safetensors(path: Path, tensors: int, shape: tuple[int, ...]) -> None:
    size = 4 * math.prod(shape)
    header = json.dumps({
        f"layers.{number}.weight": {
            "dtype": "F32", "shape": shape, "data_offsets": [number * size, (number + 1) * size],
        }
        for number in range(tensors)
    }).encode()  # fmt: skip
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + tensors * size)


def _zeros(path: Path, shape: tuple[int, ...]) -> None:
    np.lib.format.open_memmap(path, "w+", np.float32, shape)


def measured(case: str, share: float) -> tuple[float, int, int]:
    """(seconds, peak bytes of memory, bytes of the report)."""
    with tempfile.TemporaryDirectory() as name:
        CASES[case](Path(name), share)
        command = [sys.executable, "-m", "nanhunt", "check", name, "--format", "json", "--isolated"]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        size = len(process.stdout.read())
        _, _, usage = os.wait4(process.pid, 0)
        return time.perf_counter() - began, _peak(usage), size


def _peak(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=[*CASES])
    parser.add_argument("--share", type=float, default=1.0)
    asked = parser.parse_args()
    print(f"{'case':14} {'seconds':>8} {'memory':>9} {'report':>9} {'slope':>6}")
    for case in asked.cases:
        half, _, _ = measured(case, asked.share / 2)
        seconds, memory, size = measured(case, asked.share)
        slope = math.log2(seconds / half)
        print(f"{case:14} {seconds:8.1f} {memory >> 20:6,} MB {size >> 10:6,} kB {slope:6.2f}", flush=True)


if __name__ == "__main__":
    main()
