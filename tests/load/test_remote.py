"""URLs: what is fetched, how often, and what is said when it does not come."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from seeds import onnx

import nanhunt
from nanhunt.load import find, open_path, remote

pytest.importorskip("fsspec")
WHOLE = torch.arange(300_000.0).reshape(300, 1000)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """(a URL that serves ranges of the files in tmp_path, the ranges that were asked for)."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.01))
    asked: list[tuple[str, int, int]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None: ...

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = tmp_path / self.path.lstrip("/")
            if not path.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = path.read_bytes()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            first, last = (
                (int(wanted[1]), min(int(wanted[2]), len(content) - 1)) if wanted else (0, len(content) - 1)
            )
            self.send_response(206 if wanted else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(last - first + 1))
            if wanted:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.end_headers()
            if body:
                asked.append((path.name, first, last + 1))
                self.wfile.write(content[first : last + 1])

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}", asked
        made.shutdown()


def test_only_headers_and_the_tensors_that_are_read_are_fetched(tmp_path, server):
    url, asked = server
    save_file({"a.weight": WHOLE, "b.weight": WHOLE + 1}, tmp_path / "m.safetensors")
    container = open_path(f"{url}/m.safetensors")
    assert set(container.tensors) == {"a.weight", "b.weight"}
    header = sum(end - begin for _, begin, end in asked)
    assert header <= 3 * remote.HEADER
    np.testing.assert_array_equal(container.tensors["b.weight"].data, WHOLE + 1)
    assert sum(end - begin for _, begin, end in asked) == header + 4 * WHOLE.numel()


def test_a_checkpoint_with_its_index_and_a_missing_shard(tmp_path, server):
    url, _ = server
    bad = WHOLE.clone()
    bad[7, 3] = torch.nan
    torch.save({"a.weight": bad}, tmp_path / "1.bin")
    (tmp_path / "x.index.json").write_text('{"weight_map": {"a.weight": "1.bin", "v": "2.bin"}}')
    report = nanhunt.check(f"{url}/x.index.json")
    assert [(each.tensor, each.findings[0].rows) for each in report.tensors] == [("a.weight", (7003,))]
    assert "2.bin does not exist" in report.errors[0].message


def test_a_truncated_object_is_found_by_its_header(tmp_path, server, refusal):
    url, asked = server
    save_file({"w": WHOLE}, tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(whole[:-4])
    assert "truncated" in refusal(f"{url}/m.safetensors").message
    assert sum(end - begin for _, begin, end in asked) < len(whole) // 2


def test_formats_that_are_mapped_whole_are_copied_to_a_file_without_a_name(tmp_path, server):
    url, _ = server
    (tmp_path / "m.onnx").write_bytes(onnx())
    assert open_path(f"{url}/m.onnx").tensors["w"].data.shape == (3, 4)


def test_what_does_not_exist(server, refusal):
    url, _ = server
    assert "does not exist" in refusal(f"{url}/none.npy").message


def test_any_file_system_of_fsspec(tmp_path):
    import fsspec

    with fsspec.open("memory://dumps/x.npy", "wb") as stream:
        np.save(stream, np.array([[1.0, np.nan]], np.float32))
    (report,) = nanhunt.check("memory://dumps/x.npy").tensors
    assert report.findings[0].code == "NH001"


def test_a_folder_is_searched(tmp_path):
    import fsspec

    files = fsspec.filesystem("memory")
    for name in ("step-2/x.npy", "step-10/x.npy", "notes.txt", ".hidden.npy", "skipped/x.npy"):
        with files.open(f"/run/{name}", "wb") as stream:
            if name.endswith(".npy"):
                np.save(stream, np.ones((2, 3), np.float32))
            else:
                stream.write(b"hello")
    found = find(["memory://run"], ["skipped*"])
    assert found.files == ["memory://run/step-2/x.npy", "memory://run/step-10/x.npy"]
    assert [what for _, what in found.passed_over] == ["text"]
    assert len(nanhunt.check("memory://run").tensors) == 3


def test_a_scheme_that_nobody_serves(refusal: object, tmp_path: Path) -> None:
    report = nanhunt.check("nothing://x.npy")
    assert "nothing://x.npy" in report.errors[0].message
