"""Real processes, with nothing shared but the file system and, with ``warm``, what they have imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_lines import BASE, Ended, Run
from warm import Warm


@pytest.fixture
def run(tmp_path: Path, warm: Warm) -> Run:
    """Runs nanhunt in ``tmp_path``; no traceback may ever be seen."""

    def runs(*arguments: str | Path, stdin: bytes | None = None, **environment: str) -> Ended:
        done = warm.run([*map(str, arguments)], tmp_path, {**BASE, **environment}, stdin or b"")
        return _ended(done.returncode, done.stdout, done.stderr)

    return runs


@pytest.fixture
def run_cold(tmp_path: Path) -> Run:
    """The same with all that starting Python does."""

    def runs(*arguments: str | Path, stdin: bytes | None = None, **environment: str) -> Ended:
        command = [sys.executable, "-m", "nanhunt", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=tmp_path, input=stdin or b"", capture_output=True, check=False, timeout=120,
            env={**BASE, **environment},
        )  # fmt: skip
        return _ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    return runs


def _ended(code: int, out: str, err: str) -> Ended:
    ended = Ended(code, out, err)
    assert "Traceback" not in ended.err + ended.out
    return ended


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    """Harmless logits."""
    path = tmp_path / "healthy.npy"
    np.save(path, np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3))
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """Row 1 overflows; labels beside it."""
    path = tmp_path / "bad.npz"
    logits = np.array([[2.0, 1.0, 0.1], [1000.0, 1.0, -1000.0], [3.0, 2.0, 1.0]], np.float32)
    np.savez(path, logits=logits, labels=np.array([0, 2, 1]))
    return path
