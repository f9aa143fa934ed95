"""The fixture ``nanhunt``: the functions of the package, whose findings fail the test with the report."""

from __future__ import annotations

from typing import Any

import pytest

import nanhunt
from nanhunt.render import render
from nanhunt.render.difference import render_difference
from nanhunt.results.difference import Difference
from nanhunt.results.report import Report


class Checks:
    """Arguments are those of ``nanhunt.check``, ``nanhunt.compare`` and ``nanhunt.diff``."""

    def check(self, x: Any, *arguments: Any, **options: Any) -> Report:
        """The report of ``nanhunt.check``. Fails the test with it where something reaches ``fail_on``."""
        __tracebackhide__ = True
        return _passed(nanhunt.check(x, *arguments, **options))

    def compare(self, x: Any, *arguments: Any, **options: Any) -> Report:
        """The report of ``nanhunt.compare``. Fails the test with it where something reaches ``fail_on``."""
        __tracebackhide__ = True
        return _passed(nanhunt.compare(x, *arguments, **options))

    def diff(self, a: Any, b: Any, **options: Any) -> Difference:
        """What differs, by ``nanhunt.diff``. Fails the test with it where it is more than rounding."""
        __tracebackhide__ = True
        found = nanhunt.diff(a, b, **options)
        if not found.ok:
            pytest.fail(render_difference(found, "text"), pytrace=False)
        return found


def _passed(report: Report) -> Report:
    if not report.ok:
        pytest.fail(render(report, "text"), pytrace=False)
    return report
