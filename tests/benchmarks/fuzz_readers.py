"""Mutated files and folders of every format by the thousand, batches in processes of their own: all is read or refused.

    python tests/benchmarks/fuzz_readers.py [FORMAT ...] [--files 1000] [--seed 0]

Prints, by format, how many were read, refused, and ended in another exception or took the process down, and the first
of those. Packages in C (h5py, pyarrow) can be taken down by what they read: see .github/SECURITY.md.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "load"))
import folder_seeds
from seeds import SMALL, packaged

from nanhunt.errors import NanhuntError
from nanhunt.load import open_path

BATCH = 200
PATIENCE = 60.0
"""Seconds for a batch."""


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A few bytes flipped, cut out, put in, or the end cut off."""
    made = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(made))
        kind = rng.randrange(5)
        if kind < 2:
            made[at] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        elif kind == 2:
            del made[at : at + rng.randint(1, 8)]
        elif kind == 3:
            made[at:at] = rng.randbytes(rng.randint(1, 8))
        elif len(made) > 20:
            del made[rng.randrange(12, len(made)) :]
        if not made:
            made = bytearray(b"x")
    return bytes(made)


def batch(name: str, seed: int, found: Any) -> None:
    """Opens and reads so many files."""
    warnings.simplefilter("ignore")
    small = SMALL | packaged()
    files = (
        {"file": small[name], "shard": SMALL["safetensors"]} if name in small else folder_seeds.folder(name)
    )
    rng = random.Random(f"{name} {seed}")
    with tempfile.TemporaryDirectory() as folder:
        path = folder_seeds.write(Path(folder), files)
        path = f"{folder}/file" if name in small else path
        for _ in range(BATCH):
            hit = "file" if name in small else rng.choice(sorted(files))
            (Path(folder) / hit).write_bytes(mutated(files[hit], rng))
            found.put(outcome(path))
            (Path(folder) / hit).write_bytes(files[hit])


def outcome(path: str) -> str:
    """ "read", "refused", or the last line of a traceback."""
    try:
        container = open_path(path)
        for tensor in (*container.tensors.values(), *container.numbers.values()):
            if tensor.data.nbytes < 1 << 24:
                tensor.data.tobytes()
    except NanhuntError:
        return "refused"
    except Exception:
        return traceback.format_exc().strip().splitlines()[-1][:100]
    return "read"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("formats", nargs="*")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="other ones draw other files")
    asked = parser.parse_args()
    context = get_context("spawn")
    folders = [name for name in folder_seeds.NAMES if folder_seeds.folder(name)]
    for name in asked.formats or [*SMALL, *packaged(), *folders]:
        counts: Counter[str] = Counter()
        for seed in range(asked.seed, asked.seed + max(1, asked.files // BATCH)):
            found = context.Queue()
            process = context.Process(target=batch, args=(name, seed, found))
            process.start()
            try:
                for _ in range(BATCH):
                    counts[found.get(timeout=PATIENCE)] += 1
            except Empty:
                counts[f"taken down or stuck: batch {seed}, exit code {process.exitcode}"] += 1
                process.kill()
            process.join()
        others = {what: number for what, number in counts.items() if what not in ("read", "refused")}
        print(
            f"{name:16} {counts['read']:7,} read {counts['refused']:7,} refused   {others or ''}", flush=True
        )


if __name__ == "__main__":
    main()
