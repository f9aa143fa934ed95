"""A process that has imported what nanhunt imports, and forks for every command line that a test runs.

Each command has a process, working directory, environment and standard streams of its own; what it does not have is
the seconds that starting Python and importing torch cost. Tests of starting itself run ``python -m nanhunt``.

A request is one packet on a Unix socket: JSON, and the descriptors of the three standard streams beside it. The answer
is the exit code. ``Warm.command`` is a program that asks so, for shells.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

STREAMS = ("stdin", "stdout", "stderr")
PACKET = 1 << 17
POLL = 0.002
"""Seconds between two looks at what has ended."""
LIMIT = 120.0
"""Seconds that a command may take."""
COMMAND = """#!{python} -IS
import json, os, signal, socket, sys
asked = {{"arguments": sys.argv[1:], "cwd": os.getcwd(), "environment": dict(os.environ)}}
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.connect({address!r})
    socket.send_fds(server, [json.dumps(asked).encode()], [0, 1, 2])
    code = int(server.recv(16))
sys.exit(code) if code >= 0 else os.kill(os.getpid(), -code)
"""
OTHERS = ("nanhunt.guard", "nanhunt.notebook", "nanhunt.testing", "nanhunt.watch.startup", "nanhunt.__main__")
"""Parts that a command line does not import, or that do something when they are imported."""


class Warm:
    """The other side: runs command lines in forks of one process."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="warm-")
        self._address = str(Path(self._folder.name, "socket"))
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._address], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        self.command = Path(self._folder.name, "bin", "nanhunt")
        self.command.parent.mkdir()
        self.command.write_text(COMMAND.format(python=sys.executable, address=self._address))
        self.command.chmod(0o755)

    def run(
        self, arguments: list[str], cwd: Path, environment: Mapping[str, str] = os.environ, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """``nanhunt`` with these arguments, come to its end; raises TimeoutError after LIMIT seconds."""
        asked = {"arguments": arguments, "cwd": str(cwd), "environment": dict(environment)}
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(tempfile.TemporaryFile()) for _ in STREAMS]
            streams[0].write(stdin)
            streams[0].seek(0)
            server = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            server.settimeout(LIMIT)
            server.connect(self._address)
            socket.send_fds(server, [json.dumps(asked).encode()], [stream.fileno() for stream in streams])
            code = int(server.recv(16))
            for stream in streams[1:]:
                stream.seek(0)
            out, err = (stream.read().decode() for stream in streams[1:])
            return subprocess.CompletedProcess(["nanhunt", *arguments], code, out, err)

    def close(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.communicate()
        self._folder.cleanup()


def serve(address: str) -> None:
    """Runs command lines, as many at a time as are asked for; returns in the process of a command, never else."""
    _import_all()
    running: dict[int, socket.socket] = {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address)
        listening.listen()
        os.write(1, b"ready\n")
        while True:
            _tell_of_ended(running)
            if not select.select([listening], [], [], POLL if running else None)[0]:
                continue
            asking, _ = listening.accept()
            request, streams, _, _ = socket.recv_fds(asking, PACKET, len(STREAMS))
            child = os.fork()
            if not child:
                for each in (asking, *running.values()):
                    each.close()
                return _prepare(json.loads(request), streams)
            running[child] = asking
            for each in streams:
                os.close(each)


def _tell_of_ended(running: dict[int, socket.socket]) -> None:
    while running:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        with running.pop(child) as asking, contextlib.suppress(OSError):  # whoever asked may have given up
            asking.send(str(os.waitstatus_to_exitcode(status)).encode())


def _import_all() -> None:
    import torch
    import torch._dynamo

    import nanhunt

    for module in pkgutil.walk_packages(nanhunt.__path__, "nanhunt."):
        if not module.name.startswith(OTHERS):
            importlib.import_module(module.name)
    torch.set_num_threads(1)  # threads would not survive the fork
    gc.freeze()  # what is never collected stays shared


def _prepare(asked: dict[str, Any], streams: list[int]) -> None:
    """Become a process as ``python -m nanhunt`` finds it."""
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    for number, (name, given) in enumerate(zip(STREAMS, streams, strict=True)):
        os.dup2(given, number)
        os.close(given)
        setting = asked["environment"].get
        at_once = name != "stdin" and bool(setting("PYTHONUNBUFFERED"))
        stream = io.TextIOWrapper(
            os.fdopen(number, "rb" if name == "stdin" else "wb", 0 if at_once else -1),
            encoding=setting("PYTHONIOENCODING", "utf-8"),
            errors="backslashreplace" if name == "stderr" else "strict",
            line_buffering=name == "stderr",
            write_through=at_once,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.argv = ["nanhunt", *asked["arguments"]]
    sys.path[0] = asked["cwd"]


def _command() -> NoReturn:
    """``python -m nanhunt``, as far as it can tell; Python's own way out would free, object by object, all of torch."""
    from nanhunt.__main__ import main

    code: object = 70
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads, as the way out does
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(
            AttributeError, ValueError
        ):  # a script may have closed it, or put None there
            stream.flush()
    os._exit(code & 0xFF if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    serve(sys.argv[1])
    _command()
