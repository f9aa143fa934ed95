"""Whatever a small file claims, reading it ends at once, in little memory, with a word on what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import claims

SECONDS = 5.0
"""The import of a package included, on a busy machine."""
GROWTH = 200 << 20
"""Bytes, with what a package takes for itself."""


def test_of_every_format_a_few_kilobytes_that_claim_terabytes(tmp_path: Path) -> None:
    paths = claims.write(tmp_path)
    assert all(Path(path).stat().st_size < 200_000 for path in paths)
    done = subprocess.run(
        [sys.executable, claims.__file__, *paths], capture_output=True, text=True, check=True, timeout=120
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, *_ in outcomes] == [Path(path).name for path in paths]
    for name, seconds, grown, said in outcomes:
        assert said, name
        assert name in said[0], said
        assert seconds < SECONDS, name
        assert grown < GROWTH, name
