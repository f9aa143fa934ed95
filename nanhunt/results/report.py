"""What was found: frozen results that renderers only read, that add up with ``+``, and that survive JSON.

Standard library only, so that ``nanhunt report`` needs neither torch nor numpy.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nanhunt.literal import literal_json
from nanhunt.results.codec import decode, encode, written

FORMAT_VERSION = 2


class Severity(enum.StrEnum):
    """How bad a finding is; ``rank`` orders them."""

    NOTE = "note"
    """Silent or near: nothing is infinite or NaN, yet the numbers are wrong or about to be."""
    WARNING = "warning"
    """What people write first breaks; PyTorch's own call for it does not."""
    ERROR = "error"
    """Even PyTorch's own is broken, or the input is."""

    @property
    def rank(self) -> int:
        """0 for note, 1 for warning, 2 for error."""
        return list(Severity).index(self)


class ExitCode(enum.IntEnum):
    """The process's answer to a pipeline."""

    CLEAN = 0
    """Nothing at or above ``--fail-on``."""
    FINDINGS = 1
    """At least one finding at or above ``--fail-on``."""
    ERROR = 2
    """Something could not be read, or the call was wrong."""


INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: 128 and the number of SIGINT."""


@dataclass(frozen=True)
class RemedyResult:
    """A remedy as it was run on the failing rows."""

    title: str
    snippet: str
    """Code to paste."""
    works: bool
    """Whether no row was bad afterwards."""
    rows: int
    """How many failing rows it was run on (at most 1,000)."""
    bad_rows_after: int
    max_loss_error: float | None
    """Largest absolute difference from the true loss: of those rows together, and of the first ones alone.
    0 where it is within the rounding bound, 64 u max(1, |loss|, ln classes): what is left then is a processor's.

    None when it has no loss."""
    outcome: str = ""
    """What is still wrong where it does not work: "loss still NaN", "loss finite but wrong", "gradient 0"."""
    changes: str = ""
    """How its objective differs from the user's; "" if it does not."""


@dataclass(frozen=True)
class Finding:
    """One rule that holds for some rows (or, in a tensor that is not logits, some values)."""

    code: str
    name: str
    severity: Severity
    count: int
    """Rows (values, for role "values") for which the rule holds."""
    rows: tuple[int, ...]
    """The first ``--max-rows`` of them, as flat numbers over the leading dimensions, ascending."""
    message: str
    """The arithmetic of the first one: "row 1: max 1000 > 88.72, the largest x whose exp is finite in float32"."""
    remedies: tuple[RemedyResult, ...] = ()
    known: bool = False
    """Already in the ``--baseline`` report: shown, but it does not count for the exit code."""


@dataclass(frozen=True)
class Health:
    """Counts over all values; extremes over the finite ones. None: check did not need to count it."""

    nan: int | None
    posinf: int | None
    neginf: int | None
    zero: int | None
    subnormal: int | None
    min: float | None
    max: float | None


@dataclass(frozen=True)
class Targets:
    """Where the labels came from."""

    source: str
    """"labels.npy", "dump.npz:targets", "argument"."""
    ignored: int
    """Rows whose label is ``--ignore-index``."""


@dataclass(frozen=True)
class Implementation:
    """What one way of writing the loss does over all rows, executed in ``TensorReport.dtype``."""

    loss: float | None
    """Under the chosen reduction, from row losses accumulated in float64. None where not computed."""
    nan_probability_rows: int | None = None
    """The next five are about rows of classes: None for other operations."""
    zero_target_probability_rows: int | None = None
    """None without targets in ``check``."""
    inf_loss_rows: int | None = None
    nan_loss_rows: int | None = None
    nonfinite_gradient_rows: int | None = None
    max_loss_error: float | None = None
    """Largest absolute row loss error against truth over rows where both are finite."""
    bad_value_rows: int | None = None
    """Units (rows, values) whose value is NaN or infinite; this and the next three for every operation."""
    bad_gradient_rows: int | None = None
    wrong_rows: int | None = None
    """Units whose value is finite and further from the truth than its rounding bound."""
    max_error: float | None = None
    """Largest absolute error of a value where it and its truth are finite."""


@dataclass(frozen=True)
class Truth:
    """The float64 reference, computed from the logits as cast to ``TensorReport.dtype``."""

    loss: float | None
    cast_loss_error: float | None = None
    """Largest absolute change of a true row loss made by casting the logits alone; None: no cast."""


@dataclass(frozen=True)
class Histogram:
    """Values by power of two: bin k counts values with 2**e <= |x| < 2**(e+1), e = first_exponent + k."""

    first_exponent: int
    positive: tuple[int, ...]
    negative: tuple[int, ...]
    """Same length as ``positive``."""
    zero: int
    nonfinite: int
    counted: int
    """Values looked at; less than ``total`` when the file is large and blocks of it were sampled."""
    total: int


@dataclass(frozen=True)
class RowBin:
    """A run of consecutive rows in the strip of all rows."""

    first: int
    last: int
    """Inclusive."""
    max: float | None
    """Largest logit in the stored dtype (NaN ignored); None if there is none."""
    causes: tuple[tuple[str, int], ...]
    """(rule code, rows whose cause it is), in rule order; healthy rows are the rest."""


@dataclass(frozen=True)
class RowView:
    """What one implementation (or "truth") does with one row, at the classes of the ``WorstRow``."""

    name: str
    loss: float | None
    probabilities: tuple[float, ...]
    gradient: tuple[float, ...]


@dataclass(frozen=True)
class WorstRow:
    """One of the first rows of a finding, looked at closely."""

    row: int
    cause: str
    """Rule code."""
    max: float | None
    label: int | None
    classes: tuple[int, ...]
    """A few classes worth showing: label, largest, smallest."""
    logits: tuple[float, ...]
    """At those classes, as cast to the dtype."""
    views: tuple[RowView, ...]


@dataclass(frozen=True)
class TensorReport:
    """Everything found about one tensor in one dtype: a judgement."""

    file: str
    tensor: str
    """Name inside the file; "" for a file that holds one unnamed tensor."""
    role: str
    """"logits", "values", or "operands" of another operation."""
    operation: str
    """What it was judged as, a name that --op takes; "values" for a tensor that only got a health check."""
    stored_dtype: str
    dtype: str
    """The dtype it was judged in."""
    shape: tuple[int, ...]
    rows: int
    classes: int
    targets: Targets | None
    health: Health
    implementations: Mapping[str, Implementation]
    """By the operation's names for its ways of writing it, in its order; empty for role "values"."""
    truth: Truth | None
    findings: tuple[Finding, ...]
    """By code."""
    affected_rows: int = 0
    """Rows (values, for role "values") with at least one finding."""
    class_axis: int = -1
    notes: tuple[str, ...] = ()
    """Things the reader must know: "float8 has no arithmetic: judged upcast to float32"."""
    histogram: Histogram | None = None
    strip: tuple[RowBin, ...] = ()
    worst_rows: tuple[WorstRow, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    """Role to "file:name", for operations of several tensors."""
    unit: str = "row"
    """What ``rows`` counts: "row", "value"."""
    unit_shape: tuple[int, ...] | None = None
    """Shape over which units are numbered; None: that of the logits without the class axis."""
    fused_call: str = ""
    """What a user calls who does it right; "" where nothing is called."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Those it was judged under, settings of its own path included; ``fail_on`` among them decides."""
    coordinates: Mapping[str, int | str] = field(default_factory=dict)
    """Where it stands in a run, as far as its names say: {"step": 20, "rank": 0, "layer": 3, "phase": "model"}."""
    origin: str = ""
    """The saved report that it comes from, where several reports have a tensor of that name; else ""."""
    scaling: str = "none"
    """How float8 was scaled before the cast: "tensor", "block" or "none"."""

    @property
    def judged_in(self) -> str:
        """The dtype, and how numbers were scaled to it: "float8_e4m3fn scaled per tensor"."""
        return self.dtype if self.scaling == "none" else f"{self.dtype} scaled per {self.scaling}"

    @property
    def countable(self) -> bool:
        """Whether a count says it all: nothing was found, and no loss was computed to be looked at."""
        return not self.findings and self.truth is None


@dataclass(frozen=True)
class Healthy:
    """Judgements without a finding, counted by file: alike in everything but their names and numbers."""

    operation: str
    stored_dtype: str
    dtype: str
    options: Mapping[str, Any]
    notes: tuple[str, ...]
    files: Mapping[str, int]
    """Healthy tensors by file, files in natural order."""
    origin: str = ""
    """As in ``TensorReport``."""


@dataclass(frozen=True)
class Cell:
    """What is known of tensors without a finding that stand at one place of a run and are only counted."""

    at: Mapping[str, int | str]
    """Those of their coordinates that ``IN_CELLS`` names."""
    stored_dtype: str
    dtype: str
    tensors: int
    largest: float | None
    """The largest finite magnitude; None if it was not counted."""
    largest_of: str
    """The tensor that has it."""
    zeros: int
    values: int
    role: str = "values"
    """As in ``TensorReport``: what its largest magnitude must not exceed depends on it."""
    origin: str = ""
    """As in ``TensorReport``."""


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


IN_CELLS = ("run", "path", "step", "epoch", "rank", "dp", "tp", "pp", "ep", "layer", "phase")


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
class Report:
    """The result of one run, or of several added together."""

    options: Mapping[str, Any] = field(default_factory=dict)
    tensors: tuple[TensorReport, ...] = ()
    errors: tuple[ReadError, ...] = ()
    exit_code: int = 0
    healthy: tuple[Healthy, ...] = ()
    """Judgements that are only counted, as in a saved report; none of them is in ``tensors``."""
    not_looked_at: tuple[NotLookedAt, ...] = ()
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
            healthy=_together((*self.healthy, *map(_counted, healthy))),
            cells=_added((*self.cells, *cells_of(healthy))),
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
        healthy=_together(group for report in reports for group in report.healthy),
        not_looked_at=tuple(
            sorted({each for report in reports for each in report.not_looked_at}, key=_part_key)
        ),
        cells=_added(cell for report in reports for cell in report.cells),
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


def cells_of(tensors: Iterable[TensorReport]) -> Iterable[Cell]:
    """Each of these tensors as a cell of its own, if it is part of a run."""
    return (_cell(tensor) for tensor in tensors if "run" in tensor.coordinates)


def _cell(tensor: TensorReport) -> Cell:
    at = {name: tensor.coordinates[name] for name in IN_CELLS if name in tensor.coordinates}
    health = tensor.health
    ends = [abs(end) for end in (health.min, health.max) if end is not None]
    return Cell(
        at, tensor.stored_dtype, tensor.dtype, 1, max(ends, default=None), tensor.tensor or tensor.file,
        health.zero or 0, math.prod(tensor.shape), tensor.role, tensor.origin,
    )  # fmt: skip


def _added(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """One cell for each place, in one total order."""
    found: dict[tuple[Any, ...], Cell] = {}
    for cell in cells:
        key = (
            cell.origin,
            cell.role,
            cell.stored_dtype,
            cell.dtype,
            *(cell.at.get(name) for name in IN_CELLS),
        )
        found[key] = _sum(found[key], cell) if key in found else cell
    return tuple(found[key] for key in sorted(found, key=_cell_key))


def _cell_key(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((part is None, part if isinstance(part, int) else natural_key(str(part))) for part in key)


def _sum(one: Cell, other: Cell) -> Cell:
    # Of equals the one with the smaller name, so that adding is order-free.
    first, second = sorted((one, other), key=lambda cell: (-(cell.largest or 0), cell.largest_of))
    return dataclasses.replace(
        first,
        largest=second.largest if first.largest is None else first.largest,
        tensors=one.tensors + other.tensors,
        zeros=one.zeros + other.zeros,
        values=one.values + other.values,
    )


def _counted(tensor: TensorReport) -> Healthy:
    return Healthy(
        tensor.operation, tensor.stored_dtype, tensor.dtype, tensor.options, tensor.notes, {tensor.file: 1},
        tensor.origin,
    )  # fmt: skip


def _together(groups: Iterable[Healthy]) -> tuple[Healthy, ...]:
    """One group for all that are alike, in one total order."""
    texts: dict[int, str] = {}  # thousands of tensors share one mapping of options
    found: dict[tuple[str, ...], tuple[Healthy, Counter[str]]] = {}
    for group in groups:
        options = texts.get(id(group.options))
        if options is None:
            options = texts[id(group.options)] = json.dumps(encode(group.options), sort_keys=True)
        key = (group.origin, group.operation, group.stored_dtype, group.dtype, options, *group.notes)
        found.setdefault(key, (group, Counter()))[1].update(group.files)
    return tuple(
        dataclasses.replace(group, files={file: files[file] for file in sorted(files, key=_file_key)})
        for _, (group, files) in sorted(found.items(), key=lambda item: item[0])
    )


def _file_key(file: str) -> tuple[Any, ...]:
    return (natural_key(file), file)


@functools.lru_cache(maxsize=1 << 16)
def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts step-2 before step-10."""
    parts = re.split("0*([0-9]+)", text)
    # Of two numbers the longer one is larger, which needs no int() and its limit of 4,300 digits.
    return tuple((1, 0, part) if index % 2 == 0 else (0, len(part), part) for index, part in enumerate(parts))


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
