"""Markdown, read back by a parser of GitHub's dialect."""

from __future__ import annotations

import dataclasses
import html
import re

import pytest
from lxml import etree
from markdown_it import MarkdownIt

from nanhunt.render import render
from nanhunt.render.markdown import code, plain
from nanhunt.results.report import ReadError, Report

NASTY = [
    "a|b", "a\\|b", "a\\", "`", "``a`", "a``b|c", " a ", "", "<script>alert(1)</script>", "</code><b>", "*a* _b_ ~~c~~",
    "[x](http://evil)", "@someone #1 http://evil.example www.evil.example", "line\nbreak\r\nhere", "&lt;&#124;", "$x$",
    "| --- |", "# head", "- item", "😀", "</details>", "a" * 300, "\x1b[31m", "\u202e",
]  # fmt: skip


def cells(markdown):
    """The text of every body cell of the only table."""
    page = MarkdownIt("gfm-like", {"linkify": False}).render(markdown)
    tree = etree.HTML(page)
    assert len(tree.findall(".//table")) == 1
    assert not tree.xpath("//script | //a | //em | //strong | //del | //b | //h1")
    return [["".join(cell.itertext()) for cell in row.findall("td")] for row in tree.findall(".//tbody/tr")]


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("markup", [code, plain])
def test_any_name_is_one_literal_table_cell(name, markup):
    from nanhunt.render.phrases import literal

    rows = cells(f"| a | b |\n| --- | --- |\n| {markup(name)} | end |\n")
    assert [[cell.strip() for cell in row] for row in rows] == [[literal(name).strip(), "end"]]


def test_ordinary_names_stay_readable():
    assert code("model.head.weight") == "`model.head.weight`"
    assert plain("row 1: F.cross_entropy") == "row 1: F.cross_entropy"


def test_addresses_do_not_become_links():
    page = MarkdownIt("commonmark").render(plain("see http://evil.example and www.evil.example"))
    assert "http://" not in plain("http://evil.example")
    assert "http://evil.example" in html.unescape(re.sub("<.*?>", "", page))


def test_the_whole_report_keeps_its_tables(report):
    tree = etree.HTML(MarkdownIt("gfm-like", {"linkify": False}).render(render(report, "markdown")))
    assert not tree.xpath("//script | //a")
    widths = {len(row) for row in tree.xpath("//table[.//th='truth']//tr")}
    assert widths == {6}
    assert "articles-batch" in tree.xpath("//table[.//th='verdict']//tr/td[2]/code/text()")


def test_details_are_balanced_and_hold_long_lists(report):
    text = render(report, "markdown")
    assert text.count("<details>") == text.count("</details>") >= 2
    assert "<summary>816 rows</summary>" in text


def test_many_unread_inputs_fold():
    report = Report(errors=tuple(ReadError(f"{n}.npy", "empty", "") for n in range(50)))
    assert "<details><summary>50 inputs not read</summary>" in render(report, "markdown")


def test_a_fence_is_longer_than_any_inside(golden):
    remedy = dataclasses.replace(golden.FUSED, snippet="x = '''\n```\n````\n'''")
    finding = dataclasses.replace(golden.EXP_OVERFLOW, remedies=(remedy,))
    report = Report(tensors=(dataclasses.replace(golden.ARTICLES, findings=(finding,)),))
    page = MarkdownIt("commonmark").render(render(report, "markdown"))
    assert "```\n````\n" in html.unescape(page)
    assert page.count("<pre>") == 1


def test_a_summary_stays_below_what_github_takes(golden):
    """1 MiB: thousands of unread inputs, of bad tensors, of long names."""
    long = "n" * 4000
    errors = tuple(ReadError(f"{long}{n}.npz", "is damaged", "Write it again.") for n in range(2600))
    bad = tuple(dataclasses.replace(golden.STEPS[2], file=f"{long}{n}.npz") for n in range(1500))
    text = render(Report(golden.OPTIONS, bad, errors), "markdown")
    assert len(text.encode()) < 1 << 20
    assert "2,600 inputs not read" in text
    assert "nan-logits (NH001) | 4,500 rows of 1,500 tensors in 1,500 files" in text
