from __future__ import annotations

import zipfile

import claims
import ml_dtypes
import numpy as np
import pytest

from nanhunt.errors import NanhuntError
from nanhunt.load import NotNumbers, RefusedTensor, arrays, open_path
from nanhunt.load.source import Folder


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_names_values_and_order(tmp_path, logits, save):
    path = str(tmp_path / "x.npz")
    fortran = np.asfortranarray(logits)
    save(
        path,
        **{
            "zz": logits,
            "a/b": fortran,
            "big": logits.astype(">f8"),
            "none": logits[:0],
            "long-header": logits.reshape(*(1,) * 28, *logits.shape),
            "one": np.float32(1),
        },
    )
    container = open_path(path)
    assert container.format == "npz"
    assert list(container.tensors) == ["zz", "a/b", "big", "none", "long-header", "one"]
    assert container.tensors["big"].dtype == "float64"
    assert container.tensors["big"].data.dtype.isnative
    for name, tensor in container.tensors.items():
        np.testing.assert_array_equal(tensor.data, np.load(path)[name])


def test_stored_entries_are_mapped_in_place(tmp_path, logits, monkeypatch):
    path = str(tmp_path / "x.npz")
    np.savez(path, logits=logits)
    monkeypatch.setattr(arrays, "unpacked", None)  # a copy through a temporary file would fail
    np.testing.assert_array_equal(open_path(path).tensors["logits"].data, logits)


def test_compressed_entries_never_lie_in_memory_whole(tmp_path):
    import tracemalloc

    path = str(tmp_path / "x.npz")
    values = np.zeros((32, 1 << 18), np.float32)  # 32 MiB
    np.savez_compressed(path, x=values)
    tensor = open_path(path).tensors["x"]
    tracemalloc.start()
    data = tensor.data
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * arrays.CHUNK
    assert data.shape == values.shape
    assert not data.any()


def test_kinds_that_cannot_be_judged_are_refused_one_by_one(tmp_path, logits):
    path = str(tmp_path / "x.npz")
    half = logits.astype(ml_dtypes.bfloat16)
    np.savez(path, logits=logits, names=np.array(["cat", "dog"]), half=half)
    container = open_path(path)
    assert list(container.tensors) == ["logits"]
    assert isinstance(container.refused["names"], NotNumbers)
    assert isinstance(container.refused["half"], RefusedTensor)
    assert "x.npz:half" in container.refused["half"].message
    resolved = open_path(path, "bfloat16").tensors["half"]
    np.testing.assert_array_equal(resolved.data, half.view(np.uint16))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncations(tmp_path, refusal, logits, save):
    path = tmp_path / "x.npz"
    save(path, logits=logits, targets=np.arange(3))
    whole = path.read_bytes()
    for length in (4, 30, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "zip" in refusal(path).message


def test_a_compressed_entry_with_a_flipped_byte_fails_its_checksum(tmp_path, refusal):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, logits=np.random.default_rng(0).random((40, 40)))
    damaged = bytearray(path.read_bytes())
    damaged[3000] ^= 255
    path.write_bytes(damaged)
    assert "damaged" in refusal(path).message


def test_an_entry_shorter_than_its_header_claims(tmp_path, refusal):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }\n"
        archive.writestr("logits.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    assert "4,000,000,000,000 bytes" in refusal(path).message


def test_more_than_the_disk_holds_is_not_begun(tmp_path, refusal, monkeypatch, logits):
    import shutil

    path = tmp_path / "x.npz"
    np.savez_compressed(path, logits=logits)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10})())
    assert "TMPDIR" in refusal(path).hint


def test_a_full_disk_is_not_blamed_on_the_archive(tmp_path, refusal, monkeypatch, logits):
    import errno
    import shutil

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "x.npz"
    np.savez_compressed(path, logits=logits)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    error = refusal(path)
    assert "No space left" in error.message
    assert "TMPDIR" in error.hint


def test_an_empty_archive(tmp_path, refusal):
    path = tmp_path / "x.npz"
    np.savez(path)
    assert "holds no tensors" in refusal(path).message


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_bound(tmp_path, refusal, logits, method):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", method) as archive, archive.open("x.npy", "w") as entry:
        np.lib.format.write_array(entry, logits)
    assert "savez_compressed" in open_path(str(path)).refused["x"].hint


def test_a_claim_that_no_packed_bytes_can_hold(tmp_path, logits):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, logits=logits)
    damaged = bytearray(path.read_bytes())
    size = damaged.index(b"PK\x01\x02") + 24
    damaged[size : size + 4] = (1 << 31).to_bytes(4, "little")
    path.write_bytes(damaged)
    assert "claims 2,147,483,648 bytes" in open_path(str(path)).refused["logits"].message


def test_an_encrypted_entry(tmp_path, logits):
    path = tmp_path / "x.npz"
    np.savez(path, logits=logits)
    damaged = bytearray(path.read_bytes())
    for signature, flag in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        damaged[damaged.index(signature) + flag] |= 1
    path.write_bytes(damaged)
    assert "encrypted" in open_path(str(path)).refused["logits"].message


def test_tensors_read_after_the_file_is_gone(tmp_path, logits):
    path = tmp_path / "x.npz"
    np.savez(path, logits=logits)
    tensor = open_path(str(path)).tensors["logits"]
    path.unlink()
    with pytest.raises(NanhuntError, match="does not exist"):
        _ = tensor.data


def test_less_than_was_claimed_is_told_when_it_is_unpacked():
    with pytest.raises(NanhuntError, match="unpacks to less than it claims"):
        arrays.unpacked(Folder("x"), lambda stream: stream.write(b"1234"), np.dtype("f4"), (2,))


def test_entries_that_share_bytes_are_refused(tmp_path, refusal):
    path = tmp_path / "x.npz"
    path.write_bytes(claims.overlapping(3))
    assert "they overlap" in refusal(path).message
