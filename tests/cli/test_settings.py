"""Configuration files: found upward, checked key by key, per path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from nanhunt.cli.app import app
from nanhunt.cli.options import OutputOptions
from nanhunt.cli.settings import Configuration, read_configuration
from nanhunt.difference.options import DiffOptions
from nanhunt.errors import NanhuntError
from nanhunt.options import declared
from nanhunt.scan.options import Options

BY_PATH = {option.key: option for option in declared(Options).values()}
KNOWN = BY_PATH | {option.key: option for option in declared(OutputOptions).values()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, two below the one with the settings."""
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    return tmp_path


def read(folder: Path, text: str) -> Configuration:
    """Configuration of a pyproject.toml with that text."""
    (folder / "pyproject.toml").write_text(text)
    return read_configuration(None, KNOWN, BY_PATH, isolated=False)


def test_found_upward_and_named_like_fields(folder: Path) -> None:
    text = '[tool.nanhunt]\nfail-on = "note"\nmax-rows = 3\ntemperature = 2\ndtype = "float16"\nstatistics = true\n'
    assert read(folder, text).values == {
        "fail_on": "note", "max_rows": 3, "temperature": 2.0, "dtype": ("float16",), "statistics": True
    }  # fmt: skip


def test_the_nearest_file_counts_even_without_a_table(folder: Path) -> None:
    read(folder, '[tool.nanhunt]\nfail-on = "note"\n')
    (folder / "a" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert read_configuration(None, KNOWN, BY_PATH, isolated=False) == Configuration()


def test_isolated_reads_nothing(folder: Path) -> None:
    read(folder, "[tool.nanhunt]\nfail-on = 'note'\n")
    assert read_configuration(None, KNOWN, BY_PATH, isolated=True) == Configuration()


def test_a_named_file_may_have_its_keys_on_top(folder: Path) -> None:
    (folder / "my.toml").write_text("max-rows = 7\n")
    assert read_configuration(str(folder / "my.toml"), KNOWN, BY_PATH, isolated=False).values == {
        "max_rows": 7
    }


def test_per_path_tables_later_ones_win(folder: Path) -> None:
    text = (
        '[[tool.nanhunt.per-path]]\npaths = ["attn*"]\nmax-rows = 1\nfail-on = "never"\n'
        '[[tool.nanhunt.per-path]]\npaths = ["dumps/*.npy"]\nmax-rows = 2\n'
    )
    settings = read(folder, text)
    assert settings.for_path("attn.npy") == {"max_rows": 1, "fail_on": "never"}
    assert settings.for_path("dumps/attn.npy") == {"max_rows": 2, "fail_on": "never"}
    assert settings.for_path("run/dumps/x.npy") == {"max_rows": 2}
    assert settings.for_path("x.npy") == {}


def test_commands_with_other_options_have_a_table_of_their_own(folder: Path) -> None:
    text = "[tool.nanhunt]\nmax-rows = 3\n[tool.nanhunt.diff]\nmax-ulp = 4\n[tool.nanhunt.run]\nevery-op = true\n"
    assert read(folder, text).values == {"max_rows": 3}
    ours = {option.key: option for option in declared(DiffOptions).values()}
    assert read_configuration(None, ours, {}, command="diff", isolated=False).values == {"max_ulp": 4}
    with pytest.raises(NanhuntError, match=r"unknown key 'every-op' in \[tool.nanhunt.run\]"):
        read_configuration(None, ours, {}, command="run", isolated=False)


def test_the_commands_read_their_tables(folder: Path) -> None:
    np.save("a.npy", np.float32([1, 2]))
    np.save("b.npy", np.float32([1, 2.5]))
    Path("script.py").write_text("print('ran')\n")
    assert CliRunner().invoke(app, ["diff", "a.npy", "b.npy"]).exit_code == 1
    (folder / "pyproject.toml").write_text("[tool.nanhunt.diff]\natol = 1.0\n[tool.nanhunt.run]\nzzz = 1\n")
    assert CliRunner().invoke(app, ["diff", "a.npy", "b.npy"]).exit_code == 0
    assert CliRunner().invoke(app, ["diff", "--isolated", "a.npy", "b.npy"]).exit_code == 1
    run = CliRunner().invoke(app, ["run", "script.py"])
    assert "unknown key 'zzz'" in str(run.exception)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[tool.nanhunt]\nfail_on = "note"\n', "Did you mean fail-on"),
        ("[tool.nanhunt]\nzzz = 1\n", "Keys: "),
        ('[tool.nanhunt]\nmax-rows = "3"\n', "max-rows"),
        ("[tool.nanhunt]\nmax-rows = true\n", "max-rows"),
        ("[tool.nanhunt]\nstatistics = 1\n", "statistics"),
        ("[tool.nanhunt\n", "TOML"),
        ("[tool]\nnanhunt = 3\n", "not a table"),
        ("[tool.nanhunt]\nper-path = 3\n", "per-path"),
        ("[[tool.nanhunt.per-path]]\nmax-rows = 3\n", "paths"),
        ('[[tool.nanhunt.per-path]]\npaths = ["*"]\nzzz = 3\n', "zzz"),
        ('[[tool.nanhunt.per-path]]\npaths = ["*"]\nformat = "json"\n', "format"),
        ('[tool.nanhunt]\nfail-on = "notes"\n', "Did you mean note?"),
        ("[tool.nanhunt]\nlabel-smoothing = 2\n", "at most 1"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(folder: Path, text: str, said: str) -> None:
    with pytest.raises(NanhuntError) as raised:
        read(folder, text)
    assert said in raised.value.message + raised.value.hint
    assert "pyproject.toml" in raised.value.message


def test_bytes_that_are_no_text(folder: Path) -> None:
    (folder / "pyproject.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(NanhuntError, match="cannot be read"):
        read_configuration(None, KNOWN, BY_PATH, isolated=False)
