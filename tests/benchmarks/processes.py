"""Whole processes, timed side by side, and what they hold in memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

Command = list[str]

HERE = Path(__file__).parent
FOUND = 1
"""nanhunt's exit code when it has findings."""


def nanhunt(*arguments: str | Path) -> Command:
    """A nanhunt command, with nothing but this interpreter's installation deciding what runs."""
    return [sys.executable, "-m", "nanhunt", *map(str, arguments)]


def script(name: str, *arguments: str | Path) -> Command:
    """A script beside this one."""
    return [sys.executable, str(HERE / name), *map(str, arguments)]


def medians(runs: int, *commands: Command, expected: dict[int, int] | None = None) -> list[float]:
    """Median seconds of each, run in turns (A B A B) so that a busy moment of the machine meets all of them.

    ``expected``: exit codes by position, 0 for the others. Any other exit code ends the benchmark: timing an
    error is worse than no number. With more than one run, a first round that warms caches is not counted.
    """
    expected = expected or {}
    seconds: list[list[float]] = [[] for _ in commands]
    for turn in range(runs if runs == 1 else runs + 1):
        for position, command in enumerate(commands):
            began = time.perf_counter()
            _run(command, expected.get(position, 0))
            if runs == 1 or turn > 0:
                seconds[position].append(time.perf_counter() - began)
    return [median(each) for each in seconds]


def peak_memory(command: Command, folder: Path, expected: int = 0) -> int | None:
    """Largest bytes that the process and its forks held together; None without /proc.

    Mapped pages of files in ``folder`` are not counted; pages that a fork shares are counted twice.

    The kernel's own peak (VmHWM) counts every page of a mapped input that is in the page cache anyway, so the
    anonymous pages are polled instead, every 2 ms. To them comes what is mapped of all other files, libraries
    above all; that only grows, and is summed up from smaps ten times a second.
    """
    if not Path("/proc/self/smaps").exists():
        return None
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment()
    ) as process:
        anonymous, libraries, polls = 0, 0, 0
        while process.poll() is None:
            family = [process.pid, *_forks(process.pid)]
            anonymous = max(anonymous, sum(map(_anonymous, family)))
            if polls % 50 == 0:
                libraries = max(libraries, _other_files(process.pid, folder))
            polls += 1
            time.sleep(0.002)
    if process.returncode != expected:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return anonymous + libraries


def _run(command: Command, expected: int) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode != expected:
        raise SystemExit(
            f"{command} ended with {done.returncode}, not {expected}:\n{done.stdout}{done.stderr}"
        )


def _environment() -> dict[str, str]:
    """No colours, no job summary: the processes do the same wherever the benchmark is started."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("FORCE_COLOR", "GITHUB_STEP_SUMMARY")
    }


def _forks(pid: int) -> list[int]:
    return [int(child) for child in _proc(pid, f"task/{pid}/children").split()]


def _anonymous(pid: int) -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", _proc(pid, "status"))
    return int(found[1]) << 10 if found else 0


def _other_files(pid: int, folder: Path) -> int:
    """Resident bytes of file mappings outside ``folder``, not counting pages they have written to."""
    total, counts = 0, False
    for line in _proc(pid, "smaps").splitlines():
        header = re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+\s*(.*)", line)
        if header:
            counts = header[1].startswith("/") and not header[1].startswith(str(folder))
        elif counts and line.startswith("Rss:"):
            total += int(line.split()[1]) << 10
        elif counts and line.startswith("Anonymous:"):
            total -= int(line.split()[1]) << 10
    return total


def _proc(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:  # it has just ended
        return ""
