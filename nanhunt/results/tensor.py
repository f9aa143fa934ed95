"""What was found about one tensor in one dtype."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nanhunt.results.finding import Finding


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
    bits: int | None = None
    """Sum of the stored bits as 32-bit words, mod 2**32: the same for the same values, and hardly for any others."""


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
    """Units (rows, values) whose value is NaN or infinite and its truth is not; this and the next three for every
    operation, but None for cross entropy in ``check`` where its bounds leave them open."""
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
    """By the operation's names for its ways of writing it, in its order; of a check only those that its rules ask for.

    Empty for role "values".
    """
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
