"""``--format html``: one self-contained page. Jinja2 with autoescape, a strict content security policy."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nanhunt.dtypes.formats import FORMATS, compute_format
from nanhunt.literal import literal
from nanhunt.render import (
    curves_svg,
    growing,
    overview,
    phrases,
    proofs,
    scales,
    severities,
    side_by_side,
    steps,
    svg,
    totals,
    verdicts,
    where,
)
from nanhunt.results.finding import Finding
from nanhunt.results.report import Report
from nanhunt.results.runup import curves
from nanhunt.results.series import Run, runs
from nanhunt.results.tensor import RowBin, TensorReport, WorstRow

HERE = Path(__file__).parent
FEW = 6
"""Up to this many healthy verdicts get their pictures too; of more, only the sick ones do."""
BINS = 256
"""Bins of a strip at most: one column each on a phone."""
ALL_BINS = 4096
"""Bins of all strips of a page together, so that a hundred of them still open quickly."""


LISTED = 20
"""Verdicts that are in sight, worst first; the rest is folded."""
MOST_LISTED = 1000
"""Verdicts on a page; the rest is counted."""
OPEN = 3
"""Sections that are open where there are more."""
MOST_SERIES = 5
MOST_SECTIONS = 100
"""Tensors with pictures and findings, worst first, so that a page opens at once."""


def render(report: Report) -> str:
    """The page. It loads nothing: styles and script are inside, allowed by their hashes alone."""
    tensors = _ordered(report)
    sections = _sections(tensors)
    listed = [(index, tensor) for index, tensor in enumerate(tensors) if tensor.findings or index in sections]
    counted = dataclasses.replace(report, tensors=tuple(each for each in tensors if each.countable)).counted()
    few = len(tensors) <= LISTED
    return page(
        "page.html.jinja",
        report=report,
        runs=[_story(report, run) for run in runs(report)[:MOST_SERIES]],
        sections=sections,
        open=OPEN if len(sections) > OPEN + 1 else len(sections),
        rules=overview.by_rule(report) if len(listed) > 1 else [],
        listed=list(enumerate(tensors)) if few else listed[:LISTED],
        folded=[] if few else listed[LISTED:MOST_LISTED],
        unlisted=max(len(listed) - MOST_LISTED, 0),
        healthy=report.healthy if few else counted.healthy,
        series=(steps.bad_series(report) or steps.series(report))[:MOST_SERIES],
    )


def page(template: str, **values: Any) -> str:
    """A page of one of the templates here, with the style and the script that all of them share."""
    style, script = (Markup((HERE / name).read_text("utf-8")) for name in ("page.css", "page.js"))
    return (
        _environment()
        .get_template(template)
        .render(
            **values,
            style=style,
            script=script,
            policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
            "base-uri 'none'; form-action 'none'",
        )
    )


@dataclass(frozen=True)
class Story:
    """One run: where it began and how it came."""

    understood: str
    began: Sequence[str]
    came: Sequence[str]
    grid: Markup
    """Steps by layers; empty where there are too few of either."""
    charts: Sequence[Markup]
    """Of what grows."""


def _story(report: Report, run: Run) -> Story:
    found = curves(report, run.name, run.origin)
    worth = len(found) > 1 and len(run.moments) > 2
    return Story(
        where.understood(run),
        where.sentences(run),
        growing.sentences(found, run.unit),
        curves_svg.grid(found) if worth else Markup(""),
        [curves_svg.chart(curve) for curve in growing.growing(found)[: growing.DRAWN]],
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_literal,
    )
    said = {"phrases": phrases, "verdicts": verdicts, "proofs": proofs, "totals": totals}
    environment.globals.update(said, svg=svg, remark=scales.remark)
    return environment


def _literal(value: Any) -> Any:
    """Controls and bidi marks of untrusted names are spelled out; our own markup passes."""
    return literal(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@dataclass(frozen=True)
class Limits:
    """One line under the histogram: a format, its numbers, and whether these values fit."""

    name: str
    judged: bool
    fits: bool | None
    """None where the extremes were not counted."""
    exp_limit: str
    zero_cliff: str
    max: str
    smallest_normal: str


@dataclass(frozen=True)
class Section:
    """One tensor in one dtype, laid out."""

    id: str
    tensor: TensorReport
    verdict: verdicts.Verdict
    comparison: side_by_side.Comparison | None
    findings: Sequence[Finding]
    histogram: Markup | None
    limits: Sequence[Limits]
    strip: svg.Strip | None
    worst: Sequence[WorstRow]


def _ordered(report: Report) -> list[TensorReport]:
    """Worst first, then what is known or compared, then the rest in natural order."""
    worst = overview.worst_first(report)
    seen = set(map(id, worst))
    rest = [tensor for group in totals.groups(report) for tensor in group if id(tensor) not in seen]
    return [*worst, *sorted(rest, key=lambda tensor: tensor.countable)]


def _sections(tensors: Sequence[TensorReport]) -> dict[int, Section]:
    """The tensors that get a section, by their place among the verdicts."""
    few = len(tensors) <= FEW
    shown = [index for index, tensor in enumerate(tensors) if few or not tensor.countable][:MOST_SECTIONS]
    bins = min(BINS, max(ALL_BINS // max(len(shown), 1), 32))
    return {index: _section(index, tensors[index], bins) for index in shown}


def _section(index: int, tensor: TensorReport, bins: int) -> Section:
    histogram = tensor.histogram
    return Section(
        id=f"t{index + 1}",
        tensor=tensor,
        verdict=verdicts.verdict(tensor),
        comparison=side_by_side.comparison(tensor),
        findings=severities.by_severity(tensor.findings),
        histogram=svg.histogram(histogram, tensor.dtype, tensor.role) if histogram else None,
        limits=[_limits(name, tensor) for name in FORMATS] if histogram else [],
        strip=svg.strip(_coarser(tensor.strip, bins), tensor) if tensor.strip else None,
        worst=tensor.worst_rows,
    )


def _limits(name: str, tensor: TensorReport) -> Limits:
    found, exp = FORMATS[name], compute_format(name)
    low, high = tensor.health.min, tensor.health.max
    fits = None
    if low is not None and high is not None:
        within = max(abs(low), abs(high)) < found.overflow
        fits = within and (tensor.role != "logits" or high <= exp.exp_limit)
    return Limits(
        name=name,
        judged=name == tensor.dtype,
        fits=fits,
        exp_limit=f"{exp.exp_limit:.4g}",
        zero_cliff=f"{exp.exp_zero:.4g}",
        max=f"{found.max:.4g}",
        smallest_normal=f"{found.smallest_normal:.3g}",
    )


def _coarser(strip: Sequence[RowBin], most: int) -> list[RowBin]:
    """At most ``most`` bins, neighbours joined."""
    step = math.ceil(len(strip) / most)
    return [_joined(strip[start : start + step]) for start in range(0, len(strip), step)]


def _joined(bins: Sequence[RowBin]) -> RowBin:
    causes: dict[str, int] = {}
    for item in bins:
        for code, number in item.causes:
            causes[code] = causes.get(code, 0) + number
    largest = max((item.max for item in bins if item.max is not None), default=None)
    return RowBin(bins[0].first, bins[-1].last, largest, tuple(sorted(causes.items())))
