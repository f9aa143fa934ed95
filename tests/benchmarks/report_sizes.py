"""Reports of many tensors: seconds, memory and size of every format. ``python tests/benchmarks/report_sizes.py``.

Each in a process of its own, which reads the tensors' results from a pickle and renders them once. Table of 2026-11-25,
two cores shared with others:

2,000 healthy files
  text         0.90 s        5 MiB     0.000 MB        3 lines
  json         0.28 s        2 MiB     0.098 MB    2,034 lines
  github       0.27 s        2 MiB     0.000 MB        1 lines
  junit        1.47 s        8 MiB     0.572 MB   10,003 lines
  markdown     0.90 s        3 MiB     0.003 MB       61 lines
  html         4.73 s       15 MiB     0.939 MB    3,487 lines
3,000 files, 20,000 tensors, 20 bad
  text         7.35 s        8 MiB     0.003 MB       47 lines
  json         3.62 s        9 MiB     2.008 MB  103,513 lines
  github       2.13 s        3 MiB     0.010 MB       31 lines
  junit        2.93 s        5 MiB     0.943 MB   15,797 lines
  markdown     5.11 s        4 MiB     0.019 MB      449 lines
  html         8.40 s       14 MiB     2.766 MB    7,365 lines
3,000 files, 20,000 tensors, 1,500 bad
  text         5.02 s        7 MiB     0.003 MB       50 lines
"""

from __future__ import annotations

import pickle
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from nanhunt.render import REPORT_FORMATS, render
from nanhunt.results.report import Report

GOLDEN = Path(__file__).parents[1] / "golden" / "report.py"
CASES = {
    "2,000 healthy files": (2000, 1, 0),
    "3,000 files, 20,000 tensors, 20 bad": (3000, 7, 20),
    "3,000 files, 20,000 tensors, 1,500 bad": (3000, 7, 1500),
    "300 bad tensors": (300, 1, 300),
}
"""(files, tensors a file, bad ones)."""


def report(files: int, each: int, bad: int) -> Report:
    """The last ``bad`` tensors have findings, histograms, strips and close-ups."""
    golden: dict[str, Any] = runpy.run_path(str(GOLDEN))
    healthy, sick = golden["HEALTHY"], golden["STEPS"][2]
    tensors = [
        replace(
            sick if number >= files * each - bad else healthy,
            file=f"dumps/rank-{number // each % 8}/step-{number // each}.safetensors",
            tensor=f"model.layers.{number % each}.logits",
        )
        for number in range(files * each)
    ]
    return Report(golden["OPTIONS"], tuple(tensors), exit_code=int(bad > 0))


def one(path: str, format: str) -> None:
    """Renders once and prints seconds, peak of memory and size."""
    loaded = pickle.loads(Path(path).read_bytes())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    text = render(loaded, format)
    seconds = time.perf_counter() - began
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(
        f"{seconds:8.2f} s {more / 1024:8.0f} MiB {len(text.encode()) / 1e6:9.3f} MB {text.count(chr(10)):8,} lines"
    )


def main() -> None:
    """The table."""
    for name, numbers in CASES.items():
        with tempfile.NamedTemporaryFile() as file:
            file.write(pickle.dumps(report(*numbers)))
            file.flush()
            print(name)
            for format in REPORT_FORMATS:
                done = subprocess.run(
                    [sys.executable, __file__, file.name, format], capture_output=True, text=True, check=True
                )
                print(f"  {format:9}{done.stdout.rstrip()}", flush=True)


if __name__ == "__main__":
    one(*sys.argv[1:]) if len(sys.argv) == 3 else main()
