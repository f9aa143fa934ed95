"""Every renderer against one hand-built Report, byte for byte.

After an intended change, look at the difference that ``python tests/golden/test_golden.py`` makes: it writes
the golden files again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from report import REPORT

from nanhunt.render import REPORT_FORMATS, render, statistics
from nanhunt.results.report import Report

HERE = Path(__file__).parent
GOLDEN: dict[str, Callable[[], str]] = {
    "report.txt": lambda: render(REPORT, "text"),
    "report-40-columns.txt": lambda: render(REPORT, "text", width=40),
    "report-quiet.txt": lambda: render(REPORT, "text", verbosity=-1),
    "report-verbose.txt": lambda: render(REPORT, "text", verbosity=1, width=120),
    "report-ascii.txt": lambda: render(REPORT, "text", ascii=True),
    "report-color.txt": lambda: render(REPORT, "text", color=True),
    "statistics.txt": lambda: statistics(REPORT),
    "report.json": lambda: render(REPORT, "json"),
    "report.xml": lambda: render(REPORT, "junit"),
    "report.md": lambda: render(REPORT, "markdown"),
    "report.html": lambda: render(REPORT, "html"),
    "annotations.txt": lambda: render(REPORT, "github"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name):
    assert GOLDEN[name]() == (HERE / name).read_text("utf-8")


@pytest.mark.parametrize("format", REPORT_FORMATS)
def test_the_order_of_a_report_read_again_changes_nothing(format):
    again = Report.from_json(REPORT.to_json(verbose=True))
    shuffled = dataclasses.replace(again, tensors=again.tensors[::-1])
    assert render(again if format in ("json", "jsonl") else shuffled, format) == render(REPORT, format)


if __name__ == "__main__":
    for name, write in GOLDEN.items():
        (HERE / name).write_text(write(), "utf-8", newline="\n")
