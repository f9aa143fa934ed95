"""Checks a run behind a URL, and beside it downloads the run first: seconds, requests, bytes, with a server's delays.

    python tests/benchmarks/remote.py [MIB] [MILLISECONDS] [MIB_PER_SECOND]

A web server on the loopback waits MILLISECONDS before every answer and sends each at most at MIB_PER_SECOND, as an
object store in the same region does (30 ms and 90 MiB/s a connection). Needs nanhunt[remote]. Two runs of MIB MiB each:
one file of large tensors, and 200 files of small ones; the second has a NaN in the last file. Downloaded is by
CONNECTIONS at once, in parts of PART bytes, as the command lines of object stores do, and no start is counted for it.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors.torch import save_file

PIECE = 1 << 18
"""Bytes sent between two looks at the clock."""
PART = 1 << 23
CONNECTIONS = 10
ROUNDS = 3


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


def download(url: str, into: Path) -> None:
    """All files of a listing, parts of them side by side."""
    with urllib.request.urlopen(url) as answer:
        names = re.findall(r'href="([^"/]+)"', answer.read().decode())
    connections = threading.local()

    def fetch(name: str, first: int) -> int:
        """One part into its place; the size of the whole."""
        if not hasattr(connections, "one"):
            connections.one = http.client.HTTPConnection(urlsplit(url).netloc)
        asked = {"Range": f"bytes={first}-{first + PART - 1}"}
        connections.one.request("GET", urlsplit(url).path + name, headers=asked)
        answer = connections.one.getresponse()
        with (into / name).open("r+b") as stream:
            stream.seek(first)
            stream.write(answer.read())
        return int(answer.headers["Content-Range"].rpartition("/")[2])

    for name in names:
        (into / name).touch()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        sizes = pool.map(fetch, names, [0] * len(names))
        for name, size in zip(names, sizes, strict=True):
            rest = range(PART, size, PART)
            list(pool.map(fetch, [name] * len(rest), rest))


def measured(url: str) -> None:
    """One row of the table: medians of ROUNDS, in turns."""
    times: list[tuple[float, float, float]] = []
    for _ in range(ROUNDS):
        Handler.requests = Handler.sent = 0
        there, said = check(url)
        requests, sent = Handler.requests, Handler.sent
        with tempfile.TemporaryDirectory() as copy:
            began = time.perf_counter()
            download(url, Path(copy))
            copied = time.perf_counter() - began
            here, same = check(copy)
        times.append((there, copied, here))
    there, copied, here = (statistics.median(each) for each in zip(*times, strict=True))
    print(f"{url.rstrip('/').rpartition('/')[2]}: {said}" + ("" if same == said else f" / {same}"))
    print(f"  by ranges         {there:6.2f} s, {requests} requests, {sent / (1 << 20):.1f} MiB")
    print(f"  download, check   {copied:6.2f} + {here:.2f} = {copied + here:.2f} s")


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
