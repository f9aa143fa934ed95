"""samples/operations/README.md shows every file in its folder, and what the program says of it.

``python tests/test_operations_walkthrough.py`` writes the outputs anew; read the diff before committing it.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nanhunt.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "samples" / "operations" / "README.md"
SESSION = re.compile(r"```console\n\$ nanhunt (.*)\n(?:(?:.*\n)*?)```\n")
NUMBER = re.compile(r"\d+\.?\d*(?:e[-+]?\d+)?")


def session(words: str) -> str:
    """The block as running that command from ``ROOT`` writes it, 80 columns wide."""
    done = CliRunner().invoke(app, shlex.split(words), env={"COLUMNS": "80", "NO_COLOR": "1"})
    text = re.sub(r"[ \t]+$", "", done.output, flags=re.MULTILINE).rstrip("\n")
    return f"```console\n$ nanhunt {words}\n{text}\n```\n"


def commands() -> list[str]:
    return [match[1] for match in SESSION.finditer(PAGE.read_text(encoding="utf-8"))]


def test_every_file_has_its_session():
    assert {f"samples/operations/{file.name}" for file in PAGE.parent.glob("*.safetensors")} == {
        words.split()[1] for words in commands()
    }


@pytest.mark.parametrize("words", commands())
def test_sessions_are_what_is_shown(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    shown = next(
        match[0] for match in SESSION.finditer(PAGE.read_text(encoding="utf-8")) if match[1] == words
    )
    written = session(words)
    # Last digits are those of one processor.
    assert NUMBER.sub("#", shown) == NUMBER.sub("#", written), (
        f"run python {Path(__file__).name}, and read the diff"
    )


if __name__ == "__main__":
    import os

    os.chdir(ROOT)
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(SESSION.sub(lambda match: session(match[1]), text), encoding="utf-8")
