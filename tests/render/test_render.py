"""What holds for every format."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from rich.cells import cell_len

from nanhunt.errors import NanhuntError
from nanhunt.render import REPORT_FORMATS, format_for, render, statistics
from nanhunt.results.report import Report
from nanhunt.results.tensor import Health, Histogram, RowBin


@pytest.mark.parametrize("format", REPORT_FORMATS)
def test_ends_in_one_newline_and_repeats(report, format):
    text = render(report, format)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert text == render(report, format)


@pytest.mark.parametrize("format", REPORT_FORMATS)
def test_an_empty_report_is_rendered(format):
    assert render(Report(), format).strip()


@pytest.mark.parametrize("format", REPORT_FORMATS)
def test_no_raw_control_character_comes_through(report, format):
    text = render(report, format)
    assert not {ord(character) for character in text if ord(character) < 32 and character != "\n"}
    assert "\u202e" not in text or format == "json"


@pytest.mark.parametrize("format", REPORT_FORMATS)
def test_names_that_are_no_utf8_can_be_written(golden, format):
    error = golden.ReadError("caf\udce9.npy", "is \udce9 empty", "")
    render(Report(errors=(error,)), format).encode("utf-8")


@pytest.mark.parametrize("format", REPORT_FORMATS)
def test_the_bytes_do_not_depend_on_the_environment(report, format, monkeypatch):
    before = render(report, format)
    for name, value in {"NO_COLOR": "1", "COLUMNS": "33", "TERM": "dumb", "FORCE_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    assert render(report, format) == before


def test_unknown_format():
    with pytest.raises(NanhuntError) as caught:
        render(Report(), "pdf")
    assert "pdf" in caught.value.message
    assert "junit" in caught.value.hint


@pytest.mark.parametrize(
    ("path", "format"),
    [("a.txt", "text"), ("a.json", "json"), ("x/a.XML", "junit"), ("a.md", "markdown"), ("a.b.html", "html")],
)
def test_the_suffix_names_the_format(path, format):
    assert format_for(path) == format


@pytest.mark.parametrize("path", ["report", "report.pdf", ".json/report", ""])
def test_a_suffix_that_says_nothing(path):
    with pytest.raises(NanhuntError) as caught:
        format_for(path)
    assert ".xml (junit)" in caught.value.hint


def test_statistics_counts_rules_over_all_inputs(report):
    lines = statistics(report).splitlines()
    assert lines[2].split() == ["NH401", "low-headroom", "note", "2", "1,632"]
    assert lines[3].split() == ["NH101", "exp-overflow", "warning", "2", "472"]
    assert "No rule holds" in statistics(Report())


def test_rendering_imports_neither_torch_nor_numpy(report):
    script = (
        "import sys; from nanhunt.render import REPORT_FORMATS, render, statistics\n"
        "from nanhunt.results.report import Report\n"
        "report = Report.from_json(sys.stdin.read())\n"
        "for format in REPORT_FORMATS: render(report, format)\n"
        "statistics(report)\n"
        "heavy = [name for name in sys.modules if name.split('.')[0] in ('torch', 'numpy')]\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, input=report.to_json(), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr


def test_a_format_is_imported_only_when_asked_for():
    script = (
        "import sys; from nanhunt.render import render; from nanhunt.results.report import Report\n"
        "render(Report(), 'text')\n"
        "sys.exit(any(name in sys.modules for name in ('jinja2', 'nanhunt.render.junit', 'nanhunt.render.html')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


EDGES = {
    "no rows": {"shape": (0, 3), "rows": 0, "strip": (), "worst_rows": (), "affected_rows": 0},
    "one dimension": {"shape": (3,), "rows": 1},
    "a scalar": {"shape": (), "role": "values", "strip": (), "worst_rows": ()},
    "an unknown maximum": {"health": Health(None, None, None, None, None, None, None)},
    "nothing finite": {"health": Health(9, 0, 0, 0, 0, None, None), "strip": (RowBin(0, 2, None, ()),)},
    "infinite extremes": {"strip": (RowBin(0, 2, float("inf"), (("NH002", 3),)),)},
    "only zeros": {"histogram": Histogram(0, (), (), 9, 0, 9, 9)},
    "nothing counted": {"histogram": Histogram(0, (0,), (0,), 0, 0, 0, 9)},
    "the whole of float64": {"histogram": Histogram(-1074, (1,) * 2098, (1,) * 2098, 0, 0, 4196, 4196)},
    "no findings": {"findings": (), "affected_rows": 0},
}


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"]
)
@pytest.mark.parametrize("edge", EDGES)
def test_the_edges_of_what_a_report_can_hold(golden, edge, dtype):
    tensor = dataclasses.replace(golden.ARTICLES, dtype=dtype, **EDGES[edge])
    dumps = tuple(dataclasses.replace(tensor, file=f"{n}.npy") for n in range(2))
    for format in REPORT_FORMATS:
        assert render(Report(golden.OPTIONS, dumps), format)
    for width in (20, 80, 300):
        lines = render(Report(golden.OPTIONS, dumps), "text", width=width, verbosity=1).splitlines()
        assert max(cell_len(line) for line in lines if "loss = " not in line) <= width  # code is not wrapped
