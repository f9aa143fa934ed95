"""The report in a terminal, in a pipe, in a log."""

from __future__ import annotations

import dataclasses
import itertools
import re

import pytest
from rich.cells import cell_len

from nanhunt.render import proofs, render, statistics
from nanhunt.results.report import Report


@pytest.mark.parametrize("verbosity", [-1, 0, 1])
@pytest.mark.parametrize("ascii", [False, True])
@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_but_code_is_longer_than_the_width(report, width, ascii, verbosity):
    text = render(report, "text", width=width, ascii=ascii, verbosity=verbosity)
    snippets = [remedy.snippet for finding in report.findings for remedy in finding.remedies if remedy.works]
    code = {line for snippet in snippets for line in snippet.splitlines()}
    assert max(cell_len(line) for line in text.splitlines() if line.strip() not in code) <= width
    assert max(map(cell_len, statistics(report, width=width).splitlines())) <= width


def test_escapes_only_when_color_is_asked_for(report):
    plain, color = render(report, "text"), render(report, "text", color=True)
    assert "\x1b" not in plain
    assert "\x1b[33m" in color
    words = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in color.splitlines()]
    assert words == plain.splitlines()


def test_ascii_is_ascii(report):
    assert render(report, "text", ascii=True, verbosity=1).isascii()


def test_names_are_printed_literally(report):
    text = render(report, "text", verbosity=1).replace("\n", "")
    assert "[bold]x[/bold]\\x1b[31m\\r\\n::error::pwned" in text
    assert "\\u202egnp" in text


def test_the_articles_batch_at_a_glance(golden):
    lines = render(golden.Report(golden.OPTIONS, (golden.ARTICLES,)), "text").splitlines()
    assert lines[1].strip() == "WARNING float32: 1 of 3 rows breaks naive code; F.cross_entropy survives."
    assert any(
        line.split() == ["mean", "loss", "inf", "inf", "667.2748", "667.2748", "667.2749"] for line in lines
    )
    assert lines[-1] == "1 tensor in 1 file: 2 warnings."


def test_most_severe_first(report):
    text = render(report, "text", verbosity=1)
    assert text.index("nan-logits (NH001), error: 3 of 4,096 rows") < text.index(
        "exp-overflow (NH101), warning: 471 of"
    )


def test_proof_and_what_does_not_help(report):
    text = " ".join(render(report, "text", verbosity=1).split())
    assert "proven on 471 rows: 0 bad afterwards, loss within 3e-4 of the truth" in text
    assert "Does not help: gradient clipping, 471 of 471 rows still bad" in text
    assert "What to do: Go back to an earlier checkpoint" in text


@pytest.mark.parametrize("format", ["text", "markdown"])
def test_code_is_never_wrapped(report, golden, format):
    line = f"{golden.FUSED.snippet}  # {'a comment far longer than any terminal ' * 4}end"
    long = Report.from_json(report.to_json().replace(golden.FUSED.snippet, line))
    assert line in [shown.strip() for shown in render(long, format, width=80, verbosity=1).splitlines()]


def test_what_is_still_wrong_and_what_is_changed_are_said(golden):
    fix = golden.FUSED
    failing = dataclasses.replace(fix, works=False, rows=3, bad_rows_after=2, outcome="gradient still NaN")
    changing = dataclasses.replace(fix, changes="masked rows count too")
    alone = dataclasses.replace(failing, rows=1, bad_rows_after=1)
    told = [proofs.proof(one, golden.ARTICLES) for one in (failing, alone, changing)]
    assert told[:2] == ["gradient still NaN on 2 of 3 rows", "gradient still NaN"]
    assert told[2].endswith(", another objective: masked rows count too")


def test_rows_are_indices_into_the_leading_dimensions(report):
    text = render(report, "text", verbosity=1)
    assert "row (1, 3, 7): every logit is -inf" in text
    assert "rows (0, 0, 0), (0, 1, 1), (0, 1, 2), (1, 3, 6)" in text


def test_a_class_axis_in_the_middle_is_left_out_of_row_names(golden):
    tensor = dataclasses.replace(golden.ATTENTION, shape=(2, 16, 4, 8), class_axis=1)
    assert "row (1, 3, 7):" in render(Report(tensors=(tensor,)), "text")


def test_sampling_is_said(report):
    assert "sampled: 2,097,152 of 131,072,000 values" in " ".join(render(report, "text", verbosity=1).split())


def test_quiet_is_findings_only(report):
    text = render(report, "text", verbosity=-1)
    assert "HEALTHY" not in text
    assert "|x|" not in text
    assert "nan-logits (NH001)" in text
    assert "NOT READ" in text


def test_many_healthy_tensors_fold_into_a_count(golden):
    tensors = tuple(dataclasses.replace(golden.HEALTHY, file=f"step-{step}.npy") for step in range(400))
    text = render(Report(tensors=tensors), "text")
    assert "HEALTHY 400 tensors in 400 files without a finding" in text
    assert len(text.splitlines()) < 5
    assert "step-399.npy" in render(Report(tensors=tensors), "text", verbosity=1)


def test_without_labels_the_table_says_which_loss_it_shows(golden):
    text = render(Report(golden.OPTIONS, (dataclasses.replace(golden.ARTICLES, targets=None),)), "text")
    assert "mean loss, worst label" in text
    assert "its least likely unmasked class" in " ".join(text.split())


def test_which_loss_it_shows_is_said_once(golden):
    note = "no targets: losses are those of each row's worst label, its least likely unmasked class"
    tensor = dataclasses.replace(golden.ARTICLES, targets=None, notes=(note,))
    text = " ".join(render(Report(golden.OPTIONS, (tensor,)), "text").split())
    assert text.count("its least likely unmasked class") == 1


def test_counts_are_never_rounded(golden):
    finding = dataclasses.replace(golden.EXP_OVERFLOW, count=9_999_999)
    tensor = dataclasses.replace(
        golden.ARTICLES, rows=10_000_000, findings=(finding,), affected_rows=9_999_999
    )
    assert "9,999,999 of 10,000,000 rows" in render(Report(tensors=(tensor,)), "text")


def test_known_findings_are_shown_as_known(report):
    assert "cast-loss (NH502), warning, known: 40 of 65,536 values" in render(report, "text", verbosity=1)


def test_a_snippet_is_printed_once(report):
    assert (
        render(report, "text", verbosity=1).count("loss = torch.nn.functional.cross_entropy(logits, targets)")
        == 1
    )


@pytest.mark.parametrize("count", [12, 300, 1500])
@pytest.mark.parametrize("width", [60, 80, 200])
def test_any_number_of_bad_tensors_fits_a_screen(golden, count, width):
    """Counts, the worst five, each rule with a fix, and how to see more."""
    bad = [
        golden.judged(dataclasses.replace(golden.STEPS[2], file=f"dumps/run-a/step-{n}.npz"))
        for n in range(count)
    ]
    worst = dataclasses.replace(golden.ATTENTION, file="worst.npz", tensor="x", affected_rows=64)
    text = render(Report(golden.OPTIONS, (*bad, worst, golden.HEALTHY)), "text", width=width)
    lines = text.splitlines()
    assert len(lines) < (60 if width >= 80 else 75)
    words = " ".join(text.split())
    assert words.startswith(f"ERROR {count + 1:,} of {count + 2:,} tensors have findings: ")
    began = words.index(f"dumps/run-a: steps 0-{count - 1}; order: step first bad: step 0, logits: row")
    assert began < words.index("The worst 5:")
    first = next(index for index, line in enumerate(lines) if "The worst 5:" in line) + 1
    assert lines[first].strip().startswith("ERROR worst.npz:x")
    assert f"and {count + 1 - 5:,} more" in words
    assert f"nan-logits (NH001), error: {3 * count:,} rows of {count:,} tensors in {count:,} files" in words
    assert "All of it: -v, or --output report.html" in words


def test_thousands_of_unread_inputs_are_counted(golden):
    errors = tuple(golden.ReadError(f"{n}.npz", "is damaged", "Write it again.") for n in range(2600))
    text = render(Report(errors=errors), "text")
    assert "NOT READ 2,595 more (--verbose lists them)" in text
    assert len(text.splitlines()) < 25


def test_quiet_leaves_out_what_is_known(golden):
    findings = tuple(dataclasses.replace(finding, known=True) for finding in golden.ARTICLES.findings)
    known = dataclasses.replace(golden.ARTICLES, findings=findings)
    assert render(Report(tensors=(known,)), "text", verbosity=-1) == ""
    shown = render(Report(tensors=(known,)), "text")
    assert "exp-overflow (NH101), warning, known: 1 of 3 rows" in shown
    assert "Fix:" not in shown


NAME = "model.vision_backbone.transformer_blocks.13.attention.query_projection.weight"


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_long_name_is_broken_behind_a_separator(golden, width):
    tensor = dataclasses.replace(golden.ARTICLES, file="checkpoint-1000.safetensors", tensor=NAME)
    lines = render(golden.Report(golden.OPTIONS, (tensor,)), "text", width=width).splitlines()
    place = f"checkpoint-1000.safetensors:{NAME}"
    broken = list(itertools.takewhile(lambda line: line[-1] in ".:/", lines))
    assert broken
    assert "".join(lines).startswith(place)
    assert place.startswith("".join(broken))
    assert place.removeprefix("".join(broken)) == lines[len(broken)].split()[0]


def test_a_part_of_a_name_longer_than_the_line_is_broken_all_the_same(golden):
    tensor = dataclasses.replace(golden.ARTICLES, file="f.npz", tensor="x" * 70 + ".weight")
    text = render(golden.Report(golden.OPTIONS, (tensor,)), "text", width=40)
    assert text.splitlines()[:3] == ["f.npz:", "x" * 40, "x" * 30 + ".weight"]


def test_the_module_that_all_the_worst_lie_in_is_named_once(golden):
    tensors = [
        dataclasses.replace(golden.ARTICLES, file="c.npz", tensor=NAME.replace("13", str(layer)))
        for layer in range(5)
    ]
    lines = render(golden.Report(golden.OPTIONS, tuple(tensors)), "text", width=80).splitlines()
    assert "The worst 5, in c.npz:model.vision_backbone.transformer_blocks:" in lines
    assert any(line.startswith("  WARNING 0.attention.query_projection.weight  ") for line in lines)
