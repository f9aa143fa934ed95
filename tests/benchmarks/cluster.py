"""A real Dask cluster of processes, one of which is killed in the middle: the report is that of a single run.

    python tests/benchmarks/cluster.py [FILES]

Needs nanhunt[dask]. Prints seconds for one process, for the cluster, and for the cluster that loses a worker.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from dask.distributed import LocalCluster
from safetensors.numpy import save_file

from nanhunt.results.report import Report, merge
from nanhunt.scan.inputs import Scan
from nanhunt.scan.options import Options
from nanhunt.scan.work import WorkOptions, workers


def write(folder: Path, files: int) -> None:
    """Logits and labels of so many steps, a NaN in every tenth, and a checkpoint so large that it goes by blocks."""
    rng = np.random.default_rng(0)
    for step in range(files):
        logits = rng.standard_normal((400, 1000)).astype(np.float32)
        if step % 10 == 0:
            logits[step % 400, 3] = np.nan
        np.savez(folder / f"step-{step}.npz", logits=logits, labels=rng.integers(0, 1000, 400))
    weights = {
        f"layers.{layer}.weight": rng.standard_normal((1 << 11, 1 << 11), np.float32) for layer in range(6)
    }
    weights["layers.4.weight"][7, 5] = np.inf
    save_file(weights, folder / "model.safetensors")


def timed(folder: Path, address: str = "", victim: int = 0) -> tuple[float, str]:
    """(seconds, the report as JSON); the process ``victim`` is killed after the first judgement."""
    victims = [victim] if victim else []

    def told(_: Report) -> None:
        if victims:
            os.kill(victims.pop(), signal.SIGKILL)

    began = time.perf_counter()
    those = workers(WorkOptions(dask=address))
    with those.close:
        scan = Scan(Options(), executor=those.blocks, files=those.files, told=told)
        report = merge(scan.paths([str(folder)]))
    return time.perf_counter() - began, report.to_json()


def main() -> None:
    """Prints the table."""
    files = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, files)
        alone, expected = timed(folder)
        with LocalCluster(
            n_workers=3, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster:
            address = cluster.scheduler_address
            timed(folder, address)  # workers import NumPy and torch once
            together, report = timed(folder, address)
            assert report == expected
            victim = next(iter(cluster.workers.values())).pid
            bereft, report = timed(folder, address, victim)
            assert report == expected
    print(
        f"{files} files: {alone:.1f} s in one process, {together:.1f} s by 3 workers, {bereft:.1f} s with one killed"
    )


if __name__ == "__main__":
    main()
