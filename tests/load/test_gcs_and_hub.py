"""gs:// and hf://, against servers that answer as Google's storage and Hugging Face's hub do."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest
import torch
from safetensors.torch import save

import nanhunt
from nanhunt.load import find, open_path, remote

fsspec = pytest.importorskip("fsspec")
BAD = torch.ones(400, 300)
BAD[2, 1] = torch.nan
Files = dict[str, bytes]
Asked = list[tuple[str, str, str]]
"""(method, path, authorization) of every request."""


class Answering(BaseHTTPRequestHandler):
    """What both servers need."""

    protocol_version = "HTTP/1.1"
    files: Files
    asked: Asked

    def log_message(self, *arguments: object) -> None: ...

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        where = urlsplit(self.path)
        self.reply(unquote(where.path), {key: each[0] for key, each in parse_qs(where.query).items()})

    def reply(self, path: str, query: dict[str, str]) -> None:
        raise NotImplementedError

    def say(self, what: object, code: int = 200) -> None:
        self.send(code, json.dumps(what).encode(), {"Content-Type": "application/json"})

    def give(self, content: bytes, headers: dict[str, str]) -> None:
        """A file, or the range of it that is wanted."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None:
            return self.send(200, content, headers)
        first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
        where = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return self.send(206, content[first : last + 1], headers | where)

    def send(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(OSError):
                self.wfile.write(content)


class Storage(Answering):
    """Google's JSON API: one bucket."""

    def reply(self, path: str, query: dict[str, str]) -> None:
        name = path.partition("/o/")[2]
        if path.endswith("/o"):
            found = [each for each in self.files if each.startswith(query.get("prefix", ""))]
            return self.say({"items": [self.about(each) for each in sorted(found)]})
        if name not in self.files:
            return self.say({"error": {"code": 404, "message": "Not Found"}}, 404)
        return self.give(self.files[name], {}) if "alt" in query else self.say(self.about(name))

    def about(self, name: str) -> dict[str, str]:
        address = f"http://{self.headers['Host']}/download/storage/v1/b/runs/o/{name}?alt=media"
        size = str(len(self.files[name]))
        return {"name": name, "bucket": "runs", "size": size, "generation": "1", "mediaLink": address}


class Hub(Answering):
    """Hugging Face's: one model."""

    def reply(self, path: str, query: dict[str, str]) -> None:
        if self.headers.get("Authorization") != "Bearer secret":
            return self.say({"error": "Invalid credentials"}, 401)
        if "/tree/" in path:
            return self.say([self.about(name) for name in self.files])
        if "/paths-info/" in path:
            size = int(self.headers.get("Content-Length", 0))
            wanted = parse_qs(self.rfile.read(size).decode()).get("paths", [])
            return self.say([self.about(name) for name in wanted if name in self.files])
        if path.startswith("/api/"):
            return self.say({"id": "org/model", "modelId": "org/model", "sha": "0" * 40, "siblings": []})
        name = path.partition("/resolve/")[2].partition("/")[2]
        return self.give(self.files[name], {"ETag": '"1"', "X-Repo-Commit": "0" * 40})

    def about(self, name: str) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": "1"}


Serve = Callable[[type[Answering], Files], tuple[str, Asked]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """``serve(kind, files)``: a server's URL, and what is asked of it."""
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.01))
    with contextlib.ExitStack() as running:

        def start(kind: type[Answering], files: Files) -> tuple[str, Asked]:
            asked: Asked = []
            handler = type("Handler", (kind,), {"files": files, "asked": asked})
            made = running.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=made.serve_forever, daemon=True).start()
            running.callback(made.shutdown)
            return f"http://127.0.0.1:{made.server_port}", asked

        yield start


def run() -> Files:
    """Two checkpoints; the second has a NaN."""
    whole = save({"head.weight": torch.ones(400, 300)})
    text = io.BytesIO()
    np.save(text, np.ones((2, 3), np.float32))
    return {
        "step-10/model.safetensors": whole,
        "step-20/model.safetensors": save({"head.weight": BAD}),
        "step-20/x.npy": text.getvalue(),
    }


def test_google_cloud_storage(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false"
    )  # asks by gRPC, which no stub here answers
    pytest.importorskip("gcsfs")
    url, asked = serve(Storage, {f"run/{name}": content for name, content in run().items()})
    monkeypatch.setitem(fsspec.config.conf, "gs", {"endpoint_url": url, "token": "anon"})
    report = nanhunt.check("gs://runs/run/")
    bad = [(each.file, each.tensor) for each in report.tensors if each.findings]
    assert [each.file for each in report.tensors] == [f"gs://runs/run/{name}" for name in run()]
    assert bad == [("gs://runs/run/step-20/model.safetensors", "head.weight")]
    assert not report.errors
    # A listing says how large everything is: of each object its header is asked for, and of the large ones the rest.
    assert [
        path.partition("?")[0].rpartition("/")[2] for _, path, _ in asked if "/download/" not in path
    ] == ["o"]
    assert len(asked) == 1 + 2 + 2 + 1
    assert "does not exist" in nanhunt.check("gs://runs/run/none.npy").errors[0].message


def test_the_hub_of_hugging_face(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    url, asked = serve(
        Hub, {"model.safetensors": run()["step-20/model.safetensors"], "README.md": b"# hello"}
    )
    monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": url, "token": "secret"})
    assert find(["hf://org/model"]).files == ["hf://org/model/model.safetensors"]
    report = nanhunt.check("hf://org/model")
    assert [(each.tensor, bool(each.findings)) for each in report.tensors] == [("head.weight", True)]
    assert not report.errors
    assert {authorization for _, _, authorization in asked} == {"Bearer secret"}
    np.testing.assert_array_equal(
        open_path("hf://org/model/model.safetensors").tensors["head.weight"].data, BAD.numpy()
    )


@pytest.mark.parametrize(
    ("url", "says"),
    [("s3://b/x.npy", "nanhunt[remote]"), ("abfs://c/x.npy", "Install adlfs to access Azure")],
)
def test_a_missing_backend_is_named(url: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("s3fs", "adlfs"):
        monkeypatch.setitem(sys.modules, module, None)
    for known in ("s3", "s3a", "abfs"):
        monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, known, raising=False)
    assert says in nanhunt.check(url).errors[0].hint


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    assert "nanhunt[remote]" in nanhunt.check("abfs://c/x.npy").errors[0].hint
