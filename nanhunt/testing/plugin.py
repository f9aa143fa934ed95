"""The pytest plugin: ``--nanhunt``, ``@pytest.mark.nanhunt(dtype=[...], op=...)`` and the fixture ``nanhunt``.

pytest imports this module in every run, so it imports nothing but pytest; the rest comes with the first test that asks
for it.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from nanhunt.testing.checks import Checks

_MARKER = (
    "nanhunt(dtype=(), op=None): watch this test's forward and backward passes, and fail it where a loss or a gradient "
    "is not finite; judge the tensors of its losses, softmaxes and attentions in these dtypes too; op: of these only."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--nanhunt``."""
    parser.getgroup("nanhunt").addoption(
        "--nanhunt",
        action="store_true",
        help="Watch every test that uses torch, and fail it where a loss or a gradient is not finite.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker is known to ``--strict-markers`` and ``--markers``."""
    config.addinivalue_line("markers", _MARKER)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Watches the test itself, not its fixtures."""
    marker = item.get_closest_marker("nanhunt")
    # A suite that never imports torch has nothing to watch, and should not wait for torch.
    asked = item.config.getoption("--nanhunt") and "torch" in sys.modules
    if marker is None and not asked:
        return (yield)
    from nanhunt.testing.watched import watched

    return (yield from watched(item, marker))


@pytest.fixture
def nanhunt() -> Checks:
    """``check``, ``compare`` and ``diff`` of nanhunt that fail the test with their report."""
    from nanhunt.testing.checks import Checks

    return Checks()
