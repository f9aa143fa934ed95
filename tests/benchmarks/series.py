"""A run of 200 checkpoints of 300 tensors: time and memory of check, of --first and of last-good.

    python tests/benchmarks/series.py [--checkpoints 200] [--tensors 300] [--values 4096]

A NaN is planted three quarters in. Prints one line a command: seconds, peak memory, characters, what it found.
Table of 2026-11-28, 60,000 tensors of 4,096 float32 (0.9 GiB), two idle cores:

  check                  18.54 s    158 MiB       1,036 characters
  check --first           1.37 s     47 MiB         564 characters
  last-good               2.54 s     42 MiB          32 characters (50 of 200 are refused first)
  check --format html    19.29 s    154 MiB   1,046,239 characters
  check --format json    17.71 s    152 MiB   2,759,603 characters

Of check, 0.3 s is the time it takes to say where it began.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

COMMANDS = ("check", "check --first", "last-good", "check --format html", "check --format json")


def write(run: Path, checkpoints: int, tensors: int, values: int) -> int:
    """Writes the run; returns its first bad step."""
    random = np.random.default_rng(0)
    weights = {
        f"model.layers.{number // 10}.w{number % 10}.weight": random.standard_normal(values).astype(
            np.float32
        )
        for number in range(tensors)
    }
    first_bad = max(2, 3 * checkpoints // 4)
    for step in range(1, checkpoints + 1):
        if step == first_bad:
            weights[f"model.layers.{tensors // 20}.w0.weight"][7] = np.nan
        folder = run / f"checkpoint-{step}"
        folder.mkdir()
        save_file(weights, folder / "model.safetensors")
    return first_bad


def measured(*arguments: str) -> tuple[float, int, str]:
    """(seconds, peak memory in MiB, standard output) of one nanhunt command."""
    begin = time.perf_counter()
    done = subprocess.Popen(
        [sys.executable, "-m", "nanhunt", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    text = done.stdout.read() if done.stdout else ""
    _, _, usage = os.wait4(done.pid, 0)
    return time.perf_counter() - begin, usage.ru_maxrss >> 10, text


def main() -> None:
    """Writes the run, then times each command on it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("checkpoints", 200), ("tensors", 300), ("values", 4096)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first_bad = write(Path(folder), given.checkpoints, given.tensors, given.values)
        print(
            f"{given.checkpoints} checkpoints of {given.tensors} tensors, the first bad step is {first_bad}"
        )
        for command in COMMANDS:
            seconds, memory, text = measured(*command.split(), folder)
            told = next(
                (line for line in text.splitlines() if "bad: step" in line or "checkpoint-" in line), ""
            )
            print(f"{command:20} {seconds:7.2f} s {memory:6,} MiB  {len(text):>10,} characters  {told[:70]}")


if __name__ == "__main__":
    main()
