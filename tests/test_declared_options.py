"""An option is declared once: as a field of its room; flag, help, completion, key, keyword and errors follow."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import nanhunt
from nanhunt import api
from nanhunt.cli.options import Given, OutputOptions, SettingsOptions, command
from nanhunt.errors import NanhuntError
from nanhunt.operations.cross_entropy.options import CrossEntropyOptions
from nanhunt.options import as_written, declared, make, option
from nanhunt.results.report import Report
from nanhunt.scan.options import Options

X = np.array([[12.0, 0.0], [1.0, 2.0]], np.float32)


@dataclass(frozen=True, kw_only=True)
class WithPenalty(CrossEntropyOptions):
    """A loss with one more option."""

    z_loss: float = option(0.25, help="Times the squared log of the normaliser.", at_least=0.0)
    norm: str = option("rows", help="What the mean counts.", choices=("rows", "tokens"))
    class_: str = option("all", spelled="class", help="Which one is judged.")


def given(*arguments: str) -> WithPenalty:
    """What a command with those options makes of a command line."""
    app, found = typer.Typer(), []

    @command(app, WithPenalty, SettingsOptions)
    def judge(given: Given, path: str) -> None:
        found.append(given.part(WithPenalty, path))

    done = CliRunner().invoke(app, ["x.npy", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return found[0]


def test_a_declared_field_is_a_flag() -> None:
    assert given().z_loss == 0.25
    assert given("--z-loss", "3", "--norm", "tokens") == WithPenalty(z_loss=3.0, norm="tokens")
    with pytest.raises(NanhuntError, match="--z-loss -1 is out of its range"):
        given("--z-loss", "-1")
    with pytest.raises(NanhuntError, match="--norm row is not known") as raised:
        given("--norm", "row")
    assert raised.value.hint == "Did you mean rows? Choose from rows, tokens."


def test_it_is_a_key_also_by_path(tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('z-loss = 2\nnorm = "tokens"\n[[per-path]]\npaths = ["x*"]\nz-loss = 4\n')
    assert given("--config", str(settings)) == WithPenalty(z_loss=4.0, norm="tokens")
    assert given("--config", str(settings), "--z-loss", "1").z_loss == 1.0
    settings.write_text("z-los = 2\n")
    with pytest.raises(NanhuntError) as raised:
        given("--config", str(settings))
    assert "Did you mean z-loss?" in raised.value.hint


def test_flag_and_key_may_be_a_word_that_python_keeps_for_itself(tmp_path: Path) -> None:
    assert given("--class", "cat").class_ == "cat"
    settings = tmp_path / "settings.toml"
    settings.write_text('class = "cat"\n')
    assert given("--config", str(settings)).class_ == "cat"


def test_it_is_a_keyword_with_help() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Keywords(api.Keywords, WithPenalty):
        """Those of check, and of the loss."""

    @api._with_keywords(Keywords)
    def judge(x: Any, keywords: api.Keywords) -> Report:
        """Judges."""
        raise AssertionError(keywords)

    assert inspect.signature(judge).parameters["z_loss"].default == 0.25
    assert "z_loss: Times the squared log of the normaliser. At least 0." in (judge.__doc__ or "")
    with pytest.raises(NanhuntError, match="z_lose"):
        judge(X, z_lose=1.0)
    with pytest.raises(AssertionError, match=r"z_loss=2\.0"):
        judge(X, z_loss=2.0)


def test_help_shows_it_with_its_choices_and_shells_complete_them() -> None:
    app = typer.Typer()

    @command(app, WithPenalty)
    def judge(given: Given) -> None: ...

    shown = " ".join(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output.split())
    assert "--z-loss" in shown
    assert "Times the squared log of the normaliser. At least 0. [default: 0.25]" in shown
    assert "What the mean counts. rows or tokens. [default: rows]" in shown
    assert completed("--format", "j") == ["json", "jsonl", "junit"]
    assert completed("--dtype", "b") == ["bfloat16"]
    assert {"NH101", "exp-overflow"} <= {*completed("--select", "NH10"), *completed("--select", "exp")}


def completed(flag: str, begun: str) -> list[str]:
    """What a shell offers after ``nanhunt check FLAG BEGUN``."""
    from nanhunt.cli.app import app

    environment = {
        "_NANHUNT_COMPLETE": "complete_bash", "COMP_WORDS": f"nanhunt check {flag} {begun}", "COMP_CWORD": "3",
    }  # fmt: skip
    return CliRunner().invoke(app, [], prog_name="nanhunt", env=environment).output.split()


@pytest.mark.parametrize("judge", [nanhunt.check, nanhunt.compare])
def test_help_of_check_lists_every_option(judge: Any) -> None:
    parameters = inspect.signature(judge).parameters
    assert list(parameters)[:3] == ["x", "targets", "dtype"]
    assert set(parameters) - {"x", "executor"} == set(declared(Options))
    assert all(f"\n        {name}: " in judge.__doc__ for name in declared(Options))


def test_every_option_is_declared_in_one_place() -> None:
    own = [inspect.get_annotations(kind) for kind in (*Options.__mro__, *OutputOptions.__mro__)
           if kind is not object]  # fmt: skip
    names = [name for part in own for name in part]
    assert len(names) == len(set(names))
    assert set(names) == {*declared(Options), *declared(OutputOptions)}


@pytest.mark.parametrize(
    ("keywords", "said", "hint"),
    [
        ({"labels": [0, 1]}, "keyword labels is not known", "targets"),
        ({"label_smooting": 0.1}, "keyword label_smooting is not known", "Did you mean label_smoothing?"),
        ({"label_smoothing": 1.5}, "label_smoothing = 1.5 is out of its range", "at least 0 and at most 1"),
        ({"temperature": "hot"}, "temperature = 'hot' is not a number", ""),
        ({"max_rows": True}, "max_rows = True is not a whole number", ""),
        ({"reduction": "none"}, "reduction = none is not known", "mean, sum"),
        ({"dtype": "fp16"}, "dtype = fp16 is not known", "Did you mean float16?"),
        ({"select": 3}, "select = 3 is not text, or a list of texts", ""),
    ],
)
def test_a_wrong_keyword_is_said_as_python_spells_it(keywords: dict[str, Any], said: str, hint: str) -> None:
    with pytest.raises(NanhuntError) as raised:
        nanhunt.check(X, **keywords)
    assert said in raised.value.message
    assert hint in raised.value.hint


def test_numbers_of_numpy_and_single_texts_are_taken() -> None:
    options = make(Options, {"max_rows": np.int64(3), "temperature": np.float32(2), "select": "NH1, NH2"})
    assert (options.max_rows, options.temperature, options.select) == (3, 2.0, ("NH1", "NH2"))
    assert [type(options.max_rows), type(options.temperature)] == [int, float]
    assert as_written(options)["select"] == ["NH1", "NH2"]
