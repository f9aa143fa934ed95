"""``nanhunt diff --format html``: one self-contained page, in the style of a report's."""

from __future__ import annotations

from nanhunt.render import html
from nanhunt.render.difference import wording
from nanhunt.results.difference import Difference

LISTED = 1000
"""Pairs on a page; the rest is counted."""


def render(found: Difference) -> str:
    """The page. It loads nothing."""
    told = [tensor for tensor in found.counted().tensors if tensor.findings]
    return html.page(
        "difference/page.html.jinja",
        found=found,
        wording=wording,
        tensors=told[:LISTED],
        unlisted=max(len(told) - LISTED, 0),
    )
