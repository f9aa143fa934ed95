"""What a notebook shows, and the magic, in a real IPython shell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nanhunt
from nanhunt.notebook import settings

BAD = np.array([[np.nan, 1.0], [1.0, 2.0]], np.float32)


def test_a_plain_shell_shows_the_verdict() -> None:
    assert repr(nanhunt.check(BAD)) == "<nanhunt.Report: 1 error in 1 judged tensor, exit code 1>"
    assert repr(nanhunt.check(BAD[1:])) == "<nanhunt.Report: no finding in 1 judged tensor, exit code 0>"
    assert "no finding" in repr(nanhunt.Report())
    found = nanhunt.diff({"w": BAD}, {"w": BAD + 1, "v": BAD})
    assert repr(found).startswith(
        "<nanhunt.Difference: 1 of 1 tensors differ, the first <memory>:w: different: 3 of 4"
    )
    assert repr(found).endswith("1 without a partner, exit code 1>")


def test_jupyter_gets_a_small_block_without_foreign_markup() -> None:
    for html in (
        nanhunt.check({"<script>.logits": BAD})._repr_html_(),
        nanhunt.diff({"<script>": BAD}, {"<script>": BAD + 1})._repr_html_(),
    ):
        assert html is not None
        assert len(html) < 5000
        assert "<script>" not in html
        assert "&lt;script&gt;" in html
        assert "background" not in html  # the page's own, light or dark
        assert "<details>" in html


def test_the_magic_watches_its_cell(tmp_path, monkeypatch, capsys) -> None:
    interactive = pytest.importorskip("IPython.core.interactiveshell")
    monkeypatch.chdir(tmp_path)
    shell = interactive.InteractiveShell(colors="nocolor")
    shell.run_line_magic("load_ext", "nanhunt")
    cell = (
        "import torch\nx = torch.tensor([200.0], requires_grad=True)\n(x.exp() - x.exp()).sum().backward()\n"
    )
    shell.run_cell(f"%%nanhunt\n{cell}")
    said = capsys.readouterr().out
    assert "NanFoundError" in said
    assert "max 200 > 88.7228" in said


def test_the_line_of_the_magic() -> None:
    assert settings("--every-op --continue") == {"every_op": True, "keep_going": True}
    with pytest.raises(nanhunt.NanhuntError, match="--fast"):
        settings("--fast")


class OnlyArray:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.values


class OnlyDlpack:
    def __init__(self, values: np.ndarray, kind: int = 1) -> None:
        self.values, self.kind = values, kind

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0


@pytest.mark.parametrize("kind", [OnlyArray, OnlyDlpack])
def test_arrays_of_any_library_are_taken(kind) -> None:
    assert [each.code for each in nanhunt.check(kind(BAD)).findings] == ["NH001"]
    assert [each.code for each in nanhunt.check({"logits": kind(BAD)}).findings] == ["NH001"]


def test_another_device_is_named() -> None:
    with pytest.raises(nanhunt.NanhuntError, match="on another device") as raised:
        nanhunt.check(OnlyDlpack(BAD, 2))
    assert "Copy it to the host" in raised.value.hint


def test_where_it_began_and_names_that_would_pair_are_in_sight(tmp_path) -> None:
    for step in (1, 2):
        (tmp_path / f"checkpoint-{step}").mkdir()
        torch.save({"layers.0.weight": torch.full((2, 2), 1.0 if step == 1 else torch.nan)},
                   tmp_path / f"checkpoint-{step}" / "model.pt")  # fmt: skip
    shown = nanhunt.check(tmp_path)._repr_html_()
    assert shown is not None
    sight = shown[: shown.index("<details>")]
    assert "first bad: step 2, layers.0.weight: 4 NaN of 4 values" in sight
    one, other = {"a.w": np.arange(4.0)}, {"b.w": np.arange(4.0), "c": np.ones(3)}
    shown = nanhunt.diff(one, other)._repr_html_()
    assert shown is not None
    assert "rename=[&#x27;^a\\\\b=b&#x27;]" in shown[: shown.index("<details>")]
