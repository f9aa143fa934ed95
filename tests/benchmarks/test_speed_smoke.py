"""The benchmark still runs: on tiny inputs, without a word about how long anything takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SPEED = Path(__file__).with_name("speed.py")


@pytest.mark.parametrize(("case", "rows"), [("healthy", 2), ("start", 5)])
def test_every_row_of_the_table_is_printed(case: str, rows: int, tmp_path: Path) -> None:
    command = [sys.executable, SPEED, "--small", "--folder", tmp_path, "--cases", case]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "GB/s" in lines[0]
    table = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    assert len(table) == 2 + rows
    assert {len(cells) for cells in table} == {4}
    assert not list(tmp_path.iterdir())


def test_an_error_is_not_timed(tmp_path: Path) -> None:
    code = "from processes import medians, nanhunt; medians(1, nanhunt('check', 'nothing.npy'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SPEED.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "ended with 2, not 0" in done.stderr
    assert "nothing.npy does not exist" in done.stderr
