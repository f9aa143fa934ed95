"""What tests of several parts start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from warm import Warm


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """One a worker."""
    process = Warm()
    yield process
    process.close()
