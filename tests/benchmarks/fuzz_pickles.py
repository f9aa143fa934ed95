"""Mutated checkpoints by the thousand: a container or a NanhuntError, never another exception, and nothing runs.

``python tests/benchmarks/fuzz_pickles.py [10000 [SEED]]`` prints how many were read and how many refused; a smaller
draw is in tests/load/test_fuzz.py.
"""

from __future__ import annotations

import argparse
import io
import pickle
import random
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch

from nanhunt.errors import NanhuntError
from nanhunt.load import open_path


class Bomb:
    """Whoever unpickles it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> object:
        return open, (self.path, "w")


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, cut out or repeated."""
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(damaged))
        match rng.randrange(3):
            case 0:
                damaged[place] = rng.randrange(256)
            case 1:
                del damaged[place : place + rng.randint(1, 8)]
            case _:
                damaged[place:place] = damaged[max(0, place - 8) : place]
    return bytes(damaged)


def main(count: int, seed: int = 0) -> int:
    """Runs the draw; 1 when anything ran."""
    rng, tally = random.Random(seed), {"read": 0, "refused": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ran, path = folder / "ran", folder / "x.pt"
        content = {
            "w": torch.ones(3, 4), "b": np.arange(3.0), "args": argparse.Namespace(lr=0.1), "bomb": Bomb(ran),
            "module": torch.nn.Linear(2, 2), "z": torch.ones(2, dtype=torch.complex64),
        }  # fmt: skip
        for _ in range(count):
            stream = io.BytesIO()
            options = {"pickle_protocol": rng.randint(2, 5)}
            torch.save(content, stream, _use_new_zipfile_serialization=rng.random() < 0.7, **options)
            whole = stream.getvalue()
            if whole.startswith(b"PK"):
                with zipfile.ZipFile(stream) as archive:
                    entries = {each: archive.read(each) for each in archive.namelist()}
                with zipfile.ZipFile(path, "w") as archive:
                    for each, inside in entries.items():
                        archive.writestr(each, mutated(inside, rng) if each.endswith(".pkl") else inside)
            else:
                path.write_bytes(mutated(whole, rng))
            try:
                for tensor in open_path(str(path)).tensors.values():
                    assert tensor.data.shape == tensor.shape
                tally["read"] += 1
            except NanhuntError:
                tally["refused"] += 1
            if ran.exists():
                print("something ran:", pickle.dumps(path.read_bytes())[:80])
                return 1
    print(f"{count:,} mutated checkpoints: {tally['read']:,} read, {tally['refused']:,} refused, nothing ran")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3] or [10_000])))
