"""The hand-built Report that the golden files are made from."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parent.parent / "golden" / "report.py"


@pytest.fixture(scope="session")
def golden() -> ModuleType:
    """tests/golden/report.py: REPORT and its parts."""
    spec = importlib.util.spec_from_file_location("golden_report", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def report(golden):
    """The realistic mix."""
    return golden.REPORT
