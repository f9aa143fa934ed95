"""Options, files and formats through real processes; several questions to one process where that is honest."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_lines import Run
from typer.testing import CliRunner

from nanhunt.cli import process
from nanhunt.cli.app import app
from nanhunt.operations.rules import RULES
from nanhunt.results.report import Report

COLUMNS = [
    "naive_loss", "fused_loss", "truth_loss", "naive_nan_probability",
    *(f"{form}_{what}_finite" for what in ("value", "gradient")
      for form in ("naive", "log-of-softmax", "logsumexp", "fused")),
    "cause",
]  # fmt: skip


def test_the_articles_batch_is_built_in(run: Run) -> None:
    done = run("compare", "--format", "json", "--save-rows", "rows.npz", "--output", "report.md")
    body = done.json()
    tensor = body["tensors"][0]
    assert done.code == 1
    assert tensor["implementations"]["naive"]["loss"] == "inf"
    assert tensor["implementations"]["fused"]["loss"] == pytest.approx(667.27487866, rel=1e-7)
    assert tensor["truth"]["loss"] == pytest.approx(667.27487866, rel=1e-9)
    assert [finding["rows"] for finding in tensor["findings"]] == [[1], [1]]
    assert tensor["findings"][0]["name"] == "exp-overflow"
    assert tensor["findings"][0]["remedies"][0]["works"] is True


def test_json_is_the_contract(run: Run, bad: Path) -> None:
    body = run("check", bad, "--format", "json", "--dtype", "float16", "--dtype", "float32").json()
    assert set(body) >= {"format_version", "options", "tensors", "healthy", "errors", "exit_code"}
    assert [tensor["dtype"] for tensor in body["tensors"]] == ["float16", "float32"]
    tensor = body["tensors"][0]
    assert tensor["targets"]["ignored"] == 0
    assert set(tensor["health"]) == {
        "nan",
        "posinf",
        "neginf",
        "zero",
        "subnormal",
        "min",
        "max",
        "bits",
    }
    assert set(tensor["implementations"]) == {"naive", "log-of-softmax", "logsumexp", "fused"}
    assert set(tensor["findings"][0]) >= {"code", "name", "severity", "count", "rows", "message", "remedies"}


def test_save_rows_as_npz_and_csv(run: Run, bad: Path, tmp_path: Path) -> None:
    run("compare", bad, "--save-rows", "rows.npz")
    run("compare", bad, "--save-rows", "rows.csv")
    with np.load(tmp_path / "rows.npz") as saved:
        rows = dict(saved)
    assert list(rows) == COLUMNS
    assert rows["cause"].tolist() == ["", "exp-overflow", ""]
    assert rows["naive_gradient_finite"].tolist() == [True, False, True]
    assert rows["fused_gradient_finite"].tolist() == rows["fused_value_finite"].tolist() == [True] * 3
    assert rows["naive_value_finite"].tolist() == [True, False, True]
    assert rows["naive_nan_probability"].tolist() == [False, True, False]
    assert [rows[name].dtype for name in COLUMNS[:3]] == [np.float64] * 3
    np.testing.assert_allclose(rows["fused_loss"], [0.417030, 2000.0, 1.407606], rtol=1e-5)
    assert rows["naive_loss"][1] == np.inf
    with (tmp_path / "rows.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert list(lines[0]) == ["tensor", "dtype", "row", *COLUMNS]
    assert [line["cause"] for line in lines] == rows["cause"].tolist()


def test_rows_of_tensors_with_names_that_no_file_can_hold(run: Run, tmp_path: Path) -> None:
    logits = torch.tensor([[2.0, 1.0, 0.1], [1000.0, 1.0, -1000.0]])
    torch.save({"\x1b[31mlogits": logits, "\ud800.logits": logits + 1}, tmp_path / "bad.pt")
    spelled = ["bad.pt:\\ud800.logits", "bad.pt:\\x1b[31mlogits"]
    for file in ("rows.npz", "rows.csv"):
        assert run("check", "bad.pt", "--save-rows", file).code == 1
    with (tmp_path / "rows.csv").open() as stream:
        assert sorted({line["tensor"] for line in csv.DictReader(stream)}) == spelled
    with np.load(tmp_path / "rows.npz") as saved:
        assert sorted({name.split("|")[0] for name in saved}) == spelled


def test_rows_of_other_operations_are_saved_too(run: Run, tmp_path: Path) -> None:
    values = np.array([[1.0, 17.0], [-90.0, 2.0]], np.float32)
    heads = {"query": np.ones((2, 3), np.float32), "key": np.ones((2, 3), np.float32)}
    np.savez(tmp_path / "a.npz", logits=values, targets=np.array([[1.0, 0.0], [1.0, 1.0]], np.float32))
    np.savez(tmp_path / "b.npz", logits=values, labels=np.array([0, 1]), **heads)
    run("compare", "a.npz", "--op", "bce", "--save-rows", "rows.npz")
    with np.load(tmp_path / "rows.npz") as saved:
        rows = dict(saved)
    assert rows["cause"].tolist() == ["", "saturated-sigmoid", "saturated-sigmoid", ""]
    assert rows["naive_value_finite"].tolist() == [True, False, False, True]
    assert rows["fused_gradient_finite"].tolist() == [True] * 4
    done = run("check", "b.npz", "--save-rows", "rows.csv", "--format", "json")
    with (tmp_path / "rows.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [(line["tensor"], line["exp-by-hand_value_finite"] != "") for line in lines] == [
        ("b.npz:query", True), ("b.npz:query", True), ("b.npz:logits", False), ("b.npz:logits", False)
    ]  # fmt: skip
    assert all(line["naive_value_finite"] == "True" for line in lines)
    report = json.loads(done.out)
    assert report["healthy"] or report["tensors"]


def test_several_outputs_and_nothing_left_behind(run: Run, bad: Path, tmp_path: Path) -> None:
    names = ["a.json", "a.md", "a.xml", "a.html", "a.txt"]
    done = run("check", bad, *(part for name in names for part in ("--output", name)))
    assert done.code == 1
    assert "exp-overflow" in done.out
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, bad.name])
    json.loads((tmp_path / "a.json").read_text())
    assert all((tmp_path / name).read_text() for name in names)


def test_standard_input(run: Run, bad: Path, healthy: Path) -> None:
    done = run("check", "-", "--format", "json", stdin=bad.read_bytes())
    assert done.code == 1
    assert done.json()["tensors"][0]["file"] == "-"
    assert run("check", "-", stdin=healthy.read_bytes()).code == 0
    nothing = run("check", "-", stdin=b"")
    assert nothing.code == 2


def test_a_folder_is_searched(run: Run, bad: Path, healthy: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a tensor")
    done = run("check", ".", "--format", "json", "--verbose")
    assert {Path(tensor["file"]).name for tensor in done.json()["tensors"]} == {bad.name, healthy.name}


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_text_fits_the_columns(run: Run, bad: Path, columns: int) -> None:
    done = run("compare", bad, COLUMNS=str(columns))
    lines = done.out.splitlines()
    assert "\x1b" not in done.out
    assert max(len(line) for line in lines if "loss = " not in line) <= columns


def test_colour_is_asked_for_or_refused(run: Run, bad: Path) -> None:
    assert "\x1b[" in run("check", bad, FORCE_COLOR="1").out
    assert "\x1b[" not in run("check", bad, FORCE_COLOR="1", NO_COLOR="1").out


def test_the_same_input_gives_the_same_bytes(run: Run, bad: Path) -> None:
    one, two = (run("compare", bad, "--format", "json").out for _ in range(2))
    assert one == two


def test_rows_are_indices_in_text_and_flat_numbers_in_json(run: Run, tmp_path: Path) -> None:
    x = np.zeros((2, 3, 4), np.float32)
    x[1, 2, 0] = 1000.0
    np.save(tmp_path / "x.npy", x)
    text, body = run("check", "x.npy"), run("check", "x.npy", "--format", "json").json()
    assert "(1, 2)" in text.out
    assert body["tensors"][0]["findings"][0]["rows"] == [5]
    np.save(tmp_path / "moved.npy", np.moveaxis(x, -1, 1))
    moved = run("check", "moved.npy", "--class-axis", "1")
    assert "(1, 2)" in moved.out


def test_saved_reports_are_merged_and_rendered_again(run: Run, bad: Path, healthy: Path) -> None:
    run("check", bad, "--output", "b.json")
    run("check", healthy, "--output", "a.json")
    done = run("report", "b.json", "a.json", "--format", "json")
    assert done.code == 1
    assert [Path(tensor["file"]).name for tensor in done.json()["tensors"]] == [bad.name]
    assert [Path(file).name for group in done.json()["healthy"] for file in group["files"]] == [healthy.name]
    assert run("report", "a.json").code == 0
    assert run("report", "a.json", "missing.json").code == 2


def test_what_the_baseline_knows_does_not_fail(run: Run, bad: Path, tmp_path: Path) -> None:
    run("check", bad, "--output", "base.json")
    known = run("check", bad, "--baseline", "base.json", "--format", "json")
    assert known.code == 0
    assert all(finding["known"] for finding in known.json()["tensors"][0]["findings"])
    with np.load(bad) as arrays:
        logits = arrays["logits"]
    logits[2] = 500.0
    np.savez(bad, logits=logits, labels=np.array([0, 2, 1]))
    assert run("check", bad, "--baseline", "base.json").code == 1


def test_each_path_decides_for_itself(run: Run, bad: Path, tmp_path: Path) -> None:
    """``fail-on = "never"`` for one path: exit code and JUnit agree, with a baseline or without."""
    (tmp_path / "pyproject.toml").write_text(
        '[[tool.nanhunt.per-path]]\npaths = ["bad*"]\nfail-on = "never"\n'
    )
    (tmp_path / "empty.json").write_text(Report().to_json())
    for baseline in ((), ("--baseline", "empty.json")):
        done = run("check", bad, "--output", "report.xml", "--output", "report.json", *baseline)
        assert done.code == 0
        assert 'failures="0"' in (tmp_path / "report.xml").read_text().splitlines()[1]
    assert run("report", "report.json").code == 0
    assert run("report", "report.json", "--fail-on", "warning").code == 1


def test_the_baseline_knows_every_spelling_of_a_file(run: Run, bad: Path) -> None:
    run("check", bad.name, "--output", "base.json")
    for spelling in (bad.name, f"./{bad.name}", bad):
        assert run("check", spelling, "--baseline", "base.json").code == 0


def test_configuration(run: Run, bad: Path, tmp_path: Path) -> None:
    settings = tmp_path / "pyproject.toml"
    settings.write_text('[tool.nanhunt]\nfail-on = "error"\nignore = ["low-headroom"]\n')
    assert run("check", bad).code == 0
    assert run("check", bad, "--fail-on", "warning").code == 1
    assert run("check", bad, "--isolated").code == 1
    settings.write_text('[[tool.nanhunt.per-path]]\npaths = ["bad*"]\nselect = ["NH2"]\n')
    body = run("check", bad, "--format", "json").json()
    assert [finding["code"] for finding in body["tensors"][0]["findings"]] == ["NH201"]
    settings.write_text('[tool.nanhunt]\nfail_onn = "error"\n')
    typo = run("check", bad)
    assert typo.code == 2
    assert "Did you mean fail-on" in typo.err
    (tmp_path / "other.toml").write_text('fail-on = "never"\n')
    assert run("check", bad, "--config", "other.toml").code == 0


def test_a_bfloat16_npy_asks_what_it_holds(run: Run, tmp_path: Path) -> None:
    import ml_dtypes

    np.save(tmp_path / "x.npy", np.zeros((2, 3), ml_dtypes.bfloat16))
    asked = run("check", "x.npy")
    assert asked.code == 2
    assert "--stored-dtype" in asked.out + asked.err
    assert run("check", "x.npy", "--stored-dtype", "bfloat16").code == 0


def test_a_container_lists_what_it_holds(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", logits=np.zeros((4, 3), np.float32), labels=np.zeros(4, np.int64))
    done = run("check", "two.npz", "--logits", "logit")
    assert done.code == 2
    assert "logits" in done.out + done.err
    assert run("check", "two.npz", "--targets", "labels").code == 0
    assert run("check", "two.npz", "--targets", "two.npz:labels").code == 0


def test_without_targets_the_loss_is_a_note(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[0.0, -200.0, -300.0, -np.inf]], np.float32))
    done = run("check", "x.npy")
    assert done.code == 0
    assert "2 of 3 classes" in done.out.replace("\n    ", " ")
    compared = run("compare", "x.npy")
    assert "worst label" in compared.out.replace("\n", " ")


def test_a_rule_is_explained_by_code_and_name(run: Run) -> None:
    assert run("rule", "NH101").out == run("rule", "exp-overflow").out
    assert run("rule", "--all").out.count("Why:") == len(RULES)


def test_a_flag_that_is_nearly_right_gets_the_one_that_is_meant() -> None:
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        assert process.run(app, ["check", "x.npy", "--dtyp", "float16"]) == 2
    assert "No such option: --dtyp Did you mean --dtype?" in errors.getvalue()


def test_rules_operations_and_choices_are_completed() -> None:
    def completed(*words: str) -> list[str]:
        line = " ".join(("nanhunt", *words))
        done = CliRunner().invoke(
            app, [], prog_name="nanhunt",
            env={"_NANHUNT_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words))},
        )  # fmt: skip
        return done.output.split()

    assert completed("rule", "NH10") == [code for code in RULES if code.startswith("NH10")]
    assert completed("op", "att") == ["attention"]
    assert completed("check", "x", "--dtype", "b") == ["bfloat16"]
    assert completed("check", "x", "--format", "j") == ["json", "jsonl", "junit"]
    assert "NH101" in completed("check", "x", "--select", "NH1")
