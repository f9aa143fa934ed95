from __future__ import annotations

import io
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from nanhunt.load import open_path, source

STDIN = (
    "from nanhunt.load import open_path; c = open_path('-');"
    " print(c.file, c.format, *c.tensors['' if c.format == 'npy' else 'x'].data)"
)


def test_missing_with_a_guess(tmp_path, refusal):
    (tmp_path / "logits.npy").write_bytes(b"x")
    error = refusal(tmp_path / "logit.npy")
    assert "does not exist" in error.message
    assert 'Did you mean "logits.npy"' in error.hint


def test_missing_folder(tmp_path, refusal):
    assert "folder does not either" in refusal(tmp_path / "no" / "logits.npy").hint


def test_a_file_used_as_a_folder(tmp_path, refusal):
    (tmp_path / "a").write_bytes(b"x")
    assert "does not exist" in refusal(tmp_path / "a" / "logits.npy").message


def test_folder(tmp_path, refusal):
    assert "is a folder" in refusal(tmp_path).message


def test_empty(tmp_path, refusal):
    (tmp_path / "x.npy").touch()
    assert "empty (0 bytes)" in refusal(tmp_path / "x.npy").message


def test_pipe_is_refused_without_waiting_for_a_writer(tmp_path, refusal):
    os.mkfifo(tmp_path / "x.npy")
    error = refusal(tmp_path / "x.npy")
    assert "is a pipe" in error.message
    assert "nanhunt check -" in error.hint


def test_socket_and_device(tmp_path, refusal, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path is limited to about 100 characters
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("x.npy")
        assert "is a socket" in refusal("x.npy").message
    assert "is a device" in refusal(os.devnull).message


def test_links(tmp_path, refusal):
    (tmp_path / "loop.npy").symlink_to("loop.npy")
    assert "leads back to itself" in refusal(tmp_path / "loop.npy").message
    (tmp_path / "dangling.npy").symlink_to("gone.npy")
    assert "link to gone.npy, which does not exist" in refusal(tmp_path / "dangling.npy").message


def test_no_permission(tmp_path, refusal, monkeypatch):
    path = tmp_path / "x.npy"
    path.write_bytes(b"x")

    def deny(self, *arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", deny)  # root may read everything
    error = refusal(path)
    assert "No permission" in error.message
    assert "chmod" in error.hint


def test_an_empty_path():
    with pytest.raises(source.NanhuntError, match="path is empty"):
        open_path("")


def test_names_too_long_or_with_control_characters(refusal):
    assert "too long" in refusal("x" * 5000).message
    with pytest.raises(source.NanhuntError, match=r"\\x1b\[31mred"):
        open_path("\x1b[31mred")
    with pytest.raises(source.NanhuntError, match=r"a\\x00b"):
        open_path("a\0b")


def run(**options):
    return subprocess.run(
        [sys.executable, "-c", STDIN], capture_output=True, timeout=60, check=True, **options
    )


@pytest.mark.parametrize("save", [np.save, lambda stream, values: np.savez(stream, x=values)])
def test_standard_input_as_pipe_and_as_redirected_file(tmp_path, save):
    content = io.BytesIO()
    save(content, np.arange(3.0))
    piped = run(input=content.getvalue()).stdout.split()
    (tmp_path / "x").write_bytes(content.getvalue())
    with (tmp_path / "x").open("rb") as stream:
        redirected = run(stdin=stream).stdout.split()
    assert piped == redirected
    assert piped[0] == b"-"
    assert piped[2:] == [b"0.0", b"1.0", b"2.0"]


def test_a_redirected_file_that_was_read_in_part_goes_on_from_there(tmp_path):
    content = io.BytesIO()
    np.save(content, np.arange(3.0))
    (tmp_path / "x").write_bytes(b"a line\n" + content.getvalue())
    with (tmp_path / "x").open("rb") as stream:
        os.lseek(stream.fileno(), 7, os.SEEK_SET)
        assert run(stdin=stream).stdout.split() == [b"-", b"npy", b"0.0", b"1.0", b"2.0"]


def feed(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_checkpoint_on_standard_input(monkeypatch):
    import torch

    content = io.BytesIO()
    torch.save({"w": torch.ones(2)}, content)
    feed(monkeypatch, content.getvalue())
    assert open_path("-").tensors["w"].data.tolist() == [1, 1]
    monkeypatch.setattr(source.Source, "path", None)  # where unnamed files have no path
    feed(monkeypatch, content.getvalue())
    assert open_path("-").tensors["w"].data.tolist() == [1, 1]


def test_bad_standard_input(monkeypatch, refusal):
    feed(monkeypatch, b"")
    assert "empty" in refusal("-").message
    feed(monkeypatch, b"hello\n")
    assert "text" in refusal("-").message
    feed(monkeypatch, b'{"weight_map": {"a": "b"}}')
    assert "index" in refusal("-").message
    monkeypatch.setattr(sys, "stdin", None)
    assert "closed" in refusal("-").message
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"buffer": Terminal()})())
    assert "terminal" in refusal("-").message


class Terminal(io.BytesIO):
    def isatty(self):
        return True


def test_a_full_disk_while_spooling(monkeypatch, refusal):
    import shutil

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    feed(monkeypatch, b"\x93NUMPY")
    error = refusal("-")
    assert "No space left" in error.message
    assert "TMPDIR" in error.hint
