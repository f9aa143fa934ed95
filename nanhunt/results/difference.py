"""What differs between two dumps: frozen results that renderers only read, and that survive JSON.

Standard library only, as ``results.report``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from nanhunt.literal import literal_json
from nanhunt.results.codec import decode, encode, written
from nanhunt.results.exit_code import ExitCode
from nanhunt.results.finding import Finding, Severity
from nanhunt.results.report import NotLookedAt, ReadError

FORMAT_VERSION = 1
Index = tuple[int, ...]
"""Of one value, a number a dimension; () in a tensor without dimensions."""


@dataclass(frozen=True)
class Extreme:
    """The largest difference of one kind, over values that are finite in both."""

    value: float
    at: Index
    """The first place where it is that large."""
    a: float
    b: float


@dataclass(frozen=True)
class KindChange:
    """Values of one kind in A that are of another kind in B."""

    a: str
    """"finite", "NaN", "+inf" or "-inf"."""
    b: str
    """The same; never what ``a`` is."""
    count: int
    at: tuple[Index, ...]
    """The first ``--max-rows`` of them, in C order."""


@dataclass(frozen=True)
class RowExtreme:
    """A largest number over rows of logits."""

    value: float
    row: int
    """Flat number over the leading dimensions."""


@dataclass(frozen=True)
class RowsDifference:
    """What the differences of logits mean for their softmax, row by row, in float64."""

    rows: int
    """Rows that were compared; those that hold NaN or +inf on either side, or nothing but -inf, are left out."""
    left_out: int
    mean_kl: float
    """Of KL(softmax(a) || softmax(b)), in nats; infinite where b excludes a class that a does not."""
    largest_kl: RowExtreme | None
    largest_kl_back: RowExtreme | None
    """Of KL(softmax(b) || softmax(a))."""
    top1_changed: int
    """Rows whose largest logit is of another class."""
    top1_rows: tuple[int, ...]
    """The first ``--max-rows`` of them."""
    largest_margin: RowExtreme | None
    """In A, of a row whose first class changed: its largest logit less A's logit of the class that is first in B."""
    top5_changed: int
    """Rows whose five largest logits are of another set of classes."""
    loss_a: float | None
    """Mean cross entropy of those rows under the labels of A; None without labels."""
    loss_b: float | None
    largest_loss_change: RowExtreme | None


@dataclass(frozen=True)
class TensorDifference:
    """One tensor of A and its partner in B."""

    file_a: str
    file_b: str
    a: str
    """Name in A's file; "" where it has none."""
    b: str
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    dtype_a: str
    dtype_b: str
    verdict: str
    """In words: "within rounding of bfloat16", "1 of 1,000,000 values differs", "different"."""
    grade: str
    """"identical" (bits), "equal" (numbers), "rounding", "isolated" (few values beyond rounding), "different"."""
    values: int = 0
    differing: int = 0
    """Values that are not the same number; NaN is the same as NaN, and -0 as 0."""
    first_differing: Index | None = None
    nonfinite_in_both: int = 0
    """Values that are the same kind of not finite on both sides."""
    changes: tuple[KindChange, ...] = ()
    """Values finite on one side alone, and infinities of another sign or against NaN."""
    rounding_dtype: str = ""
    """The format with fewer digits of the two, in whose units of the last place (ULP) differences are measured; ""
    where a side holds integers."""
    absolute: Extreme | None = None
    """|a - b|."""
    relative: Extreme | None = None
    """|a - b| / max(|a|, |b|)."""
    ulp: Extreme | None = None
    """|a - b| in steps of ``rounding_dtype`` at max(|a|, |b|)."""
    cosine: float | None = None
    """Of the angle between the two, over values finite in both."""
    beyond: int = 0
    """Values finite in both that differ by more than the tolerance."""
    first_beyond: Index | None = None
    rows: RowsDifference | None = None
    """For logits that differ."""
    findings: tuple[Finding, ...] = ()
    coordinates: Mapping[str, Any] = field(default_factory=dict)
    """Where A stands in a run, as in a ``TensorReport``: {"layer": 3, "step": 20}."""

    @property
    def label(self) -> str:
        """How messages name it: "ckpt.pt:model.head.weight"."""
        return f"{self.file_a}:{self.a}" if self.a else self.file_a


@dataclass(frozen=True)
class Unpaired:
    """A tensor that only one side has."""

    file: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    like: str = ""
    """A tensor of the same shape that is left over on the other side, if there is just one."""
    finding: Finding | None = None

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.file}:{self.name}" if self.name else self.file


@dataclass(frozen=True)
class Difference:
    """Two dumps compared."""

    a: str
    """What the user named."""
    b: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tensors: tuple[TensorDifference, ...] = ()
    """Pairs in the order of A: those that are not bit for bit equal, and, in a fresh one, those that are."""
    identical: int = 0
    """Pairs that are bit for bit equal and not in ``tensors``."""
    only_a: tuple[Unpaired, ...] = ()
    only_b: tuple[Unpaired, ...] = ()
    order: str = ""
    """What "first" means: "step, layer, name"."""
    pairing: tuple[str, ...] = ()
    """How names were brought together, beyond being the same."""
    renames: tuple[str, ...] = ()
    """--rename rules that would pair more, after those given; tried, not used."""
    renamed: int = 0
    """Tensors of A that would pair with these."""
    errors: tuple[ReadError, ...] = ()
    not_looked_at: tuple[NotLookedAt, ...] = ()
    exit_code: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing reached ``fail_on`` and everything could be read."""
        return self.exit_code == ExitCode.CLEAN

    as_html: ClassVar[Callable[[Difference], str] | None] = None
    """How Jupyter shows it; set by the interface above, since results know no renderer."""

    as_text: ClassVar[Callable[[Difference], str] | None] = None
    """What ``str`` and ``print`` show of it; set as ``as_html`` is."""

    def _repr_html_(self) -> str | None:
        return None if Difference.as_html is None else Difference.as_html(self)

    def __str__(self) -> str:
        """The text report: what ``print`` shows, and what an experiment tracker should log."""
        return repr(self) if Difference.as_text is None else Difference.as_text(self)

    def __repr__(self) -> str:
        """The verdict, and not a page of fields."""
        pairs = self.identical + len(self.tensors)
        apart = sum(each.grade in ("isolated", "different") for each in self.tensors)
        first = f", the first {self.first.label}: {self.first.verdict}" if self.first else ""
        alone = len(self.only_a) + len(self.only_b)
        more = f", {alone:,} without a partner" if alone else ""
        return f"<nanhunt.Difference: {apart:,} of {pairs:,} tensors differ{first}{more}, exit code {self.exit_code}>"

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All of them: of pairs in the order of A, then of tensors without a partner."""
        alone = (each.finding for each in (*self.only_a, *self.only_b))
        paired = (finding for tensor in self.tensors for finding in tensor.findings)
        return (*paired, *(finding for finding in alone if finding is not None))

    @property
    def first(self) -> TensorDifference | None:
        """Where A and B part: the first pair in the order of A with an error; None if there is none."""
        return next((each for each in self.tensors if _is_parted(each)), None)

    def fails(self, finding: Finding) -> bool:
        """Whether the finding is at or above ``--fail-on``."""
        wanted = str(self.options.get("fail_on", Severity.WARNING))
        return wanted != "never" and finding.severity.rank >= Severity(wanted).rank

    def decided(self) -> Difference:
        """The same with the exit code that its findings, its errors and ``--fail-on`` ask for."""
        failed = any(map(self.fails, self.findings))
        code = ExitCode.ERROR if self.errors else ExitCode.FINDINGS if failed else ExitCode.CLEAN
        return replace(self, exit_code=int(code))

    def counted(self) -> Difference:
        """The same with pairs that are bit for bit equal counted, not listed."""
        told = tuple(each for each in self.tensors if each.grade != "identical" or each.findings)
        return replace(self, tensors=told, identical=self.identical + len(self.tensors) - len(told))

    def to_json(self, indent: int | None = 2, *, verbose: bool = False) -> str:
        """Strictly valid JSON, as ``nanhunt schema diff`` describes it; non-finite numbers are texts."""
        shown = self if verbose else self.counted()
        body = {"diff_format_version": FORMAT_VERSION, **encode(shown)}
        return literal_json(written(body, indent) + "\n")

    @classmethod
    def from_json(cls, text: str) -> Difference:
        """The difference that ``to_json`` wrote. ValueError when it is not one, or of another version."""
        body = json.loads(text)
        if not isinstance(body, dict) or "diff_format_version" not in body:
            raise ValueError("not a nanhunt diff")
        if body["diff_format_version"] != FORMAT_VERSION:
            raise ValueError(f"diff format version {body['diff_format_version']!r}, not {FORMAT_VERSION}")
        try:
            found: Difference = decode(cls, body)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a whole nanhunt diff: {error}") from None
        return found


def _is_parted(tensor: TensorDifference) -> bool:
    return any(finding.severity is Severity.ERROR for finding in tensor.findings)
