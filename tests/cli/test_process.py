"""What goes wrong around a command: one message, exit code 2 (or the command's own), and never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from command_lines import BASE, Run

NANHUNT = f"{sys.executable} -m nanhunt"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full, ulimit, setpriv")


@dataclass(frozen=True)
class Around:
    """A shell command around nanhunt, its exit code, and a word of the message that it ends with."""

    command: str
    code: int
    word: str = ""


CASES = {
    "help to a full device": Around("NANHUNT --help >/dev/full", 2, "No space left"),
    "a help text that nobody reads": Around("NANHUNT check --help | true; exit ${PIPESTATUS[0]}", 2),
    "a report to a full device": Around("NANHUNT check healthy.npy >/dev/full", 2, "No space left"),
    "a full standard error": Around("NANHUNT check missing.npy 2>/dev/full >out.txt", 2),
    "wrong usage and a full standard error": Around("NANHUNT check --bogus 2>/dev/full", 2),
    "a closed standard error": Around("NANHUNT check healthy.npy 2>&-", 0),
    "wrong usage and a closed standard error": Around("NANHUNT check --bogus 2>&-", 2),
    "everything closed": Around("NANHUNT check healthy.npy <&- >&- 2>&-", 0),
    "everything closed, a report in a file": Around(
        "NANHUNT check healthy.npy --output r.json <&- >&- 2>&- && grep -q format_version r.json", 0
    ),
    "a deleted folder": Around("mkdir x; cd x; rmdir ../x; NANHUNT check HEALTHY", 0),
    "a deleted folder, and something to run": Around("mkdir x; cd x; rmdir ../x; NANHUNT check BAD", 1),
    "a name in a deleted folder": Around("mkdir x; cd x; rmdir ../x; NANHUNT check a.npy >&2", 2, "working folder"),
    "too little memory to start": Around("ulimit -v 100000; NANHUNT check healthy.npy", 2, "ulimit -v"),
    "too little memory for torch": Around("ulimit -v 300000; NANHUNT check bad.npy", 2, "Memory ran out"),
    "no temporary folder": Around("TMPDIR=/nonexistent NANHUNT check healthy.npy", 0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_message_and_the_right_code(name: str, healthy: Path, tmp_path: Path) -> None:
    logits = np.zeros((2, 3), np.float32)
    logits[1, 1] = 1000
    np.save(tmp_path / "bad.npy", logits)
    case = CASES[name]
    command = case.command.replace("NANHUNT", NANHUNT).replace("HEALTHY", str(healthy))
    command = command.replace("BAD", str(tmp_path / "bad.npy"))
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False, env=BASE
    )
    assert done.returncode == case.code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert case.word in done.stderr
    assert len(done.stderr.splitlines()) <= 6


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_may_not_be_looked_into(tmp_path: Path, healthy: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    code = (
        "import os, sys; from nanhunt.cli.settings import _nearest\n"
        "os.setuid(65534); sys.exit(_nearest() is not None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=closed, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


HARMFUL_NAMES = ("\x1b[31mred", "\x9b31m", "right\u202eto-left", "a\x0bb\rc\nd", "tag\U000e0041")


@pytest.mark.parametrize("name", HARMFUL_NAMES)
def test_no_message_carries_what_it_quotes_to_the_terminal(run: Run, healthy: Path, name: str) -> None:
    arguments = [
        ("check", name), ("check", healthy, "--output", name), ("check", healthy, "--output", f"{name}/r.json"),
        ("check", healthy, "--dtype", name), ("check", healthy, f"--{name}"), (name,), ("rule", name),
    ]  # fmt: skip
    for each in arguments:
        done = run(*each)
        assert done.code == 2
        told = done.err + done.out
        assert not [c for c in told if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")], (
            each
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_as_it_ends_every_program(tmp_path: Path, number: int) -> None:
    np.save(tmp_path / "weights.npy", np.ones((64, 1 << 20), np.float32))
    command = [sys.executable, "-m", "nanhunt", "check", "weights.npy", "--isolated"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == -number
    assert err == ""


@pytest.mark.parametrize(
    "command", [("check", "--help"), ("run", "--help"), ("--help",), ("check", "nane.npz")]
)
def test_a_terminal_that_knows_only_ascii_gets_ascii(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    np.savez(tmp_path / "nane.npz", **{"naïve": np.array([[np.nan]], np.float32)})
    done = run(*command, LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0", COLUMNS="60")
    assert done.code == (1 if "nane.npz" in command else 0), done.err
    assert (done.out + done.err).isascii()
    assert "na\\u00efve" in done.out or "nane.npz" not in command


def test_json_in_ascii_is_json_and_loses_nothing(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **{"naïve": np.array([[np.nan]], np.float32)})
    done = run("check", "x.npz", "--format", "json", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.out.isascii()
    assert done.json()["tensors"][0]["tensor"] == "naïve"
