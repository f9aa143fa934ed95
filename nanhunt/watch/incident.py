"""What the hunt brings home: frozen, without tensors, so that it can be printed, written and compared."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from nanhunt.results.finding import RemedyResult

from .numbers import Numbers
from .site import Site


class Phase(enum.StrEnum):
    """When the first bad value came to be."""

    INPUT = "input"
    """It was in a tensor that no operation of the step made: the batch, a constant."""
    PARAMETER = "parameter"
    """It was in a parameter when the step began."""
    FORWARD = "forward"
    BACKWARD = "backward"
    OPTIMIZER = "optimizer"
    """The gradients were finite, the parameters were not afterwards."""


class FoundBy(enum.StrEnum):
    """Which of the looks found it, and with it how sure that is."""

    GRAPH = "graph"
    REPETITION = "repetition"
    WATCHING = "watching"
    NARROWED = "narrowed"
    NOTICED = "noticed"
    CONSEQUENCE = "consequence"
    REDUCED = "reduced"

    @property
    def is_sure(self) -> bool:
        """Whether the culprit was seen going bad."""
        return self not in (FoundBy.NARROWED, FoundBy.NOTICED)

    @property
    def certainty(self) -> str:
        """One sentence for the report."""
        return _CERTAINTY[self]


_CERTAINTY = {
    FoundBy.GRAPH: "read off the tensors of the failing step itself: certain",
    FoundBy.REPETITION: "the step was repeated from its inputs and random state and went bad in the same way",
    FoundBy.WATCHING: "every operation of the failing step was looked at while it ran: certain",
    FoundBy.NARROWED: "read off what the autograd graph kept: it is this operation or one that feeds it",
    FoundBy.REDUCED: "the step was repeated on this rank alone, and is finite there: certain",
    FoundBy.CONSEQUENCE: "the parameters themselves were looked at: certain",
    FoundBy.NOTICED: "this is where it was noticed; where it began could not be seen",
}


@dataclass(frozen=True)
class Culprit:
    """One operation that made NaN or infinity out of finite numbers (or the tensor that brought it in)."""

    operation: str
    """As the user wrote it: "exp", "cross_entropy"; for inputs the tensor's name."""
    phase: Phase
    site: Site | None
    module: str
    """Dotted path and class of the running module, "" outside of modules."""
    detail: str
    """The low-level operation inside a composite one; "" where it is the same."""
    out: Numbers | None
    inputs: tuple[Numbers, ...]
    reason: str
    """The arithmetic: "max 95.3 > 88.7228, the largest x whose exp is finite in float32"."""
    rule: str | None
    """Code in the catalogue; None where no rule is about it."""
    name: str
    """The rule's name, or of the fault: "division-by-zero"."""
    fix: str
    tensor_names: tuple[str, ...] = ()
    """Parameters or variables concerned."""
    own: Site | None = None
    """Where ``site`` is in an installed package: the innermost line of the user's own that led there."""


@dataclass(frozen=True)
class Proof:
    """What came out when the step was repeated with a repair in place."""

    loss: float
    gradients: int
    """How many inputs of the step had a gradient."""
    finite_gradients: int
    compared: int
    """Values of the step's forward and of its gradients that were finite before."""
    changed: int
    """Of those, how many are others now: beyond rounding, and not towards what the step gives in float64."""
    largest_change: float
    """Relative to the scale of its tensor, over all compared."""

    @property
    def sound(self) -> bool:
        """Whether the loss and every gradient are finite."""
        return math.isfinite(self.loss) and self.finite_gradients == self.gradients


@dataclass(frozen=True)
class Patch:
    """A repair that the repeated step has proven."""

    title: str
    """In the imperative."""
    proof: Proof
    diff: str
    """Unified, for ``git apply``; "" where no edit of the user's file is safe."""
    snippet: str = ""
    """The new expressions, where there is no diff."""
    why_no_diff: str = ""
    bends: str = ""
    """How the objective differs from the user's; "" where it is the same in exact arithmetic."""


@dataclass(frozen=True)
class Tried:
    """A repair, or a popular fix, that was run on the repeated step and does not hold."""

    title: str
    outcome: str
    """What is still wrong: "12 of 148 gradients still not finite"."""


@dataclass(frozen=True)
class Link:
    """A later operation that the bad values went through."""

    operation: str
    site: Site
    kind: str
    """"NaN", "inf", "-inf"."""


@dataclass(frozen=True)
class Term:
    """One summand of the loss."""

    name: str
    value: float


@dataclass(frozen=True)
class Incident:
    """One step that went bad."""

    step: int
    what: str
    """"the loss is nan", "the gradient of head.weight is nan"."""
    noticed: Site | None
    culprits: tuple[Culprit, ...]
    """In the order they ran."""
    chain: tuple[Link, ...]
    terms: tuple[Term, ...]
    bad_gradients: tuple[str, ...]
    """Names of parameters, those whose gradient went bad first in front."""
    parameters: int
    """How many parameters had a gradient."""
    found_by: FoundBy
    notes: tuple[str, ...] = ()
    rank: int | None = None
    process: str = ""
    """Name of the child process it happened in; "" in the first."""
    remedies: tuple[RemedyResult, ...] = ()
    patch: Patch | None = None
    not_code: str = ""
    """Where code is not the cause: what shows that; "" where it is, or nothing is known."""
    tried: tuple[Tried, ...] = ()
    """Repairs that do not hold."""
    capture: str | None = None
    """Path of the file written."""
    closer: str | None = None
    """The command that judges that file, where it says the same."""
    replay: str | None = None
    """Path of the saved step, which ``nanhunt run --replay`` repeats."""
    not_saved: str = ""
    """Why there is none."""

    def __str__(self) -> str:
        """The report, as ``nanhunt run`` prints it: what an experiment tracker should log."""
        from .message import incident_text  # which reads incidents

        return incident_text(self)
