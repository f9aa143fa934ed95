"""The process around a command: its standard streams, what it complains of, and the code it ends with.

Whatever goes wrong outside (a full disk, a closed pipe, a deleted folder, too little memory) becomes one message and
exit code 2: 1 means findings, and a traceback means a bug of ours.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nanhunt.errors import NanhuntError
from nanhunt.literal import PLAIN, literal, literal_lines
from nanhunt.results.exit_code import INTERRUPTED, ExitCode


def run(app: Callable[..., Any], arguments: list[str]) -> int:
    """The exit code of ``app(arguments)``, a Typer application; what it raises is told on standard error."""
    if arguments[:1] != ["run"] or arguments[1:] in (["--help"], ["-h"]):  # a script's output is its own
        _encode_all()
    try:
        code = app(arguments or ["--help"], prog_name="nanhunt", standalone_mode=False)
        if sys.stdout is not None and not sys.stdout.closed:  # a watched script may have done either
            sys.stdout.flush()
    except NanhuntError as error:
        complain(error.message, error.hint)
        code = ExitCode.ERROR
    except SystemExit as ended:
        # Click makes 1 of a help text that nobody reads to its end, which means findings.
        code = ExitCode.ERROR if isinstance(ended.__context__, BrokenPipeError) else ended.code
    except KeyboardInterrupt:
        complain("interrupted.")
        code = INTERRUPTED
    except (
        BrokenPipeError
    ):  # `nanhunt rule --all | head -1`: nobody reads any more, which is no error to tell of
        code = ExitCode.ERROR
    except Exception as error:
        complain(*_explained(error))
        code = ExitCode.ERROR
    _discard_unwritten()
    if not arguments:
        return ExitCode.ERROR
    return code if isinstance(code, int) else 0 if code is None else ExitCode.ERROR


def complain(message: str, hint: str = "") -> None:
    """Two lines on standard error, harmless whatever they quote; nothing where nobody can be told."""
    say(f"nanhunt: {literal_lines(message)}\n" + (f"  {literal_lines(hint)}\n" if hint else ""))


def say(text: str) -> None:
    """On standard error; nothing where nobody can be told."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text.encode(encoding, PLAIN).decode(encoding))
        sys.stderr.flush()


def occupy_standard_streams() -> None:
    """Opens what whoever started this has closed, or the next file opened would become standard output."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the one that is missing.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - as long as the process


def _encode_all() -> None:
    """Has standard output spell out what it cannot encode: Typer's help does not ask what it can."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=PLAIN)


def _nearest(error: Exception) -> str:
    """For a flag that does not exist, the one that is most like it: Click lists every one that shares a few letters."""
    flag, known = getattr(error, "option_name", None), getattr(error, "possibilities", None)
    if flag is None or not known:
        return ""
    (near,) = difflib.get_close_matches(flag, known, n=1, cutoff=0.0)
    return f"No such option: {flag} Did you mean {near}?"


def _explained(error: Exception) -> tuple[str, str]:
    """(message, hint) of what neither nanhunt nor the user is to blame for, of wrong usage, or of a bug."""
    usage = getattr(error, "format_message", None)
    if usage is not None:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "nanhunt"
        return _nearest(error) or usage(), f"See `{command} --help`."
    text = str(error).lower()
    if isinstance(error, MemoryError) or "failed to map" in text or "cannot allocate memory" in text:
        return "Memory ran out.", "Judge fewer files at once, or allow more (ulimit -v)."
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return "No thread can be started.", "Allow more processes (ulimit -u) or memory (ulimit -v)."
    if isinstance(error, OSError):
        return _refused(error)
    return _bug(error)


def _refused(error: OSError) -> tuple[str, str]:
    reason = error.strerror or str(error) or type(error).__name__
    try:
        Path.cwd()
    except OSError:
        return "The working folder has been deleted.", "Change to another one, or name inputs in full."
    if error.filename is not None:
        return f"{literal(str(error.filename))}: {reason}.", "Check that it exists, and that you may use it."
    if error.errno in (errno.ENOSPC, errno.EBADF, errno.EIO, errno.EFBIG):
        return f"Standard output cannot be written: {reason}.", "Make room, or write to another place."
    return f"The system refused: {reason}.", "Try again from another folder, or with fewer files."


def _bug(error: Exception) -> tuple[str, str]:
    import traceback

    told = "".join(traceback.format_exception(error))
    return f"{told.rstrip()}\nnanhunt: this is a bug in nanhunt.", "Please report it with the lines above."


def _discard_unwritten() -> None:
    """What a full device has not taken is dropped, or Python would end with a code of its own (120)."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None or stream.closed:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
