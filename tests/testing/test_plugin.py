"""The plugin in a pytest of its own: what passes, what fails, and what it says."""

from __future__ import annotations

import importlib.util

import pytest
import torch._inductor.test_operators  # noqa: F401 - pytester forgets what only its own runs import, and torch cannot be imported twice

import nanhunt.api
import nanhunt.render.text
import nanhunt.testing.captured
import nanhunt.testing.checks
import nanhunt.testing.watched  # noqa: F401

pytest_plugins = ["pytester"]

BAD = """
import torch

def test_naive():
    x = torch.tensor([[100.0, 0.0]], requires_grad=True)
    loss = -(x.exp() / x.exp().sum()).log().mean()
    loss.backward()

def test_fused():
    x = torch.tensor([[100.0, 0.0]], requires_grad=True)
    torch.nn.functional.cross_entropy(x, torch.tensor([1])).backward()
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with the plugin on, as its entry point puts it on where nanhunt is installed."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest("")
    return pytester


def run(suite: pytest.Pytester, code: str, *arguments: str) -> pytest.RunResult:
    suite.makepyfile(code)
    return suite.runpytest_inprocess("-p", "nanhunt.testing.plugin", "-p", "no:randomly", *arguments)


def test_a_bad_loss_fails_its_test_with_the_report(suite: pytest.Pytester) -> None:
    ended = run(suite, BAD, "--nanhunt")
    ended.assert_outcomes(failed=1, passed=1)
    ended.stdout.fnmatch_lines(["*the loss is nan*", "*exp at *test_a_bad_loss*", "*exp-overflow: max 100*"])
    assert list(suite.path.glob(".pytest_cache/d/nanhunt/*test_naive/step-1.pt"))


def test_without_the_option_nothing_is_watched(suite: pytest.Pytester) -> None:
    run(suite, BAD).assert_outcomes(passed=2)


def test_the_marker_alone_watches(suite: pytest.Pytester) -> None:
    code = BAD.replace("def test_naive", "import pytest\n\n@pytest.mark.nanhunt\ndef test_naive")
    run(suite, code, "--strict-markers").assert_outcomes(failed=1, passed=1)


def test_a_test_that_fails_by_itself_gets_the_report_too(suite: pytest.Pytester) -> None:
    code = BAD.replace("    loss.backward()", "    loss.backward()\n    assert torch.isfinite(loss)")
    ended = run(suite, code, "--nanhunt")
    ended.assert_outcomes(failed=1, passed=1)
    ended.stdout.fnmatch_lines(["*assert torch.isfinite(loss)*", "*exp-overflow: max 100*"])


MARKED = """
import pytest
import torch
import torch.nn.functional as F

X = torch.tensor([[20.0, 0.0], [1.0, 2.0]])

@pytest.mark.nanhunt(dtype=["float16", "bfloat16"])
def test_by_hand():
    assert torch.softmax(X, -1).isfinite().all()

@pytest.mark.nanhunt(dtype=["float16", "bfloat16"])
def test_fused():
    assert F.cross_entropy(X, torch.tensor([1, 0])).isfinite()

@pytest.mark.nanhunt(dtype="float16")
def test_too_large():
    assert F.cross_entropy(X * 1e4, torch.tensor([1, 0])).isfinite()

@pytest.mark.nanhunt(dtype="float16", op="attention")
def test_something_else():
    assert F.cross_entropy(X * 1e4, torch.tensor([1, 0])).isfinite()
"""


def test_captured_tensors_are_judged_in_other_dtypes(suite: pytest.Pytester) -> None:
    ended = run(suite, MARKED)
    ended.assert_outcomes(failed=2, passed=2)
    ended.stdout.fnmatch_lines(["*does not survive float16, bfloat16*", "*exp-overflow (NH101)*"])
    ended.stdout.fnmatch_lines(["*does not survive float16*", "*cast-overflow (NH004)*"])
    assert "FAILED test_captured_tensors_are_judged_in_other_dtypes.py::test_by_hand" in ended.stdout.str()


def test_a_wrong_marker_is_said(suite: pytest.Pytester) -> None:
    ended = run(suite, "import pytest\n\n@pytest.mark.nanhunt('float16')\ndef test_x(): pass\n")
    ended.assert_outcomes(failed=1)
    ended.stdout.fnmatch_lines(["*takes dtype= and op=, not 'float16'*"])


FIXTURE = """
import numpy as np

def test_check(nanhunt):
    assert nanhunt.check(np.zeros((2, 3), np.float32)).ok
    nanhunt.check(np.array([[np.nan, 1.0]]))

def test_diff(nanhunt):
    assert nanhunt.diff(np.ones(3), np.ones(3)).ok
    nanhunt.diff(np.array([1.0, np.inf]), np.array([1.0, -np.inf]))

def test_compare(nanhunt):
    nanhunt.compare(np.array([[1000.0, 1.0]], np.float32), [0])
"""


def test_the_fixture_fails_a_test_with_its_report(suite: pytest.Pytester) -> None:
    ended = run(suite, FIXTURE)
    ended.assert_outcomes(failed=3)
    ended.stdout.fnmatch_lines(["*nan-logits (NH001)*", "*nonfinite-changed (NHD103)*", "*log-of-softmax*"])


@pytest.mark.skipif(importlib.util.find_spec("xdist") is None, reason="needs pytest-xdist")
def test_workers_hand_the_report_on(suite: pytest.Pytester) -> None:
    suite.makepyfile(BAD)
    ended = suite.runpytest_subprocess("-p", "nanhunt.testing.plugin", "-p", "xdist", "-n", "1", "--nanhunt")
    ended.assert_outcomes(failed=1, passed=1)
    ended.stdout.fnmatch_lines(["*exp-overflow: max 100*"])


def test_a_suite_without_torch_stays_without(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        "import sys\n\ndef test_x():\n    assert not {'torch', 'numpy', 'nanhunt.api', 'rich'} & set(sys.modules)\n"
    )
    suite.runpytest_subprocess("-p", "nanhunt.testing.plugin", "--nanhunt").assert_outcomes(passed=1)


CHECKED = """
import torch

def test_what_is_checked_may_be_bad(nanhunt):
    x = torch.tensor([[1000.0, 0.0]])
    nanhunt.check(x, [1], fail_on="error")
    nanhunt.compare(x, [1], fail_on="error")
"""


def test_losses_that_nanhunt_itself_runs_are_not_watched(suite: pytest.Pytester) -> None:
    run(suite, CHECKED, "--nanhunt").assert_outcomes(passed=1)
