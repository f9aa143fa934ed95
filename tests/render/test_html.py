"""The page as text: self-contained, safe, small. How it behaves in a browser is in test_page_in_browser.py."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import re

import pytest
from lxml import etree

from nanhunt.render import render
from nanhunt.results.report import Report
from nanhunt.results.tensor import RowBin


def page(report):
    return etree.HTML(render(report, "html"))


def texts(element):
    return " ".join("".join(element.itertext()).split())


def test_nothing_is_loaded(report):
    tree = page(report)
    assert not tree.xpath("//link | //img | //iframe | //object | //*[@src] | //script[@src]")
    assert {href for href in tree.xpath("//@href") if not href.startswith("#")} == set()
    assert "url(" not in render(report, "html")
    assert "@import" not in render(report, "html")


def test_the_policy_allows_the_one_style_and_the_one_script(report):
    tree = page(report)
    policy = tree.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")[0]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for name in ("style", "script"):
        (element,) = tree.xpath(f"//{name}")
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    # Inline attributes are forbidden by the policy: none may be relied on.
    assert not tree.xpath("//@style | //@*[starts-with(name(), 'on')]")


def test_under_300_kb_for_a_batch_of_a_language_model(golden):
    strip = tuple(RowBin(row, row, 97.25, (("NH001", 1), ("NH101", 1))) for row in range(4096))
    tensor = dataclasses.replace(golden.STEPS[2], strip=strip)
    assert len(render(Report(golden.OPTIONS, (tensor,)), "html").encode()) < 300_000


def test_a_hostile_name_is_text_wherever_it_stands(golden, report):
    tree = page(report)
    assert len(tree.xpath("//script")) == 1
    named = [texts(element) for element in tree.xpath("//code") if "alert(1)" in texts(element)]
    assert len(named) == 2
    assert all(name.startswith("attn.pt:<script>alert(1)</script>\"'`|*_[bold]") for name in named)


@pytest.mark.parametrize("where", ["file", "tensor"])
def test_hostile_names_in_attributes(golden, where):
    hostile = "\"><script>alert(1)</script>' onload='x{{7*7}}" + "\U0001f600" * 300
    tensors = tuple(
        dataclasses.replace(tensor, **{where: hostile, "file" if where == "tensor" else "tensor": f"x{n}"})
        for n, tensor in enumerate((golden.STEPS[2], golden.STEPS[0], golden.ARTICLES))
    )
    tree = page(Report(tensors=tensors))
    assert len(tree.xpath("//script")) == 1
    assert not tree.xpath("//@onload")
    assert "x49" not in "".join(tree.itertext())


def test_headings_tables_and_pictures_have_names(report):
    tree = page(report)
    levels = [int(element.tag[1]) for element in tree.xpath("//h1 | //h2 | //h3 | //h4")]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(
        svg.get("aria-label") or svg.get("aria-hidden") or svg.getparent().tag == "svg"
        for svg in tree.xpath("//svg")
    )
    assert all(table.xpath(".//th[@scope]") for table in tree.xpath("//table"))
    assert tree.xpath("/html/@lang") == ["en"]
    ids = tree.xpath("//@id")
    assert len(ids) == len(set(ids))
    pointed_at = [name for value in tree.xpath("//@aria-labelledby") for name in value.split()]
    assert set(pointed_at) <= set(ids)
    assert {href[1:] for href in tree.xpath("//a/@href")} <= set(ids)


def test_a_strip_has_few_bins_and_every_row(golden):
    strip = tuple(RowBin(row, row, 1.0, (("NH101", 1),) if row == 4000 else ()) for row in range(4096))
    tensor = dataclasses.replace(golden.STEPS[2], strip=strip, worst_rows=())
    titles = page(Report(tensors=(tensor,))).xpath("//rect[@class='hit']/title/text()")
    assert len(titles) == 256
    assert [title for title in titles if "healthy" not in title] == [
        "rows 4000 to 4015: 1 exp-overflow (NH101); largest logit 1"
    ]


def test_details_of_a_row_name_label_and_losses(golden):
    titles = page(Report(tensors=(golden.ARTICLES,))).xpath("//rect[@class='hit']/title/text()")
    assert titles[1] == (
        "row 1: 1 exp-overflow (NH101); largest logit 1000; row 1, label 2, "
        "loss: naive inf, log-of-softmax inf, logsumexp 2000, fused 2000, truth 2000"
    )


def test_nan_and_inf_are_loud(golden):
    (table,) = page(Report(tensors=(golden.ARTICLES,))).xpath("//table[contains(@class, 'worst')]")
    loud = [element.text for element in table.xpath(".//strong[@class='loud']")]
    assert loud.count("NaN") == 7
    assert loud.count("inf") == 2


def test_every_format_and_the_cliffs_of_the_histogram(golden):
    tree = page(Report(tensors=(golden.HEALTHY,)))
    labels = [element.text for element in tree.xpath("//div[@class='plot']/div[contains(@class, 'label')]")]
    assert labels == ["positive", "negative", "|x|", *golden_formats()]
    assert "exp(x) is inf above 88.5" in tree.xpath("//text[@class='cliff-name']/text()")
    verdicts = {
        row[0].text: texts(row[1]) for row in tree.xpath("//table[contains(@class, 'limits')]/tbody/tr")
    }
    assert verdicts["bfloat16"] == verdicts["float16"] == "✓ fit"


def golden_formats():
    return ["float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"]


def test_one_sees_that_logits_fit_bfloat16_and_not_float16(golden):
    tree = page(Report(tensors=(golden.STEPS[1],)))
    verdicts = {
        row[0].text: texts(row[1]) for row in tree.xpath("//table[contains(@class, 'limits')]/tbody/tr")
    }
    assert verdicts["bfloat16"] == "✓ fit"
    assert verdicts["float16"] == "✗ overflow"
    assert "sampled: 2,097,152 of 131,072,000 values" in texts(tree)


def test_a_single_value_among_millions_is_drawn(golden):
    counts = (1, 10**9)
    found = dataclasses.replace(golden.ARTICLES.histogram, first_exponent=0, positive=counts, negative=(0, 0))
    tree = page(Report(tensors=(dataclasses.replace(golden.ARTICLES, histogram=found),)))
    heights = [float(bar.get("height")) for bar in tree.xpath("//svg[@height='112']/rect")]
    assert len(heights) == 2
    assert min(heights) >= 2


def test_steps_in_natural_order_with_the_first_bad_one_marked(report):
    tree = page(report)
    assert tree.xpath("//text[@class='first-bad-name']/text()") == ["20"]
    (table,) = tree.xpath("//table[.//th='headroom']")
    files = [texts(row[0]) for row in table.xpath(".//tbody/tr")]
    assert files == ["dumps/step-2.npz", "dumps/step-10.npz", "dumps/step-20.npz"]
    assert table.xpath(".//tr[@class='first']/td/text()")[:2] == ["97.25", "-8.527168"]


def test_one_dump_has_no_steps(golden):
    assert not page(Report(tensors=(golden.STEPS[2],))).xpath("//div[contains(@class, 'steps')]")


def test_many_healthy_verdicts_fold(golden):
    tensors = tuple(dataclasses.replace(golden.HEALTHY, file=f"{n}.npy") for n in range(50))
    tree = page(Report(tensors=tensors))
    assert any("50 tensors in 50 files" in texts(summary) for summary in tree.xpath("//summary"))
    assert not tree.xpath("//section[contains(@class, 'tensor')]")


def test_snippets_keep_their_lines(report):
    blocks = [element.text for element in page(report).xpath("//pre/code")]
    assert "keep = logits.isfinite().all(-1)\nloss = F.cross_entropy(logits[keep], targets[keep])" in [
        block.strip() for block in blocks
    ]


def test_no_colour_without_a_word(report):
    for section in page(report).xpath("//section[contains(@class, 'tensor')]"):
        assert section.xpath("./p[@class='verdict']/span")[0].text in section.get("class")


def test_styles_know_both_themes_and_print(report):
    style = page(report).xpath("//style")[0].text
    assert re.search(r"prefers-color-scheme:\s*dark", style)
    assert "@media print" in style


def test_hundreds_of_bad_tensors_fold(golden):
    """The worst in sight, the rest of the table and the evidence folded, pictures for a hundred at most."""
    tensors = tuple(dataclasses.replace(golden.STEPS[2], file=f"run-{n}/x.npz") for n in range(300))
    text = render(Report(golden.OPTIONS, tensors), "html")
    tree = etree.HTML(text)
    assert len(tree.xpath("//section[contains(@class, 'tensor')]")) == 100
    assert len(tree.xpath("//section[contains(@class, 'tensor')]/details[@class='evidence']")) == 97
    assert any(texts(summary) == "280 more verdicts" for summary in tree.xpath("//summary"))
    assert "Shown in detail: the worst 100." in text
    assert len(text.encode()) < 12_000_000
