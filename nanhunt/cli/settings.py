"""Configuration from [tool.nanhunt]: options under their names on the command line, and per-path tables.

The table is for check, compare and report; commands with other options have a table of their own below it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from nanhunt.errors import NanhuntError
from nanhunt.options import Option, checked

OWN_TABLES = ("diff", "run")
"""Commands whose options are in [tool.nanhunt.diff] and so on."""


@dataclass(frozen=True)
class Configuration:
    """What a configuration file says, under field names (underscores)."""

    values: Mapping[str, Any] = field(default_factory=dict)
    per_path: tuple[tuple[tuple[str, ...], Mapping[str, Any]], ...] = ()
    """(globs, values) in order; later tables win."""

    def for_path(self, path: str) -> dict[str, Any]:
        """The per-path values that apply to ``path``; globs match it as given, or from any folder on."""
        found: dict[str, Any] = {}
        for globs, values in self.per_path:
            if any(fnmatchcase(path, glob) or fnmatchcase(path, f"*/{glob}") for glob in globs):
                found |= values
        return found


def read_configuration(
    file: str | None,
    known: Mapping[str, Option],
    by_path: Mapping[str, Option],
    *,
    command: str = "check",
    isolated: bool,
) -> Configuration:
    """Configuration from ``file``, or from the pyproject.toml found upward from the working directory.

    ``known`` and ``by_path`` are the options that the table of ``command`` and its per-path tables may hold, by key.
    Raises NanhuntError for a file that cannot be read, an unknown key or a value that its option does not take.
    """
    if isolated and file is None:
        return Configuration()
    path = Path(file) if file is not None else _nearest()
    if path is None:
        return Configuration()
    table = _table(path, whole=file is not None)
    own = {name: table.pop(name) for name in OWN_TABLES if name in table}
    if command in OWN_TABLES:
        return Configuration(_values(path, _of_command(path, command, own), known, command))
    tables = table.pop("per-path", [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise NanhuntError(f"{path}: per-path is not a list of tables.", "Write [[tool.nanhunt.per-path]].")
    return Configuration(
        _values(path, table, known), tuple(_per_path(path, each, by_path) for each in tables)
    )


def _nearest() -> Path | None:
    """Upward from the working directory; none where that has been deleted, or may not be looked into."""
    try:
        folder = Path.cwd()
    except OSError:
        return None
    files = (each / "pyproject.toml" for each in (folder, *folder.parents))
    return next((file for file in files if os.path.isfile(file)), None)  # noqa: PTH113 - False, and not an error


def _table(path: Path, *, whole: bool) -> dict[str, Any]:
    """The [tool.nanhunt] table; in a file given with --config, top-level keys count when there is none."""
    import tomllib  # most runs find no file

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise NanhuntError(f"{path} cannot be read: {error}", "Name another file with --config.") from None
    except tomllib.TOMLDecodeError as error:
        raise NanhuntError(f"{path} is not valid TOML: {error}", "Mend it, or use --isolated.") from None
    tool = content.get("tool", {})
    found = tool.get("nanhunt") if isinstance(tool, dict) else None
    if found is None:
        found = content if whole and "tool" not in content else {}
    if not isinstance(found, dict):
        raise NanhuntError(f"{path}: tool.nanhunt is not a table.", "Write [tool.nanhunt].")
    return dict(found)


def _of_command(path: Path, command: str, tables: Mapping[str, Any]) -> Mapping[str, Any]:
    found = tables.get(command, {})
    if not isinstance(found, dict):
        raise NanhuntError(
            f"{path}: tool.nanhunt.{command} is not a table.", f"Write [tool.nanhunt.{command}]."
        )
    return found


def _per_path(
    path: Path, table: dict[str, Any], known: Mapping[str, Option]
) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    values = dict(table)
    globs = values.pop("paths", None)
    if not isinstance(globs, list) or not all(isinstance(glob, str) for glob in globs):
        raise NanhuntError(f"{path}: a per-path table needs paths.", 'Write paths = ["dumps/attn*"].')
    return tuple(globs), _values(path, values, known)


def _values(
    path: Path, table: Mapping[str, Any], known: Mapping[str, Option], command: str = ""
) -> dict[str, Any]:
    """By field name, as the options hold them."""
    title = f"tool.nanhunt.{command}" if command else "tool.nanhunt"
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            meant = f"Did you mean {near[0]}? " if near else ""
            raise NanhuntError(
                f"{path}: unknown key {key!r} in [{title}].", f"{meant}Keys: {', '.join(sorted(known))}."
            )
    return {
        known[key].name: checked(known[key], value, lambda option: f"{path}: {option.key}")
        for key, value in table.items()
    }
