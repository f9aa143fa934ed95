"""A Difference becomes text: one module per ``--format`` value, as for reports."""

from __future__ import annotations

from nanhunt.errors import NanhuntError
from nanhunt.literal import literal_lines
from nanhunt.results.difference import Difference

DIFFERENCE_FORMATS = ("text", "json", "github", "junit", "sarif", "markdown", "html")


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
    match format:
        case "text":
            from nanhunt.render.difference import text

            return text.render(found, width=width, color=color, verbosity=verbosity, ascii=ascii)
        case "json":
            return found.to_json(verbose=verbosity > 0)
        case "github":
            from nanhunt.render.difference import github

            return literal_lines(github.render(found))
        case "junit":
            from nanhunt.render.difference import junit

            return literal_lines(junit.render(found))
        case "sarif":
            from nanhunt.render.difference import sarif

            return sarif.render(found)
        case "markdown":
            from nanhunt.render.difference import markdown

            return literal_lines(markdown.render(found))
        case "html":
            from nanhunt.render.difference import html

            return literal_lines(html.render(found))
        case _:
            known = ", ".join(DIFFERENCE_FORMATS)
            raise NanhuntError(f"unknown format {format!r}", f"Formats: {known}.")
