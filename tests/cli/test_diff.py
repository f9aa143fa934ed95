"""nanhunt diff as a command: exit codes, formats, options."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from typer.testing import CliRunner

from nanhunt.cli.app import app
from nanhunt.render.difference import DIFFERENCE_FORMATS


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Two files that differ in one of 2,000 values, and in a name."""
    weights = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)
    other = weights.copy()
    other[3, 7] = np.nan
    np.savez(tmp_path / "a.npz", weights=weights, same=weights, old=weights[0])
    np.savez(tmp_path / "b.npz", weights=other, same=weights)
    return str(tmp_path / "a.npz"), str(tmp_path / "b.npz")


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["diff", *arguments], env={"COLUMNS": "80", "NO_COLOR": "1"})
    return done.exit_code, done.output


def test_the_verdict_is_on_top_and_in_the_exit_code(files) -> None:
    code, said = run(*files)
    assert code == 1
    lines = said.splitlines()
    assert lines[0] == "DIFFERENT 1 of 2 tensors differ"
    assert "First divergence: weights: 1 of 2,000 values differs" in said
    assert "1 finite to NaN, of 2,000 values, the first at [3, 7]" in " ".join(said.split())
    assert "only in A: 1 tensor" in said
    assert all(len(line) <= 80 for line in lines)
    code, said = run(files[0], files[0])
    assert (code, said.splitlines()[0]) == (0, "SAME bit for bit equal")


def test_a_missing_file_is_no_difference(files) -> None:
    code, said = run(files[0], "nowhere.npz")
    assert code == 2
    assert "does not exist" in said


def test_exit_codes_can_be_chosen(files) -> None:
    assert run(*files, "--exit-zero")[0] == 0
    assert run(*files, "--fail-on", "never")[0] == 0
    assert run(*files, "--select", "NHD303")[0] == 0
    assert run(*files, "--ignore", "NHD1,NHD2")[0] == 0


@pytest.mark.parametrize("format", DIFFERENCE_FORMATS)
def test_every_format_names_what_differs(files, format: str) -> None:
    code, said = run(*files, "--format", format)
    assert code == 1
    assert "NHD101" in said
    assert "weights" in said


def test_json_is_json_and_junit_fits_its_schema(files) -> None:
    body = json.loads(run(*files, "--format", "json")[1])
    assert body["identical"] == 1
    assert [tensor["a"] for tensor in body["tensors"]] == ["weights"]
    lxml = pytest.importorskip("lxml.etree")
    document = run(*files, "--format", "junit")[1]
    schema = lxml.XMLSchema(lxml.parse(str(Path(__file__).parents[1] / "render" / "junit.xsd")))
    schema.assertValid(lxml.fromstring(document.encode()))
    assert ET.fromstring(document).get("failures") == "2"


def test_files_are_written_by_suffix(files, tmp_path: Path) -> None:
    names = [str(tmp_path / f"out{suffix}") for suffix in (".json", ".xml", ".md", ".html", ".txt")]
    assert run(*files, *(word for name in names for word in ("--output", name)))[0] == 1
    assert all(Path(name).stat().st_size for name in names)


def test_names_cannot_steer_a_terminal_or_a_page(tmp_path: Path) -> None:
    evil = "\x1b[31m<script>alert(1)</script>`|\n::error::x"
    np.savez(tmp_path / "a.npz", **{evil: np.zeros(3), "x": np.ones(2)})
    np.savez(tmp_path / "b.npz", **{evil: np.ones(3), "x": np.ones(2)})
    for format in DIFFERENCE_FORMATS:
        said = run(str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "--format", format)[1]
        assert "\x1b" not in said
        assert "\n::error::x" not in said
        if format in ("html", "markdown"):
            assert "<script>alert" not in said


def test_compare_of_two_points_here() -> None:
    done = CliRunner().invoke(app, ["compare", "a.npy", "b.npy"])
    assert "nanhunt diff a.npy b.npy" in getattr(done.exception, "hint", "")


def test_the_rules_are_explained() -> None:
    said = CliRunner().invoke(app, ["rule", "NHD302"]).output
    assert "isolated-difference" in said


def test_json_is_as_the_schema_says(files) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(CliRunner().invoke(app, ["schema", "diff"]).output)
    jsonschema.validate(json.loads(run(*files, "--format", "json", "--verbose")[1]), schema)


def test_it_is_no_way_of_judging_one_input(files) -> None:
    done = CliRunner().invoke(app, ["check", files[0], "--op", "difference"])
    assert done.exit_code == 2
    assert "nanhunt diff A B" in done.output


def test_what_was_saved_is_shown_again_in_every_format(files, tmp_path: Path) -> None:
    saved = str(tmp_path / "diff.json")
    run(*files, "--output", saved)
    for format in DIFFERENCE_FORMATS:
        code, said = report(saved, "--format", format)
        assert (code, said) == run(*files, "--format", format)
    assert report(saved, "--output", str(tmp_path / "d.html"))[0] == 1
    assert (tmp_path / "d.html").stat().st_size
    assert report(saved, "--exit-zero")[0] == 0
    assert report(saved, "--fail-on", "never")[0] == 0


def test_what_was_saved_is_alone_whole_and_no_report(files, tmp_path: Path) -> None:
    saved, cut = tmp_path / "diff.json", tmp_path / "cut.json"
    run(*files, "--output", str(saved))
    cut.write_text(saved.read_text()[:300])
    for arguments, message in (
        ([str(saved), str(saved)], "shown by itself"),
        ([str(cut)], "cannot be read"),
        ([str(saved), "--baseline", "x.json"], "no --baseline"),
        ([str(saved), "--statistics"], "no --baseline"),
    ):
        done = CliRunner().invoke(app, ["report", *arguments])
        assert message in getattr(done.exception, "message", "")


def report(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["report", *arguments], env={"COLUMNS": "80", "NO_COLOR": "1"})
    return done.exit_code, done.output


@pytest.mark.parametrize("format", ["text", "markdown", "html"])
def test_a_nan_is_not_hidden_by_tensors_that_only_differ(tmp_path: Path, format: str) -> None:
    """Two steps of one run: every weight has moved, and one of them is broken."""
    rng = np.random.default_rng(0)
    before = {f"layers.{n}.w": rng.standard_normal((8, 8)).astype(np.float32) for n in range(9)}
    after = {name: values + np.float32(1e-3) for name, values in before.items()}
    after["layers.6.w"][3, 4] = np.nan
    np.savez(tmp_path / "a.npz", **before)
    np.savez(tmp_path / "b.npz", **after)
    said = run(str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "--format", format)[1]
    told = "NaN or infinite in B: layers.6.w: 1 finite to NaN, of 64 values, the first at "
    assert told in " ".join(said.split()).replace("\\", "")
    if format == "text":
        assert said.index("\nlayers.6.w  (8, 8)") < said.index("\nlayers.0.w  (8, 8)")
