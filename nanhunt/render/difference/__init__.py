"""A Difference becomes text: one module per ``--format`` value, as for reports."""

from __future__ import annotations

import importlib

from nanhunt.literal import literal_lines
from nanhunt.options import one_of
from nanhunt.results.difference import Difference

DIFFERENCE_FORMATS = ("text", "json", "jsonl", "github", "junit", "sarif", "markdown", "html")


def render_difference(
    found: Difference,
    format: str,
    *,
    width: int = 80,
    color: bool = False,
    verbosity: int = 0,
    ascii: bool = False,
) -> str:
    """The difference in one of ``DIFFERENCE_FORMATS``, ending in a newline; arguments as in ``nanhunt.render.render``.

    Raises NanhuntError for an unknown format.
    """
    one_of("The format", format, DIFFERENCE_FORMATS)
    if format == "text":
        from nanhunt.render.difference import text

        return text.render(found, width=width, color=color, verbosity=verbosity, ascii=ascii)
    if format in ("json", "jsonl"):
        return found.to_json(2 if format == "json" else None, verbose=verbosity > 0)
    module = importlib.import_module(f"{__name__}.{format}")
    return literal_lines(module.render(found))
