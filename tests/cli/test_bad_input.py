"""Every kind of bad input: one message that names the file and the way out, exit 2, nothing left behind."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command_lines import Run
from safetensors.torch import save_file


class Evil:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, ("touch pwned",))


def npy(array: np.ndarray) -> bytes:
    """An .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def absurd() -> bytes:
    """An .npy header that claims four terabytes."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\x00" * 64


def checkpoint(value: object) -> bytes:
    """A .pt file."""
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


LOGITS = np.zeros((4, 3), np.float32)
FILES: dict[str, Callable[[], bytes]] = {
    "empty.npy": lambda: b"",
    "empty.pt": lambda: b"",
    "truncated.npy": lambda: npy(LOGITS)[:-5],
    "truncated.npz": lambda: _npz()[:-40],
    "truncated.pt": lambda: checkpoint({"logits": torch.zeros(4, 3)})[:200],
    "truncated.safetensors": lambda: struct.pack("<Q", 500) + b'{"x":',
    "text.npy": lambda: b"these are no logits\n",
    "image.png": lambda: b"\x89PNG\r\n\x1a\n" + bytes(64),
    "absurd.npy": absurd,
    "no-classes.npy": lambda: npy(np.zeros((4, 0), np.float32)),
    "scalar.npy": lambda: npy(np.float32(3)),
    "integers.npy": lambda: npy(np.zeros((4, 3), np.int64)),
    "complex.npy": lambda: npy(np.zeros((4, 3), np.complex64)),
    "objects.npy": lambda: npy(np.array([{}, {}], dtype=object)),
    "strings.npy": lambda: npy(np.array(["a", "b"])),
    "evil.pkl": lambda: pickle.dumps(Evil()),
    "evil.pt": lambda: checkpoint({"logits": Evil()}),
}


READ = {"integers.npy", "complex.npy", "evil.pt"}
"""Read and judged, or named as not looked at where they hold nothing to judge: no error of the run."""


def _npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, logits=LOGITS)
    return stream.getvalue()


def test_every_bad_file_in_one_process(run: Run, tmp_path: Path, healthy: Path) -> None:
    """All of them at once: each gets its message, and the good file among them is still judged."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content())
    done = run(
        "check",
        *FILES,
        "missing.npy",
        healthy,
        "--logits",
        "*",
        "--verbose",
        "--format",
        "json",
        "--output",
        "report.json",
    )
    body = done.json()
    assert done.code == 2
    wrong = {error["file"].split(":")[0]: error for error in body["errors"]}
    assert set(wrong) == {*FILES, "missing.npy"} - READ
    for name, error in wrong.items():
        assert name in error["message"] or name in error["file"]
        assert error["hint"]
        assert "\x1b" not in error["message"] + error["hint"]
        assert len(error["message"]) < 600
    assert [tensor["file"] for tensor in body["tensors"]] == [str(healthy)]
    assert "0 classes" in wrong["no-classes.npy"]["message"]
    assert READ - {"complex.npy"} <= {each["file"].split(":")[0] for each in body["not_looked_at"]}
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "missing.npy"),
        ("compare", "missing.npy"),
        ("check", "healthy.npy", "--dtype", "float61"),
        ("check", "healthy.npy", "--reduction", "median"),
        ("check", "healthy.npy", "--fail-on", "warnings"),
        ("check", "healthy.npy", "--format", "yaml"),
        ("check", "healthy.npy", "--output", "report.yaml"),
        ("check", "healthy.npy", "--output", "no/such/folder/report.json"),
        ("check", "healthy.npy", "--output", "healthy.npy"),
        ("check", "healthy.npy", "--save-rows", "rows.parquet"),
        ("check", "healthy.npy", "--class-axis", "2"),
        ("check", "healthy.npy", "--targets", "missing.npy"),
        ("check", "healthy.npy", "--class-weights", "missing.npy"),
        ("check", "healthy.npy", "--config", "missing.toml"),
        ("check", "healthy.npy", "--baseline", "missing.json"),
        ("rule", "NH999"),
        ("report", "healthy.npy"),
        ("report", "missing.json", "--format", "yaml"),
        ("report", "missing.json", "--fail-on", "warnings"),
        ("check", "no-such-*.npy"),
    ],
    ids=lambda arguments: " ".join(arguments[2:] or arguments),
)
def test_one_clear_message(run: Run, healthy: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    content = healthy.read_bytes()
    done = run(*arguments)
    assert done.code == 2
    said = done.err or done.out
    assert arguments[-1] in said
    assert len(said.strip().splitlines()) >= 2 or "Error" in said  # what happened, and the way out
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert healthy.read_bytes() == content


def test_targets_that_do_not_fit(run: Run, healthy: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "seven.npy", np.zeros(7, np.int64))
    np.save(tmp_path / "flags.npy", np.zeros(4, bool))
    np.save(tmp_path / "soft.npy", np.zeros((4, 2), np.float32))
    for name, word in (("seven.npy", "(7,)"), ("flags.npy", "bool"), ("soft.npy", "(4, 2)")):
        done = run("check", healthy, "--targets", name)
        assert done.code == 2
        assert word in done.out + done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(run: Run, healthy: Path) -> None:
    healthy.chmod(0)
    done = run("check", healthy)
    assert done.code == 2
    assert healthy.name in done.out + done.err


def test_an_unreadable_tensor_does_not_hide_its_neighbours(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", good=LOGITS, narrow=np.zeros((4, 0), np.float32))
    done = run("check", "two.npz", "--logits", "*", "--format", "json", "--verbose")
    body = done.json()
    assert done.code == 2
    assert [tensor["tensor"] for tensor in body["tensors"]] == ["good"]
    assert ["two.npz:narrow" in error["file"] + error["message"] for error in body["errors"]] == [True]


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
def test_a_standard_output_that_cannot_be_written_is_an_error_and_not_a_finding(
    healthy: Path, tmp_path: Path
) -> None:
    command = f"{sys.executable} -m nanhunt check {healthy} --isolated"
    for where, code in ((">/dev/full", 2), (">&-", 0), (">&- --output report.json", 0)):
        done = subprocess.run(
            ["sh", "-c", f"{command} {where}"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == code, done.stderr
    assert (tmp_path / "report.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit")
def test_more_tensors_than_files_may_be_open_are_judged_all_the_same(tmp_path: Path) -> None:
    save_file({f"w{number}": torch.ones(2) for number in range(300)}, tmp_path / "many.safetensors")
    check = "check many.safetensors --isolated --format json"

    def limited(python: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-c", f"ulimit -n 64; {sys.executable} {python} {check}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = limited("-m nanhunt")
    assert done.returncode == 0, done.stderr
    assert [group["files"] for group in json.loads(done.stdout)["healthy"]] == [{"many.safetensors": 300}]
    # As if each of them were too large to share a mapping.
    large = "from nanhunt.load import arrays; arrays.SHARED = 1; from nanhunt.__main__ import main; main()"
    done = limited(f"-c '{large}'")
    assert done.returncode == 2
    assert "ulimit -n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--dtype", "fp16"), "Did you mean float16?"),
        (("--dtype", "bf16"), "Did you mean bfloat16?"),
    ],
)
def test_what_people_type_is_understood(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], hint: str
) -> None:
    np.save(tmp_path / "logits.npy", np.zeros((2, 3), np.float32))
    ended = run("check", "logits.npy", *arguments)
    assert ended.code == 2
    assert hint in ended.err
