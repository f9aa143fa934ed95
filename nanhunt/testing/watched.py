"""One test, watched: where its loss or gradient is not finite, it fails with the report of ``nanhunt run``."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

import nanhunt
from nanhunt.errors import NanhuntError
from nanhunt.render import render
from nanhunt.results.report import Report, merge
from nanhunt.testing.captured import Capture, Captured
from nanhunt.watch.message import incident_text


def watched(item: pytest.Item, marker: pytest.Mark | None) -> Generator[None, object, object]:
    """Runs the test between, as a hook wrapper does. Fails it where it passes with a bad number."""
    dtypes, op = _asked(marker)
    # One report a test: what comes after the first is its consequence.
    watch = nanhunt.watch(keep_going=True, max_reports=1, capture_dir=_folder(item), report=_kept)
    captured = Captured() if dtypes else None
    try:
        with watch, captured or contextlib.nullcontext():
            result = yield
    finally:
        for incident in watch.incidents:
            item.add_report_section("call", "nanhunt", incident_text(incident))
    if watch.incidents:
        first = watch.incidents[0]
        where = f" at {first.noticed.short}" if first.noticed else ""
        pytest.fail(f"{first.what}{where}: see the section nanhunt", pytrace=False)
    if captured is not None:
        _judge(item, captured.captures, dtypes, op)
    return result


def _kept(_: Any) -> None:
    """The watch keeps its incidents; they are told when the test is over."""


def _asked(marker: pytest.Mark | None) -> tuple[Sequence[str], str | None]:
    """dtypes and operation of ``@pytest.mark.nanhunt(dtype=..., op=...)``. Raises NanhuntError for anything else."""
    if marker is None:
        return (), None
    wrong = [*map(repr, marker.args), *(name for name in marker.kwargs if name not in ("dtype", "op"))]
    if wrong:
        raise NanhuntError(
            f"@pytest.mark.nanhunt takes dtype= and op=, not {', '.join(wrong)}.",
            'Write @pytest.mark.nanhunt(dtype=["float16"]).',
        )
    dtypes = marker.kwargs.get("dtype", ())
    return ([dtypes] if isinstance(dtypes, str) else list(dtypes)), marker.kwargs.get("op")


def _folder(item: pytest.Item) -> str:
    """Where tensors of a failing step are written: in pytest's cache, which survives the run and is ignored by git."""
    name = re.sub(r"[^\w.-]+", "_", item.nodeid)[-100:]
    if hasattr(item.config, "cache") and item.config.cache is not None:
        return str(Path(item.config.cache.mkdir("nanhunt")) / name)
    return str(Path(tempfile.gettempdir()) / f"nanhunt-{name}")


def _judge(item: pytest.Item, captures: Sequence[Capture], dtypes: Sequence[str], op: str | None) -> None:
    """The tensors that the test computed with, in the dtypes that it names."""
    wanted = [each for each in captures if op is None or each.op == op]
    reports = [_judged(each, dtypes) for each in wanted]
    report = merge(reports)
    if not report.ok:
        item.add_report_section("call", "nanhunt", render(report, "text"))
        names = ", ".join(dtypes)
        pytest.fail(
            f"what this test computes does not survive {names}: see the section nanhunt", pytrace=False
        )


def _judged(capture: Capture, dtypes: Sequence[str]) -> Report:
    # Whoever calls the fused function need not hear of those who write it by hand.
    fail_on = "error" if capture.fused else "warning"
    return nanhunt.check(
        dict(capture.tensors), dtype=dtypes, op=capture.op, fail_on=fail_on, **capture.options
    )
