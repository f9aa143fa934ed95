"""A Report becomes text: one module per ``--format`` value, each imported only when it is asked for.

Nothing is computed here beyond layout; torch and numpy are never imported.
Tensor names come from files and are untrusted: every renderer shows them as literal text. A name must also keep to its
line, which only its renderer can see to; that nothing else slips through is made sure of here, for all of them.
"""

from __future__ import annotations

import importlib
from pathlib import PurePath
from typing import TYPE_CHECKING

from nanhunt.errors import NanhuntError
from nanhunt.literal import literal_lines
from nanhunt.options import one_of

if TYPE_CHECKING:
    from nanhunt.results.report import Report

REPORT_FORMATS: tuple[str, ...] = ("text", "json", "jsonl", "github", "junit", "sarif", "markdown", "html")
SUFFIXES = {
    ".txt": "text",
    ".json": "json",
    ".jsonl": "jsonl",
    ".xml": "junit",
    ".sarif": "sarif",
    ".md": "markdown",
    ".html": "html",
}


def render(
    report: Report,
    format: str,
    *,
    width: int = 80,
    color: bool = False,
    verbosity: int = 0,
    ascii: bool = False,
) -> str:
    """The report in one of ``REPORT_FORMATS``, ending in a newline; the same report gives the same bytes.

    ``width`` (columns), ``color`` (ANSI escapes), ``verbosity`` (-1 findings only, 0, 1 everything) and
    ``ascii`` (for an output that cannot encode box drawing) shape only ``text``.
    Raises NanhuntError for an unknown format.
    """
    one_of("The format", format, REPORT_FORMATS)
    if format == "text":
        from nanhunt.render import text

        return text.render(report, width=width, color=color, verbosity=verbosity, ascii=ascii)
    if format in ("json", "jsonl"):
        from nanhunt.render import json, jsonl

        write = json.render if format == "json" else jsonl.render
        return write(report, verbosity=verbosity)
    module = importlib.import_module(f"{__name__}.{format}")
    return literal_lines(module.render(report))


def format_for(path: str) -> str:
    """The format that a file name's suffix asks for. Raises NanhuntError when it names none."""
    suffix = PurePath(path).suffix.lower()
    if suffix not in SUFFIXES:
        known = ", ".join(f"{end} ({name})" for end, name in SUFFIXES.items())
        raise NanhuntError(f"--output {path}: the suffix does not say which format", f"Use one of {known}.")
    return SUFFIXES[suffix]


def statistics(report: Report, *, width: int = 80, color: bool = False, ascii: bool = False) -> str:
    """The ``--statistics`` table: rules by count over all inputs, as text."""
    from nanhunt.render import text

    return text.statistics(report, width=width, color=color, ascii=ascii)
