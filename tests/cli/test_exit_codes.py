"""0 clean, 1 findings, 2 could not do its job; and what moves the line between them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from command_lines import BASE, Run


def test_clean_is_0_and_findings_are_1(run_cold: Run, healthy: Path, bad: Path) -> None:
    clean, found = run_cold("check", healthy), run_cold("check", bad)
    assert (clean.code, clean.err) == (0, "")
    assert (found.code, found.err) == (1, "")
    assert "exp-overflow" in found.out
    assert "NH101" in found.out


def test_no_arguments_show_help_and_a_typo_is_2(run_cold: Run) -> None:
    bare = run_cold()
    assert "Usage" in bare.out + bare.err
    typo = run_cold("chek", "x.npy")
    assert typo.code == 2
    assert "No such command: chek. Did you mean check?" in typo.err


def test_an_unknown_option_is_2(run: Run, healthy: Path) -> None:
    assert run("check", healthy, "--dtypo", "float16").code == 2


def test_fail_on_and_exit_zero(run: Run, bad: Path, tmp_path: Path) -> None:
    """One process each: the severity decides, and --exit-zero overrules it."""
    assert run("check", bad, "--fail-on", "error").code == 0
    assert run("check", bad, "--fail-on", "never").code == 0
    assert run("check", bad, "--exit-zero").code == 0
    np.save(tmp_path / "note.npy", np.array([[20.0, 0.0]], np.float32))
    np.save(tmp_path / "note-labels.npy", np.array([0]))
    note = ("check", "note.npy", "--targets", "note-labels.npy")
    assert run(*note).code == 0
    assert run(*note, "--fail-on", "note").code == 1


def test_select_and_ignore_by_code_name_and_prefix(run: Run, bad: Path) -> None:
    body = run("check", bad, "--format", "json", "--select", "NH2").json()
    assert [finding["code"] for finding in body["tensors"][0]["findings"]] == ["NH201"]
    other = run("check", bad, "--ignore", "probability-underflow", "--ignore", "NH101")
    assert other.code == 0
    unknown = run("check", bad, "--select", "exp-overflw")
    assert unknown.code == 2
    assert "exp-overflow" in unknown.err


def test_unreadable_input_is_2_and_the_rest_is_still_reported(run: Run, healthy: Path, bad: Path) -> None:
    done = run("check", "missing.npy", bad, healthy, "--format", "json", "--verbose")
    body = done.json()
    assert done.code == body["exit_code"] == 2
    assert [error["file"] for error in body["errors"]] == ["missing.npy"]
    assert len(body["tensors"]) == 2


def test_exit_zero_does_not_hide_unreadable_input(run: Run) -> None:
    assert run("check", "missing.npy", "--exit-zero").code == 2


def test_a_closed_pipe_ends_quietly(healthy: Path, tmp_path: Path) -> None:
    """`nanhunt check ... | head -1`: the reader leaves before the report is written."""
    command = [sys.executable, "-m", "nanhunt", "rule", "--all"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=BASE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(timeout=60) == 2
    assert err == ""
