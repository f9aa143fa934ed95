"""Where text goes: standard output, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanhunt.errors import NanhuntError
from nanhunt.literal import PLAIN, literal
from nanhunt.results.exit_code import ExitCode

if TYPE_CHECKING:
    from nanhunt.operations.run import Tables


def has_color() -> bool:
    """Whether standard output wants colour: NO_COLOR and FORCE_COLOR first, then whether it is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def width() -> int:
    """Columns to write: the terminal's (or COLUMNS), 80 in a pipe."""
    return max(40, shutil.get_terminal_size((80, 24)).columns)


def is_ascii() -> bool:
    """Whether standard output cannot encode box drawing."""
    try:
        "─█≥".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def say(text: str) -> None:
    """Writes to standard output, what it cannot encode replaced; the process ends when nobody reads (`| head`).

    Raises NanhuntError where it cannot be written: a full device, a closed stream.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, PLAIN).decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        # Here, since Typer would make 1 of it, which means findings. At exit there is nothing left to flush.
        _drop_standard_output()
        sys.exit(ExitCode.ERROR)
    except OSError as error:
        _drop_standard_output()
        reason = error.strerror or str(error)
        hint = "Make room, or write to another place with --output."
        raise NanhuntError(f"Standard output cannot be written: {reason}.", hint) from None


def _drop_standard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write(path: str, text: str) -> None:
    """Writes a whole file. NanhuntError when it cannot be, and then no part of it is left."""
    write_with(path, lambda stream: stream.write(text.encode("utf-8", "replace")))


def write_with(path: str, fill: Callable[[io.BufferedWriter], Any]) -> None:
    """Writes a file next to its final place, then moves it there: a reader sees the old one or the new one.

    Raises NanhuntError where the folder or the file cannot be written.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        # A device or a pipe (/dev/stdout, a process substitution) cannot be replaced; it is written straight.
        _straight(target, fill)
        return
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as stream:
            fill(stream)
        Path(temporary).chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
        Path(temporary).replace(target)
        temporary = None
    except OSError as error:
        raise NanhuntError(
            f"{path} cannot be written: {error.strerror or error}.", "Choose another place."
        ) from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def _straight(target: Path, fill: Callable[[io.BufferedWriter], Any]) -> None:
    try:
        with target.open("wb") as stream:
            fill(stream)
    except OSError as error:
        raise NanhuntError(
            f"{target} cannot be written: {error.strerror or error}.", "Choose another place."
        ) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_rows(path: str, tables: Tables) -> None:
    """--save-rows: arrays by column name (.npz), or one line per row (.csv).

    With several tensors or dtypes the .npz names are "TENSOR|DTYPE|COLUMN"; the .csv always says tensor and dtype.
    Names of tensors are written as ``literal`` spells them: neither file has escapes of its own.
    """
    tables = {(literal(label), dtype): table for (label, dtype), table in tables.items()}
    if path.lower().endswith(".npz"):
        import numpy as np

        arrays: dict[str, Any] = {
            name if len(tables) == 1 else f"{label}|{dtype}|{name}": column
            for (label, dtype), table in tables.items()
            for name, column in table.columns.items()
        }
        write_with(path, lambda stream: np.savez(stream, **arrays))
    else:
        write_with(path, lambda stream: _csv(stream, tables))


def _csv(stream: io.BufferedWriter, tables: Tables) -> None:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    names = list(dict.fromkeys(name for table in tables.values() for name in table.columns if name != "row"))
    writer.writerow(["tensor", "dtype", "row", *names])
    for (label, dtype), table in tables.items():
        columns = {name: column.tolist() for name, column in table.columns.items()}
        numbers = columns.pop("row", range(len(next(iter(columns.values()), []))))
        for at, row in enumerate(numbers):  # what another operation has is left empty
            writer.writerow(
                [label, dtype, row, *(columns[name][at] if name in columns else "" for name in names)]
            )
    text.flush()
    text.detach()
