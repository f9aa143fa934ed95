from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nanhunt.errors import NanhuntError
from nanhunt.load import find, open_path


def names(folder: Path) -> list[str]:
    return [str(Path(path).relative_to(folder)) for path in find([str(folder)]).files]


def test_natural_order_below_and_by_content(tmp_path, logits):
    for name in ("step-10.npy", "step-2.npy", "dump", "deep/er/x.npy", "a10/x.npy", "a9/x.npy"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            np.save(stream, logits)
    assert names(tmp_path) == ["dump", "step-2.npy", "step-10.npy", "a9/x.npy", "a10/x.npy", "deep/er/x.npy"]


def test_what_a_search_passes_by(tmp_path, logits):
    np.save(tmp_path / "logits.npy", logits)
    np.save(tmp_path / ".hidden.npy", logits)
    (tmp_path / ".git").mkdir()
    np.save(tmp_path / ".git" / "x.npy", logits)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "config.json").write_text('{"a": 1}')
    (tmp_path / "vocab.bin").write_bytes(b"\x01\x02\x03" * 99)
    (tmp_path / "empty.txt").touch()
    with zipfile.ZipFile(tmp_path / "report.docx", "w") as archive:
        archive.writestr("x.xml", "")
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "again").symlink_to(tmp_path)
    assert names(tmp_path) == ["logits.npy"]
    passed = {Path(path).name: what for path, what in find([str(tmp_path)]).passed_over}
    assert passed == {
        "config.json": "JSON",
        "empty.txt": "empty",
        "notes.txt": "text",
        "report.docx": "zip archive",
        "vocab.bin": "unknown format",
    }


@pytest.mark.parametrize(
    ("glob", "kept"),
    [
        ("optimizer.npy", ["x.npy", "ckpt-1/x.npy"]),
        ("ckpt-*", ["optimizer.npy", "x.npy"]),
        ("*/x.npy", ["optimizer.npy", "x.npy", "ckpt-1/optimizer.npy"]),
        ("ckpt-1/opt*", ["optimizer.npy", "x.npy", "ckpt-1/x.npy"]),
        ("X.npy", ["optimizer.npy", "x.npy", "ckpt-1/optimizer.npy", "ckpt-1/x.npy"]),
    ],
)
def test_what_is_excluded(tmp_path, logits, glob, kept):
    (tmp_path / "ckpt-1").mkdir()
    for name in ("x.npy", "optimizer.npy", "ckpt-1/x.npy", "ckpt-1/optimizer.npy"):
        np.save(tmp_path / name, logits)
    found = find([str(tmp_path)], [glob])
    assert [str(Path(path).relative_to(tmp_path)) for path in found.files] == kept
    assert not found.passed_over


def test_excluding_everything_says_so(tmp_path, logits):
    np.save(tmp_path / "x.npy", logits)
    with pytest.raises(NanhuntError, match="holds no file") as caught:
        find([str(tmp_path)], ["*.npy"])
    assert "Excluded: *.npy" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.npy", b""),
        ("empty.bin", b""),
        ("text.npy", b"hello"),
        ("cut.npz", b"PK\x03\x04cut"),
        ("pytorch_model.bin", b"version https://git-lfs.github.com/spec/v1\n"),
        ("broken.index.json", b'{"weight_map": 1}'),
    ],
)
def test_what_is_called_like_a_tensor_file_deserves_its_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert names(tmp_path) == [name]
    with pytest.raises(NanhuntError):
        open_path(str(tmp_path / name))


def test_links_to_files_are_followed_and_loops_reported(tmp_path, logits):
    np.save(tmp_path / "real.npy", logits)
    (tmp_path / "link").symlink_to("real.npy")
    (tmp_path / "loop.npy").symlink_to("loop.npy")
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    assert names(tmp_path) == ["link", "loop.npy", "real.npy"]


def test_files_and_standard_input_stay_as_they_are(tmp_path):
    assert find(["b.npy", "-", "a.npy", "b.npy", "\0", ""]).files == ["b.npy", "-", "a.npy", "\0", ""]


def test_a_folder_without_anything_to_read(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(NanhuntError, match="holds no file") as caught:
        find([str(tmp_path)])
    assert ".safetensors" in caught.value.hint


def test_folders_that_may_not_be_read_are_named(tmp_path, logits, monkeypatch):
    np.save(tmp_path / "logits.npy", logits)
    (tmp_path / "locked").mkdir()
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).endswith("locked")
    )  # root may read all
    assert names(tmp_path) == ["logits.npy", "locked"]
    with pytest.raises(NanhuntError, match="No permission to read"):
        open_path(str(tmp_path / "locked"))
