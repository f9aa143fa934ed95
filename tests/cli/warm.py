"""A process that has imported what nanhunt imports, and forks for every command line that a test runs.

Each command has a process, working directory, environment and standard streams of its own; what it does not have is
the second that starting Python and importing torch costs. Tests of starting and ending run ``python -m nanhunt``.

Reads a line of JSON a command on standard input, answers with its exit code on standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import IO, Any, NoReturn

STREAMS = ("stdin", "stdout", "stderr")


class Warm:
    """The other side: runs command lines in forks of one process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, arguments: list[str], cwd: Path, environment: dict[str, str], stdin: bytes
    ) -> tuple[int, bytes, bytes]:
        """(exit code, standard output, standard error); streams pass through files beside ``cwd``."""
        paths = [cwd.with_name(f"{cwd.name}.{name}") for name in STREAMS]
        paths[0].write_bytes(stdin)
        asked = {
            "arguments": arguments,
            "cwd": str(cwd),
            "environment": environment,
            "streams": [*map(str, paths)],
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return code, paths[1].read_bytes(), paths[2].read_bytes()

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Runs command lines, one after the other, until there are no more."""
    import torch

    import nanhunt.cli.app
    import nanhunt.scan.inputs  # noqa: F401

    torch.set_num_threads(1)  # threads would not survive the fork
    for line in requests:
        child = os.fork()
        if not child:
            _become(json.loads(line))
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        answers.flush()


def _become(asked: dict[str, Any]) -> NoReturn:
    """``python -m nanhunt``, as far as it can tell."""
    from nanhunt.__main__ import main

    code: object = 70
    try:
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        for number, (name, path) in enumerate(zip(STREAMS, asked["streams"], strict=True)):
            opened = os.open(path, os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, number)
            encoding = asked["environment"].get("PYTHONIOENCODING", "utf-8")
            errors = "backslashreplace" if name == "stderr" else "strict"
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(number, mode, encoding=encoding, errors=errors))
        sys.argv = ["nanhunt", *asked["arguments"]]
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    serve(sys.stdin, os.fdopen(os.dup(1), "w"))
