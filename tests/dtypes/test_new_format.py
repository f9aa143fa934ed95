"""A float format costs one line: nothing else in the package knows one by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from nanhunt.dtypes import convert
from nanhunt.dtypes.bits import cast_limits, layout
from nanhunt.dtypes.convert import rounded, to_floats
from nanhunt.dtypes.formats import DTYPES, FORMATS, FloatFormat

PACKAGE = Path(__file__).parents[2] / "nanhunt"
ADDED = FloatFormat(
    "float8_e3m4", 3, 4, 2.71875, -1.375, -4.75, ("e3m4",), "F8_E3M4", has_arithmetic=False
)  # fmt: skip


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A format that nanhunt does not have, in its table."""
    monkeypatch.setitem(FORMATS, ADDED.name, ADDED)
    yield ADDED.name
    for cached in (layout, cast_limits, convert._table):
        cached.cache_clear()


def test_an_added_format_is_read_and_cast_as_ml_dtypes_does(added: str) -> None:
    info = ml_dtypes.finfo(added)
    assert (ADDED.max, ADDED.smallest_normal, ADDED.smallest_subnormal) == (
        float(info.max), float(info.smallest_normal), float(info.smallest_subnormal)
    )  # fmt: skip
    bits = np.arange(256, dtype=np.uint8)
    values = bits.view(added).astype(np.float32)
    np.testing.assert_array_equal(to_floats(bits, added), values)
    assert layout(added).value(layout(added).largest) == ADDED.max
    limits, half = cast_limits("float16", added), np.arange(0x7C00, dtype=np.uint16)
    with np.errstate(over="ignore"):
        cast = half.view(np.float16).astype(added).astype(np.float32)
    np.testing.assert_array_equal(cast == 0, half < limits.flushed_below)
    np.testing.assert_array_equal(np.isinf(cast), half >= limits.overflow_from)


@pytest.mark.parametrize("dtype", [name for name in DTYPES if FORMATS[name].bits >= 16])
def test_rounding_is_the_cast_of_ml_dtypes_by_float32(dtype: str) -> None:
    draw = np.random.default_rng(0)
    values = draw.standard_normal(20_000) * 2.0 ** draw.integers(-160, 140, 20_000)
    values[:6] = [0.0, -0.0, np.inf, -np.inf, np.nan, FORMATS[dtype].max]
    with np.errstate(over="ignore"):
        single = values if dtype == "float64" else values.astype(np.float32)
        expected = single.astype(dtype).astype(np.float64)
    np.testing.assert_array_equal(rounded(values, dtype), expected)


def comparisons(file: Path) -> Iterator[str]:
    """Where ``file`` asks whether a text is, or begins like, the name of a format."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        texts: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            texts = [text for side in sides for text in getattr(side, "elts", [side])]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            texts = list(node.args) if node.func.attr in ("startswith", "endswith") else []
        for text in texts:
            if isinstance(text, ast.Constant) and str(text.value).startswith(("float", "bfloat")):
                yield f"{file.relative_to(PACKAGE)}:{text.lineno} {text.value}"


def test_no_other_file_compares_names_of_formats() -> None:
    methods = {"causes.py", "floor.py"}  # x.bfloat16() is a call, and named as one
    files = [file for file in PACKAGE.rglob("*.py") if file.name not in methods]
    found = [each for file in files for each in comparisons(file)]
    assert not found
