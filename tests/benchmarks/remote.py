"""Checks a run behind a URL, and beside it downloads the run first: seconds, requests, bytes, with a server's delays.

    python tests/benchmarks/remote.py [MIB] [MILLISECONDS] [MIB_PER_SECOND]

A web server on the loopback waits MILLISECONDS before every answer and sends each at most at MIB_PER_SECOND, as an
object store in the same region does (30 ms and 90 MiB/s a connection). Needs nanhunt[remote]. Two runs of MIB MiB each:
one file of large tensors, and 200 files of small ones; the second has a NaN in the last file.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import torch
from safetensors.torch import save_file

PIECE = 1 << 18
"""Bytes sent between two looks at the clock."""


class Handler(SimpleHTTPRequestHandler):
    """Serves ranges, late and slowly."""

    protocol_version = "HTTP/1.1"
    delay = 0.0
    rate = 1.0
    requests = sent = 0

    def log_message(self, *arguments: Any) -> None:
        """Nothing is logged."""

    def do_HEAD(self) -> None:
        """Only the size."""
        time.sleep(self.delay)
        super().do_HEAD()

    def do_GET(self) -> None:
        """A listing, or the range that is asked for."""
        time.sleep(self.delay)
        Handler.requests += 1
        path = Path(self.translate_path(self.path))
        if path.is_dir():
            return super().do_GET()
        size = path.stat().st_size
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        end = min(size, int(last) + 1 if last else size)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(end - int(first)))
        self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        self.end_headers()
        self._send(path, int(first), end)
        return None

    def _send(self, path: Path, first: int, end: int) -> None:
        began = time.monotonic()
        with path.open("rb") as stream, contextlib.suppress(OSError):
            stream.seek(first)
            for start in range(first, end, PIECE):
                piece = stream.read(min(PIECE, end - start))
                self.wfile.write(piece)
                Handler.sent += len(piece)
                time.sleep(max(0.0, began + (start - first + len(piece)) / self.rate - time.monotonic()))


def write(folder: Path, mib: int) -> None:
    """The two runs."""
    (folder / "large").mkdir()
    (folder / "small").mkdir()
    side = 1448  # 8 MiB a tensor
    large = {f"layers.{number}.weight": torch.randn(side, side) for number in range(max(1, mib // 8))}
    save_file(large, folder / "large" / "model.safetensors")
    rows = max(1, mib * (1 << 20) // 200 // 20 // 4 // 64)
    for file in range(200):
        weights = {f"layers.{number}.weight": torch.randn(rows, 64) for number in range(20)}
        if file == 199:
            weights["layers.3.weight"][0, 0] = torch.nan
        save_file(weights, folder / "small" / f"step-{file}.safetensors")


def check(path: str) -> tuple[float, str]:
    """(seconds of the whole process, its last line)."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "nanhunt", "check", path],
        capture_output=True,
        text=True,
        check=False,
    )
    return time.perf_counter() - began, (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]


def measured(url: str) -> None:
    """One row of the table."""
    Handler.requests = Handler.sent = 0
    there, said = check(url)
    requests, sent = Handler.requests, Handler.sent
    with tempfile.TemporaryDirectory() as copy:
        began = time.perf_counter()
        files = fsspec.filesystem("http")
        names = [name for name in files.ls(url, detail=False) if not name.endswith("/")]
        files.get(names, [f"{copy}/{name.rpartition('/')[2]}" for name in names])
        download = time.perf_counter() - began
        here, same = check(copy)
    print(f"{url.rstrip('/').rpartition('/')[2]}: {said}" + ("" if same == said else f" / {same}"))
    print(f"  by ranges         {there:6.2f} s, {requests} requests, {sent / (1 << 20):.1f} MiB")
    print(f"  download, check   {download:6.2f} + {here:.2f} = {download + here:.2f} s")


def main() -> None:
    """Prints both."""
    mib, milliseconds, rate = (int(each) for each in (*sys.argv[1:], 400, 30, 90)[:3])
    Handler.delay, Handler.rate = milliseconds / 1000, rate * (1 << 20)
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), mib)
        server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: Handler(*given, directory=name))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for run in ("large", "small"):
            measured(f"http://127.0.0.1:{server.server_port}/{run}/")
        server.shutdown()


if __name__ == "__main__":
    main()
