"""Untrusted text made harmless: names in files reach terminals, logs, pages and other programs.

A file or tensor name may hold escapes that recolour or retype a terminal, marks that reverse the reading order (Trojan
Source, https://trojansource.codes) or line breaks that forge a line of ours. Whatever leaves nanhunt passes here.
"""

from __future__ import annotations

import codecs
import json
import re

PLAIN = "nanhunt.plain"
"""An error handler of ``str.encode`` for streams that cannot carry everything: nothing raises, nothing gets lost."""
_IN_ASCII = {"─": "-", "·": "-", "…": "..."}


def literal(text: str) -> str:
    r"""``text`` on one line, everything that steers or hides spelled out: ESC becomes ``\x1b``.

    That is what Unicode does not call printable: controls (C0, C1), format and bidirectional marks, line separators,
    lone surrogates, private and unassigned characters, blanks other than the space.
    """
    return text if text.isprintable() else "".join(map(_spelled, text))


def literal_lines(text: str) -> str:
    """The same for text of ours over several lines: line feeds stay, and nothing else does."""
    return "\n".join(map(literal, text.split("\n")))


def literal_json(text: str) -> str:
    """A JSON document with such characters as escapes, which every reader undoes; line feeds stay."""
    return _NOT_PLAIN.sub(_escaped, text)


_NOT_PLAIN = re.compile("[^\n -~]")


def _spelled(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    # ASCII output spells characters beyond the basic plane as two surrogates, as JSON demands.
    return character if character.isprintable() else json.dumps(character)[1:-1]


def _plain(error: UnicodeError) -> tuple[str, int]:
    r"""What takes the place of characters that cannot be encoded: ours in ASCII, others as ``\u00ef``, as JSON does."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(character) or json.dumps(character)[1:-1] for character in lost), error.end


codecs.register_error(PLAIN, _plain)
