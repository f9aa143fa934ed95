"""What a check costs, beside the articles' code and beside one bare pass over the file.

    python tests/benchmarks/speed.py                    # everything up to 1 GiB; about ten minutes, 9 GB of disk
    python tests/benchmarks/speed.py --large            # also 8 GiB files; 14 GB of disk, and memory to cache them
    python tests/benchmarks/speed.py --cases start half

Builds its inputs in a temporary folder, runs whole processes in turns with the page cache warm, and prints a
markdown table of medians and ratios. Needs nanhunt installed, and Linux for the rows on memory.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import inputs
import numpy as np
from processes import FOUND, Command, medians, nanhunt, peak_memory, script

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    case: str
    measured: str
    reach: str
    met: bool | None
    """None: only shown."""


@dataclass(frozen=True)
class Bench:
    """Where inputs go, and how large everything is."""

    folder: Path
    runs: int
    rows: int
    classes: int
    weights: int
    """Bytes of a checkpoint."""
    width: int
    """Of its layers."""
    sizes: tuple[int, ...]
    """Bytes of the files for the straight line and for memory, ascending."""

    @property
    def shape(self) -> str:
        """Of the logits, in words."""
        return f"{self.rows} x {self.classes}"

    def labels(self) -> Path:
        """Labels for the logits."""
        return inputs.labels(self.folder / "labels.npy", self.rows, self.classes)

    def logits(self, kind: str) -> Path:
        """float32 logits; the caller deletes them."""
        return inputs.logits(self.folder / f"{kind}.npy", self.rows, self.classes, kind=kind)


def check(logits: Path, labels: Path) -> Command:
    """The command that everything here is about."""
    return nanhunt("check", logits, "--targets", labels, "--isolated")


def healthy(bench: Bench) -> Iterator[Row]:
    """Healthy float32 against the articles' code and against one bare pass."""
    logits, labels = bench.logits("healthy"), bench.labels()
    baseline, bare, ours = medians(
        bench.runs, script("baseline.py", logits, labels), script("bare.py", logits), check(logits, labels)
    )
    logits.unlink()
    case = f"healthy float32, {bench.shape}, labels"
    yield faster(f"{case}, against the articles' code", baseline, ours, 20)
    yield slower(f"{case}, against a bare NumPy pass", "bare", bare, ours, 2.5)


def masked(bench: Bench) -> Iterator[Row]:
    """-inf on half of the classes of every row."""
    yield from _against_baseline(bench, "masked", "-inf mask on half the classes of every row", 12, 0)


def some_bad(bench: Bench) -> Iterator[Row]:
    """One row in a hundred overflows."""
    yield from _against_baseline(bench, "some-bad", "1 % bad rows, torch import included", 3, FOUND)


def all_bad(bench: Bench) -> Iterator[Row]:
    """Every row overflows."""
    yield from _against_baseline(bench, "all-bad", "every row bad (float32, +100)", 2.5, FOUND)


def _against_baseline(bench: Bench, kind: str, case: str, least: float, expected: int) -> Iterator[Row]:
    logits, labels = bench.logits(kind), bench.labels()
    baseline, ours = medians(
        bench.runs, script("baseline.py", logits, labels), check(logits, labels), expected={1: expected}
    )
    logits.unlink()
    yield faster(case, baseline, ours, least)


def half(bench: Bench) -> Iterator[Row]:
    """float16 and bfloat16 against float32, per byte."""
    labels, full = bench.labels(), bench.logits("healthy")
    for dtype in ("float16", "bfloat16"):
        narrow = inputs.half_logits(bench.folder / f"{dtype}.safetensors", bench.rows, bench.classes, dtype)
        wide_time, narrow_time = medians(bench.runs, check(full, labels), check(narrow, labels))
        ratio = (narrow_time / narrow.stat().st_size) / (wide_time / full.stat().st_size)
        narrow.unlink()
        measured = (
            f"{narrow_time:.2f} s; float32 {wide_time:.2f} s for twice the bytes: {ratio:.2f} times per byte"
        )
        yield Row(
            f"{dtype}, nothing above a note, {bench.shape}", measured, "at most 2.5 times", ratio <= 2.5
        )
    full.unlink()


def comparison(bench: Bench) -> Iterator[Row]:
    """compare: every row through four implementations and the truth."""
    logits, labels = bench.logits("healthy"), bench.labels()
    command = nanhunt("compare", logits, "--targets", labels, "--isolated")
    baseline, ours = medians(bench.runs, script("baseline.py", logits, labels), command)
    logits.unlink()
    yield slower("`compare` on healthy float32", "the articles' code", baseline, ours, 1.5)


def memory(bench: Bench) -> Iterator[Row]:
    """Peak memory on the usual file and on the largest."""
    for size in sorted({bench.rows * bench.classes * 4, bench.sizes[-1]}):
        rows = size // (4 * bench.classes)
        labels = inputs.labels(bench.folder / "labels.npy", rows, bench.classes)
        for kind, limit, name in (("healthy", 200, "without torch"), ("some-bad", 600, "with torch")):
            logits = inputs.logits(bench.folder / f"{kind}.npy", rows, bench.classes, kind=kind)
            expected = FOUND if kind == "some-bad" else 0
            peak = peak_memory(check(logits, labels), bench.folder, expected)
            logits.unlink()
            measured = "not measured: no /proc" if peak is None else f"{peak / MIB:.0f} MiB"
            met = None if peak is None else peak < limit * MIB
            yield Row(f"peak memory, {_size(size)}, {name}", measured, f"under {limit} MiB", met)


def line(bench: Bench) -> Iterator[Row]:
    """Time against file size: least squares, and how far the worst size lies from the line."""
    seconds = []
    for size in bench.sizes:
        rows = size // (4 * bench.classes)
        labels = inputs.labels(bench.folder / "labels.npy", rows, bench.classes)
        logits = inputs.logits(bench.folder / "line.npy", rows, bench.classes)
        seconds += medians(bench.runs, check(logits, labels))
        logits.unlink()
    sizes = np.array(bench.sizes, float)
    slope, start = np.polyfit(sizes, seconds, 1)
    worst = max(abs(time / (start + slope * size) - 1) for time, size in zip(seconds, sizes, strict=True))
    points = ", ".join(f"{_size(size)} {time:.2f} s" for size, time in zip(bench.sizes, seconds, strict=True))
    measured = f"{points}: {start:.2f} s + {slope * GIB:.2f} s per GiB, worst {worst:.0%} off"
    yield Row("time against file size", measured, "a straight line (within 15 %)", worst <= 0.15)


def start(bench: Bench) -> Iterator[Row]:
    """Processes that have next to nothing to do."""
    logits = inputs.logits(bench.folder / "small.npy", 16, 10)
    labels = inputs.labels(bench.folder / "labels.npy", 16, 10)
    commands = {
        "`--help`": (nanhunt("--help"), 0.2),
        "`--version`": (nanhunt("--version"), 0.2),
        "`rule NH101`": (nanhunt("rule", "NH101"), 0.2),
        "`check` of a small healthy .npy": (check(logits, labels), 0.35),
        "`python -c 'import torch'`, to compare": ([sys.executable, "-c", "import torch"], None),
    }
    seconds = medians(bench.runs, *(command for command, _ in commands.values()))
    for (name, (_, limit)), time_ in zip(commands.items(), seconds, strict=True):
        reach, met = ("", None) if limit is None else (f"under {limit} s", time_ < limit)
        yield Row(name, f"{time_:.3f} s", reach, met)


def weights(bench: Bench) -> Iterator[Row]:
    """Health of a checkpoint, cast to float16: .safetensors, then the same tensors as .pt."""
    large = inputs.weights(bench.folder / "weights.safetensors", bench.weights, bench.width)
    tiny = inputs.weights(bench.folder / "tiny.safetensors", 1, 8)
    pt = inputs.checkpoint(bench.folder / "weights.pt", large)
    size, bandwidth = large.stat().st_size, read_bandwidth(large)

    def command(path: Path) -> Command:
        return nanhunt("check", path, "--dtype", "float16", "--isolated", "--exit-zero")

    torch_import = [sys.executable, "-c", "import torch"]
    whole, empty, from_pt, importing = medians(
        bench.runs, command(large), command(tiny), command(pt), torch_import
    )
    for path in (large, tiny, pt):
        path.unlink()
    net = size / max(whole - empty, 1e-9) / 1e9
    measured = (
        f"{whole:.2f} s, {size / whole / 1e9:.1f} GB/s; without the start of the process ({empty:.2f} s) "
        f"{net:.1f} GB/s, {net / bandwidth:.0%} of {bandwidth:.1f} GB/s"
    )
    reach = "at least 50 % of memory read bandwidth, start not counted"
    yield Row(f"weights, {_size(size)} .safetensors, --dtype float16", measured, reach, net >= bandwidth / 2)
    limit = 2 * whole + importing
    measured = f"{from_pt:.2f} s; 2 x {whole:.2f} s + {importing:.2f} s for torch = {limit:.2f} s"
    yield Row("the same as .pt", measured, "at most 2 times that and the torch import", from_pt <= limit)


CASES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "healthy": healthy, "some-bad": some_bad, "masked": masked, "half": half, "all-bad": all_bad,
    "compare": comparison, "memory": memory, "line": line, "start": start, "weights": weights,
}  # fmt: skip


def faster(case: str, baseline: float, ours: float, least: float) -> Row:
    """A row that must beat the articles' code."""
    ratio = baseline / ours
    measured = f"{ours:.2f} s; the articles' code {baseline:.2f} s: {ratio:.1f} times faster"
    return Row(case, measured, f"at least {least:g} times faster", ratio >= least)


def slower(case: str, other: str, theirs: float, ours: float, most: float) -> Row:
    """A row that may cost some times what another process costs."""
    ratio = ours / theirs
    measured = f"{ours:.2f} s; {other} {theirs:.2f} s: {ratio:.2f} times"
    return Row(case, measured, f"at most {most:g} times", ratio <= most)


def read_bandwidth(path: Path) -> float:
    """GB/s of numpy.max over the mapped file, one thread; the median of five passes once its pages are mapped."""
    values = np.memmap(path, np.float32, "c", path.stat().st_size % 4)
    values.max()
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        values.max()
        seconds.append(time.perf_counter() - began)
    return values.nbytes / median(seconds) / 1e9


def machine(bench: Bench) -> str:
    """What the numbers were measured on."""
    file = bench.logits("healthy")
    bandwidth = read_bandwidth(file)
    file.unlink()
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "torch"))
    return (
        f"{_processor()}, {os.cpu_count()} cores, {_memory()}; {platform.system()}, "
        f"Python {platform.python_version()}, {packages}. Memory read bandwidth {bandwidth:.1f} GB/s "
        f"(numpy max over a mapped file, one thread). Medians of {bench.runs}. "
        f"Load average at the start {os.getloadavg()[0]:.1f}: other work makes seconds longer and ratios rougher."
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def _memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / GIB:.0f} GiB"


def _size(size: int) -> str:
    return f"{size / GIB:.3g} GiB" if size >= GIB else f"{size / MIB:.3g} MiB"


def _bench(folder: Path, arguments: argparse.Namespace) -> Bench:
    if arguments.small:
        return Bench(folder, 1, 64, 512, 1 << 18, 32, (1 << 16, 1 << 17, 1 << 18))
    largest = 8 * GIB if arguments.large else GIB
    sizes = [64 * MIB]
    while sizes[-1] < largest:
        sizes.append(2 * sizes[-1])
    return Bench(folder, arguments.runs, 4096, 32000, 2 * GIB, 2048, tuple(sizes))


def main() -> None:
    """Runs the cases asked for; prints rows as they are known."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--runs", type=int, default=5, help="runs per median")
    parser.add_argument("--folder", type=Path, help="build inputs here instead of in the temporary folder")
    parser.add_argument("--large", action="store_true", help="files up to 8 GiB")
    parser.add_argument(
        "--small", action="store_true", help="tiny inputs, one run: does the benchmark itself work?"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nanhunt-speed-", dir=arguments.folder) as folder:
        bench = _bench(Path(folder), arguments)
        print(machine(bench), "\n\n| case | measured | reach | met |\n|---|---|---|---|", flush=True, sep="")
        for name in arguments.cases:
            for row in CASES[name](bench):
                met = {True: "yes", False: "NO", None: ""}[row.met]
                print(f"| {row.case} | {row.measured} | {row.reach} | {met} |", flush=True)


if __name__ == "__main__":
    main()
