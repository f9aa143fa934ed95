"""Lines for a terminal, a pipe or a log: wrapped to a width, coloured or not, in ASCII where that is all there is.

rich does the wrapping and the colours. Everything is a ``Text``: nothing is read as markup.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from nanhunt.literal import PLAIN, literal
from nanhunt.results.finding import Severity

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
HEALTHY = "green"
_WORD = re.compile(r"\S+")
_PART = re.compile(r"[^./:]*[./:]+|[^./:]+")
"""What a name is made of, each part with the separator behind it."""


class Page:
    """A rich console that writes to memory, independent of its environment, so that bytes repeat."""

    def __init__(self, width: int, color: bool, ascii: bool) -> None:
        self.width = max(width, 20)
        self.ascii = ascii
        self._file = io.StringIO()
        self._console = Console(
            file=self._file,
            width=self.width,
            color_system="standard" if color else None,
            force_terminal=color,
            force_jupyter=False,
            force_interactive=False,
            no_color=not color,
            legacy_windows=False,
            markup=False,
            emoji=False,
            highlight=False,
            _environ={},
        )

    def encodable(self, text: str) -> str:
        """One line of ``text``, spelled out where it would steer the terminal, in ASCII if that is all there is."""
        text = literal(text)
        return text.encode("ascii", PLAIN).decode() if self.ascii else text

    def line(self, *parts: tuple[str, str], indent: int = 0) -> None:
        """One paragraph of (text, style) parts, wrapped, its further lines indented like the first."""
        text = Text(overflow="fold")
        for part, style in parts:
            text.append(_breakable(self.encodable(part), self.width - indent), style)
        self._console.print(Padding(text, (0, 0, 0, indent), expand=False), soft_wrap=False)

    def code(self, text: str, indent: int) -> None:
        """Lines of code as they are, however long: what is copied must run."""
        for line in text.splitlines():
            shown = Text.assemble(" " * indent, (self.encodable(line), "bold"))
            self._console.print(shown, soft_wrap=True)

    def gap(self) -> None:
        """An empty line."""
        self._console.print()

    def table(
        self, header: Sequence[str], lines: Sequence[Sequence[str]], styles: Sequence[str], left: int = 1
    ) -> None:
        """A table whose first ``left`` columns are text and the rest numbers; a list where it is too wide."""
        widths = [max(map(cell_len, column)) for column in zip(header, *lines, strict=True)]
        if sum(widths) + 2 * len(widths) > self.width:
            self._list(header, lines, styles)
            return
        self._cells(header, widths, left, "bold")
        self.line(("─" * (sum(widths) + 2 * len(widths) - 2), "dim"), indent=2)
        for line, style in zip(lines, styles, strict=True):
            self._cells(line, widths, left, style)

    def _cells(self, cells: Sequence[str], widths: Sequence[int], left: int, style: str) -> None:
        parts = []
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            blank = " " * (width - cell_len(cell))
            gap = "" if index == 0 else "  "
            padded = f"{gap}{cell}{blank}" if index < left else f"{gap}{blank}{cell}"
            parts.append((padded, _loud(cell) or style))
        self.line(*parts, indent=2)

    def _list(self, header: Sequence[str], lines: Sequence[Sequence[str]], styles: Sequence[str]) -> None:
        wide = max(map(cell_len, header[1:]))
        for line, style in zip(lines, styles, strict=True):
            self.line((line[0], style or "bold"), indent=1)
            for title, cell in zip(header[1:], line[1:], strict=True):
                if cell:
                    self.line((f"{title:<{wide}}  ", ""), (cell, _loud(cell)), indent=3)

    def text(self) -> str:
        """Everything written so far, without the blanks with which rich fills lines."""
        return "".join(line.rstrip() + "\n" for line in self._file.getvalue().splitlines())


def _breakable(text: str, room: int) -> str:
    """``text`` with a space where a name too long for a line of ``room`` columns is best broken: behind a ``.``.

    Two pieces never fit into one line, so what rich makes of such a space is the end of a line.
    """
    return _WORD.sub(lambda word: " ".join(_pieces(word[0], room)), text)


def _pieces(word: str, room: int) -> Iterator[str]:
    """As much of ``word`` at a time as fits ``room``; from a part on that does not fit, the rest is left to rich."""
    piece = ""
    for part in _PART.findall(word):
        if piece and cell_len(piece) <= room < cell_len(piece + part):
            yield piece
            piece = ""
        piece += part
    yield piece


def _loud(cell: str) -> str:
    return "bold red" if cell in ("nan", "inf", "-inf") else ""
