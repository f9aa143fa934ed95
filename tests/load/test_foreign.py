from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zipfile

import numpy as np
import pytest

from nanhunt.load import open_path


@pytest.mark.parametrize(
    ("content", "says", "way_out"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "PNG", "numpy.save"),
            (b"\xff\xd8\xff\xe0" + bytes(20), "JPEG", "numpy.save"),
        (b"%PDF-1.7", "PDF", "numpy.save"),
        (gzip.compress(b"x", mtime=0), "gzip", "zcat"),
        (bz2.compress(b"x"), "bzip2", "bzcat"),
        (lzma.compress(b"x"), "xz", "xzcat"),
        (b"\x28\xb5\x2f\xfd" + bytes(9), "zstandard", "zstdcat"),
        (bytes(257) + b"ustar\x0000", "tar", "tar xf"),
        (b"PARE" + bytes(9), "encrypted Parquet", "numpy.save"),
        (b"\x08\x01\x12\x04\x0a\x02", "SavedModel", "numpy.savez"),
        (b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite", "numpy.save"),
        (b"<!DOCTYPE html><html>404</html>", "HTML", "Download"),
        (bytes(1000), "zero bytes", "Download"),
        ("läuft über\n".encode() * 900, "text", "numpy.loadtxt"),
        (b'{"logits": [1, 2]}', "JSON", "numpy.save"),
        (b"[[1, 2], [3, 4]]", "JSON", "numpy.save"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git LFS", "git lfs pull"),
        (bytes(range(128, 256)) * 9, "no format that nanhunt knows", ".safetensors"),
    ],
)  # fmt: skip
def test_other_formats_are_named_with_a_way_out(tmp_path, refusal, content, says, way_out):
    path = tmp_path / "logits.npy"
    path.write_bytes(content)
    error = refusal(path)
    assert says in error.message
    assert way_out in error.hint


def test_zips_of_other_things(tmp_path, refusal):
    path = tmp_path / "report.docx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<w/>")
    assert "zip archive without" in refusal(path).message


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".txt", ""])
def test_the_suffix_decides_nothing(tmp_path, logits, suffix):
    path = tmp_path / f"dump{suffix}"
    with path.open("wb") as stream:
        np.save(stream, logits)
    assert open_path(str(path)).format == "npy"


@pytest.mark.parametrize("names", ["", "loss\n", "# loss\n", "mean_loss\n"])
def test_the_way_to_a_file_for_text_runs_as_printed(tmp_path, refusal, names):
    path = tmp_path / "losses.txt"
    path.write_text(names + "1.5\n2.5\n")
    call = re.search(r"numpy\.loadtxt\(PATH.*?\)", refusal(path).hint)[0]
    assert eval(call, {"numpy": np, "PATH": path}).tolist() == [1.5, 2.5]
