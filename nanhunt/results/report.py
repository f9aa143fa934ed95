"""What was found: frozen results that renderers only read, that add up with ``+``, and that survive JSON.

Standard library only, so that ``nanhunt report`` needs neither torch nor numpy.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nanhunt.literal import literal_json
from nanhunt.results.codec import decode, encode, written
from nanhunt.results.counted import Cell, Healthy, added, cells_of, counted, together
from nanhunt.results.exit_code import ExitCode
from nanhunt.results.finding import Finding, Severity
from nanhunt.results.order import natural_key
from nanhunt.results.tensor import TensorReport

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Logged:
    """A number that the trainer wrote down itself: a few entries up to the first that is not finite, or to the end."""

    run: str
    """The folder around it, as in the coordinates of tensors."""
    file: str
    name: str
    """"loss", "grad_norm"."""
    steps: tuple[int, ...]
    values: tuple[float, ...]
    """At those steps."""
    origin: str = ""
    """As in ``TensorReport``."""


@dataclass(frozen=True)
class ReadError:
    """An input that could not be judged."""

    file: str
    message: str
    hint: str
    origin: str = ""
    """As in ``TensorReport``."""


@dataclass(frozen=True)
class NotLookedAt:
    """A file in a folder, or a part of a file, of which nothing is said, neither good nor bad."""

    file: str
    """The path, or "path:name" of a part."""
    what: str
    """What it is: "ONNX", "text", "no floating-point numbers"."""


@dataclass(frozen=True)
class NotRun:
    """Code that a file names and that was not run: what it would have made was read as data."""

    file: str
    name: str
    """A class or function: "argparse.Namespace"."""


@dataclass(frozen=True)
class Report:
    """The result of one run, or of several added together."""

    options: Mapping[str, Any] = field(default_factory=dict)
    tensors: tuple[TensorReport, ...] = ()
    errors: tuple[ReadError, ...] = ()
    exit_code: int = 0
    healthy: tuple[Healthy, ...] = ()
    """Judgements that are only counted, as in a saved report; none of them is in ``tensors``."""
    not_looked_at: tuple[NotLookedAt, ...] = ()
    not_run: tuple[NotRun, ...] = ()
    cells: tuple[Cell, ...] = ()
    """Where in a run those stand that are only counted, as far as their names say it."""
    logged: tuple[Logged, ...] = ()
    """What trainers say of the runs themselves."""
    assumed: tuple[str, ...] = ()
    """What was assumed so as not to read everything, in words."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings of all tensors."""
        return tuple(finding for tensor in self.tensors for finding in tensor.findings)

    @property
    def ok(self) -> bool:
        """Whether nothing reached ``fail_on`` and everything could be read."""
        return self.exit_code == ExitCode.CLEAN

    @property
    def has_runs(self) -> bool:
        """Whether any tensor's path or name says where in a run it stands; ``results.series`` tells more."""
        return bool(self.cells) or any("run" in tensor.coordinates for tensor in self.tensors)

    as_html: ClassVar[Callable[[Report], str] | None] = None
    """How Jupyter shows it; set by the interface above, since results know no renderer."""

    as_text: ClassVar[Callable[[Report], str] | None] = None
    """What ``str`` and ``print`` show of it; set as ``as_html`` is."""

    def _repr_html_(self) -> str | None:
        return None if Report.as_html is None else Report.as_html(self)

    def __str__(self) -> str:
        """The text report: what ``print`` shows, and what an experiment tracker should log."""
        return repr(self) if Report.as_text is None else Report.as_text(self)

    def __repr__(self) -> str:
        """The verdict, and not a page of fields."""
        judged = len(self.tensors) + sum(sum(group.files.values()) for group in self.healthy)
        counts = Counter(finding.severity for finding in self.findings)
        parts = [
            f"{counts[each]:,} {each}{'s' * (counts[each] != 1)}"
            for each in reversed(Severity)
            if counts[each]
        ]
        parts += [f"{len(self.errors):,} not read"] * bool(self.errors)
        told = ", ".join(parts) or "no finding"
        tensors = f"{judged:,} judged tensor{'s' * (judged != 1)}"
        return f"<nanhunt.Report: {told} in {tensors}, exit code {int(self.exit_code)}>"

    def __add__(self, other: Report) -> Report:
        """Both reports in one. Associative and order-free: tensors and errors are kept in one total order."""
        if not isinstance(other, Report):
            return NotImplemented
        return merge([self, other])

    def __radd__(self, other: object) -> Report:
        """So that ``sum(reports)`` works, which starts from 0."""
        return self if other == 0 else NotImplemented

    def counted(self) -> Report:
        """The same with healthy tensors counted instead of listed. Commutes with adding."""
        listed = tuple(tensor for tensor in self.tensors if not tensor.countable)
        healthy = [tensor for tensor in self.tensors if tensor.countable]
        return dataclasses.replace(
            self,
            tensors=listed,
            healthy=together((*self.healthy, *map(counted, healthy))),
            cells=added((*self.cells, *cells_of(healthy))),
        )

    def to_json(self, indent: int | None = 2, *, verbose: bool = False) -> str:
        """Strictly valid JSON, as ``nanhunt schema`` describes it: healthy tensors are counted unless ``verbose``.

        Non-finite numbers are the strings "nan", "inf", "-inf"; what could steer a terminal is escaped.
        """
        from nanhunt.results.series import beginnings  # which reads reports

        began = encode(beginnings(self))  # before the lists, for whoever opens the file
        body = {
            "format_version": FORMAT_VERSION,
            "where_it_began": began,
            **encode(self if verbose else self.counted()),
        }
        return literal_json(written(body, indent) + "\n")

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that ``to_json`` wrote. ValueError when it is not one, or of another format version."""
        try:
            body = json.loads(text)
        except RecursionError:
            raise ValueError("not a nanhunt report") from None
        if not isinstance(body, dict) or "tensors" not in body or "format_version" not in body:
            raise ValueError("not a nanhunt report")
        version = body["format_version"]
        if version != FORMAT_VERSION:
            older = isinstance(version, int) and version < FORMAT_VERSION
            way_out = "save it again with this nanhunt" if older else "read it with the nanhunt that wrote it"
            raise ValueError(f"format version {version!r}, this nanhunt reads {FORMAT_VERSION}: {way_out}")
        try:
            report: Report = decode(cls, body)
            return report
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a whole nanhunt report: {error}") from None


def merge(reports: Iterable[Report]) -> Report:
    """The sum of all of them; the empty report for none. Sorts once, where ``sum`` sorts at every step."""
    reports = list(reports)
    return Report(
        options=functools.reduce(_common, (report.options for report in reports), {}),
        tensors=_ordered(tensor for report in reports for tensor in report.tensors),
        errors=tuple(sorted((error for report in reports for error in report.errors), key=_error_key)),
        exit_code=max((report.exit_code for report in reports), default=0),
        healthy=together(group for report in reports for group in report.healthy),
        not_looked_at=tuple(
            sorted({each for report in reports for each in report.not_looked_at}, key=_part_key)
        ),
        not_run=tuple(sorted({each for report in reports for each in report.not_run}, key=_code_key)),
        cells=added(cell for report in reports for cell in report.cells),
        logged=tuple(sorted({each for report in reports for each in report.logged}, key=_log_key)),
        assumed=tuple(sorted({said for report in reports for said in report.assumed})),
    )


def _log_key(logged: Logged) -> tuple[Any, ...]:
    values = tuple(map(str, logged.values))  # NaN has no place in an order
    return (
        logged.origin,
        natural_key(logged.run),
        natural_key(logged.file),
        logged.name,
        logged.steps,
        values,
    )


def _ordered(tensors: Iterable[TensorReport]) -> tuple[TensorReport, ...]:
    groups = itertools.groupby(sorted(tensors, key=_place), key=_place)
    return tuple(tensor for _, group in groups for tensor in _told_apart(list(group)))


def _place(tensor: TensorReport) -> tuple[Any, ...]:
    tensor_key = (natural_key(tensor.tensor), tensor.tensor)
    return (natural_key(tensor.file), tensor.file, tensor.origin, *tensor_key, tensor.judged_in)


def _told_apart(group: list[TensorReport]) -> list[TensorReport]:
    """Two reports on one tensor, in an order of their own, so that adding is order-free even for them."""
    if len(group) == 1:
        return group
    return sorted(group, key=lambda tensor: json.dumps(encode(tensor), sort_keys=True))


def _part_key(part: NotLookedAt) -> tuple[Any, ...]:
    return (natural_key(part.file), part.file, part.what)


def _code_key(code: NotRun) -> tuple[Any, ...]:
    return (natural_key(code.file), code.file, code.name)


def _error_key(error: ReadError) -> tuple[Any, ...]:
    return (natural_key(error.file), error.file, error.origin, error.message, error.hint)


_VARIOUS = "various"


def _common(one: Mapping[str, Any], two: Mapping[str, Any]) -> Mapping[str, Any]:
    """Options on which both agree; "various" where they differ. The empty mapping is neutral."""
    if not one or not two or one is two:
        return one or two
    return {name: _agreed(one.get(name), two.get(name)) for name in sorted({*one, *two})}


def _agreed(one: Any, two: Any) -> Any:
    # As JSON: a tuple of a fresh report and the list of one read again are the same, 1 and True are not.
    return one if json.dumps(encode(one)) == json.dumps(encode(two)) else _VARIOUS
