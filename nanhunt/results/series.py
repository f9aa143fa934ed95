"""Where in a run its tensors went bad: by step, then phase, then call or layer, and only then by rank.

Steps can be compared between ranks; inside a step only calls of one rank are in an order. Everything here is worked
out from the tensors and cells of a report, so that it is the same for a report that was added up from several.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from nanhunt.results.finding import Finding, Severity
from nanhunt.results.order import natural_key
from nanhunt.results.report import Logged, Report
from nanhunt.results.tensor import TensorReport

RANKS = ("rank", "dp", "tp", "pp", "ep")
COUNTER = "counter"
"""Phase of an optimizer's step counters, which do not go bad with the rest."""
ZERO_ADAPTER = "adapter-is-zero"
"""Name of the rule that says so of one checkpoint."""
PHASES = {"forward": 0, "backward": 1, "optimizer": 2, "model": 2, COUNTER: 2}
"""In their order; a checkpoint holds weights and optimizer state of one moment."""
_LEVELS = (Severity.ERROR, Severity.WARNING)
_BEFORE_LAYERS = ("embed", "wte", "wpe", "tok_")
_AFTER_LAYERS = 1 << 62

Call = tuple[object, ...]


@dataclass(frozen=True)
class Tally:
    """Tensors of one phase at one moment."""

    bad: int
    tensors: int


@dataclass(frozen=True)
class Moment:
    """All that was read of one step."""

    step: int | None
    path: str
    """Its folder or file; "" where there are several, one a rank."""
    by_phase: Mapping[str, Tally]
    unread: bool = False
    """Whether a file of it could not be read, so that it cannot be called good."""

    @property
    def bad(self) -> int:
        """Tensors of all phases that are bad."""
        return sum(tally.bad for tally in self.by_phase.values())

    @property
    def tensors(self) -> int:
        """Tensors of all phases."""
        return sum(tally.tensors for tally in self.by_phase.values())

    @property
    def counters(self) -> int:
        """Step counters of an optimizer among them."""
        return self.by_phase[COUNTER].tensors if COUNTER in self.by_phase else 0


@dataclass(frozen=True)
class First:
    """The first tensor of a rank, or of all ranks, that is bad."""

    step: int | None
    ranks: tuple[str, ...]
    """Those at which it is; none where ranks are not known."""
    tensor: TensorReport
    finding: Finding


@dataclass(frozen=True)
class Began:
    """Where it began in one run."""

    severity: Severity
    """What is looked for: errors, or warnings where there are no errors."""
    first: First
    tied: bool
    """Whether other ranks were at the same point, or at one that cannot be compared, in that step."""
    own: tuple[First, ...]
    """Each rank's own first, where they differ."""
    moment: Moment
    """The first bad step."""
    clean: Moment | None
    """The last step before it that was read in full and in which nothing is bad."""
    later: tuple[Moment, ...]
    """The steps after it."""
    made: str
    """Whether its inputs were finite: "producer", "propagator" or, where they were not dumped, ""."""


@dataclass(frozen=True)
class Run:
    """One run: tensors whose paths begin alike, up to where they say at which step or rank they were written."""

    name: str
    """The folder around it."""
    origin: str
    unit: str
    """What counts its moments: "step" or "epoch"; "" where nothing does."""
    ranks: tuple[str, ...]
    layers: int
    called: bool
    """Whether tensors say in which call they were made, or on which side of one they stand."""
    ordered: bool
    """Whether they say in which order calls were made."""
    moments: tuple[Moment, ...]
    """In order."""
    began: Began | None
    logged: tuple[Logged, ...] = ()
    """What the trainer says of it."""
    untrained: tuple[str, ...] = ()
    """Adapters that are 0 at every one of several steps, by name."""

    @property
    def is_checkpoints(self) -> bool:
        """Whether it holds weights or optimizer state, and nothing that is made anew in every step."""
        phases = {phase for moment in self.moments for phase in moment.by_phase}
        return bool(phases & {"model", "optimizer"}) and not phases & {"forward", "backward"}


@dataclass(frozen=True)
class Beginning:
    """Where it began in one run, as saved reports tell it to programs."""

    run: str
    """The folder around it."""
    origin: str
    severity: Severity
    unit: str
    """What counts its moments: "step" or "epoch"."""
    step: int | None
    ranks: tuple[str, ...]
    same_point: bool
    """Whether those ranks went bad at the same point, or at points that cannot be compared."""
    file: str
    tensor: str
    code: str
    message: str
    bad_tensors: int
    """At that step."""
    tensors: int
    """At that step."""
    path: str
    """The folder or file of that step; "" where there are several."""
    clean_step: int | None
    """The last step before it in which nothing is bad."""
    clean_path: str
    made: str
    """"producer" where its inputs were dumped and finite, "propagator" where one was not, else ""."""


def beginnings(report: Report) -> tuple[Beginning, ...]:
    """Of every run in which something is bad."""
    return tuple(_beginning(run, run.began) for run in runs(report) if run.began)


def _beginning(run: Run, began: Began) -> Beginning:
    first, moment, clean = began.first, began.moment, began.clean
    return Beginning(
        run.name, run.origin, began.severity, run.unit, first.step, first.ranks, began.tied, first.tensor.file,
        first.tensor.tensor, first.finding.code, first.finding.message, moment.bad, moment.tensors, moment.path,
        clean.step if clean else None, clean.path if clean else "", began.made,
    )  # fmt: skip


def runs(report: Report) -> list[Run]:
    """The runs of a report with more than one step, rank or call, in natural order of their names."""
    found: dict[tuple[str, str], _Parts] = {}
    unread = tuple(error.file for error in report.errors)
    for tensor in report.tensors:
        at = tensor.coordinates
        if "run" in at:
            key = (tensor.origin, str(at["run"]))
            parts = found.setdefault(key, _Parts(*key, unread))
            parts.tensors.append(tensor)
            parts.count(at, tensor.stored_dtype, tensor.dtype, 1)
    for cell in report.cells:
        key = (cell.origin, str(cell.at["run"]))
        found.setdefault(key, _Parts(*key, unread)).count(
            cell.at, cell.stored_dtype, cell.dtype, cell.tensors
        )
    ordered = sorted(found.items(), key=lambda item: (item[0][0], natural_key(item[0][1])))
    made = [
        replace(parts.run(), logged=tuple(each for each in report.logged if (each.origin, each.run) == key))
        for key, parts in ordered
    ]
    return [run for run in made if len(run.moments) > 1 or len(run.ranks) > 1 or run.called]


@dataclass
class _Parts:
    """One run while it is put together."""

    origin: str
    name: str
    unread: tuple[str, ...] = ()
    """Files that could not be read, of any run."""
    tensors: list[TensorReport] = field(default_factory=list)
    _counts: dict[tuple[object, ...], int] = field(default_factory=dict)
    _places: dict[int | None, set[str]] = field(default_factory=dict)
    _ranks: set[str] = field(default_factory=set)
    _layers: set[object] = field(default_factory=set)
    _epochs: bool = True

    def count(self, at: Mapping[str, int | str], stored: str, dtype: str, tensors: int) -> None:
        """So many tensors at one place. Those of one dtype judged in several are counted once for each."""
        step, phase = at.get("step", at.get("epoch")), at.get("phase", "")
        self._epochs = self._epochs and "step" not in at
        rank = rank_of(at)
        key = (step, phase, rank, at.get("layer"), stored, dtype)
        self._counts[key] = self._counts.get(key, 0) + tensors
        self._places.setdefault(_number(step), set()).add(str(at.get("path", "")))
        self._ranks.update(filter(None, [rank]))
        self._layers.update({at.get("layer")} - {None})

    def run(self) -> Run:
        """All of it."""
        moments = tuple(self._moments())
        steps = any(moment.step is not None for moment in moments)
        called = any({"order", "side"} & tensor.coordinates.keys() for tensor in self.tensors)
        ordered = any("order" in tensor.coordinates for tensor in self.tensors)
        ranks = tuple(sorted(_whole(self._ranks), key=natural_key))
        unit = ("epoch" if self._epochs else "step") if steps else ""
        return Run(
            self.name,
            self.origin,
            unit,
            ranks,
            len(self._layers),
            called,
            ordered,
            moments,
            self._began(moments),
            untrained=tuple(self._untrained(moments)),
        )

    def _untrained(self, moments: Sequence[Moment]) -> Iterator[str]:
        """A fresh adapter is 0 and one of a run is not: tensors that are told to be at each of its steps."""
        told: dict[str, set[int | None]] = {}
        for tensor in self.tensors:
            if any(finding.name == ZERO_ADAPTER for finding in tensor.findings):
                told.setdefault(tensor.tensor, set()).add(step_of(tensor))
        steps = {moment.step for moment in moments}
        yield from (name for name, seen in told.items() if len(steps) > 1 and seen == steps)

    @cached_property
    def _severity(self) -> Severity | None:
        found = {each.severity for tensor in self.tensors for each in tensor.findings if not each.known}
        return next((level for level in _LEVELS if level in found), None)

    @cached_property
    def _bad(self) -> list[TensorReport]:
        return [tensor for tensor in self.tensors if _finding(tensor, self._severity)]

    def _moments(self) -> Iterator[Moment]:
        bad: dict[tuple[int | None, str], set[tuple[str, str]]] = {}
        for tensor in self._bad:
            key = (step_of(tensor), str(tensor.coordinates.get("phase", "")))
            bad.setdefault(key, set()).add((tensor.file, tensor.tensor))
        totals: dict[tuple[int | None, str], int] = {}
        for (step, phase, *_), number in self._judged_once().items():
            totals[_number(step), str(phase)] = totals.get((_number(step), str(phase)), 0) + number
        for step in sorted({step for step, _ in totals}, key=_time):
            places = self._places[step]
            phases = {
                phase: Tally(len(bad.get((at, phase), ())), number)
                for (at, phase), number in sorted(totals.items(), key=lambda item: item[0][1])
                if at == step
            }
            marks = tuple(f"{place}{end}" for place in places for end in ("/", ":"))
            unread = any(f"{file}:".startswith(marks) for file in self.unread)
            yield Moment(step, places.copy().pop() if len(places) == 1 else "", phases, unread)

    def _judged_once(self) -> dict[tuple[object, ...], int]:
        """Tensors by place and stored dtype, of the most judgements in one dtype."""
        found: dict[tuple[object, ...], int] = {}
        for (*place, _), number in self._counts.items():
            found[tuple(place)] = max(found.get(tuple(place), 0), number)
        return found

    def _began(self, moments: tuple[Moment, ...]) -> Began | None:
        if self._severity is None or not self._bad:
            return None
        step = min((step_of(tensor) for tensor in self._bad), key=_time)
        then = [tensor for tensor in self._bad if step_of(tensor) == step]
        first, tied = _first(then, self._severity)
        at = next(index for index, moment in enumerate(moments) if moment.step == step)
        return Began(
            self._severity, first, tied, tuple(self._own_firsts()), moments[at],
            next((moment for moment in reversed(moments[:at]) if not moment.bad and not moment.unread), None),
            moments[at + 1 :], _made(first.tensor, self.tensors, self._severity),
        )  # fmt: skip

    def _own_firsts(self) -> Iterator[First]:
        """Of each rank, in order, unless all are at the same point."""
        by_rank: dict[str, list[TensorReport]] = {}
        for tensor in self._bad:
            by_rank.setdefault(rank_of(tensor.coordinates), []).append(tensor)
        firsts = {rank: min(tensors, key=_moment) for rank, tensors in by_rank.items()}
        if len({(_time(step_of(each)), call(each), where(each)) for each in firsts.values()}) < 2:
            return
        for rank, tensor in sorted(firsts.items(), key=lambda item: natural_key(item[0])):
            finding = _finding(tensor, self._severity)
            assert finding is not None  # it is one of those that are bad
            yield First(step_of(tensor), tuple(filter(None, [rank])), tensor, finding)


def _whole(ranks: Collection[str]) -> Iterator[str]:
    """Without those told by fewer dimensions: "tp 0", of a file that belongs to both "dp 0 tp 0" and "dp 1 tp 0"."""
    parts = {rank: set(re.findall(r"\S+ \d+", rank)) for rank in ranks}
    yield from (
        rank for rank in ranks if not any(parts[rank] and parts[rank] < more for more in parts.values())
    )


def _first(then: list[TensorReport], severity: Severity) -> tuple[First, bool]:
    """(the first of what is bad in one step, whether that is said of several ranks).

    Calls are in an order only where tensors say which call made them; weights go bad all in one update.
    """
    tensor = min(then, key=_moment)
    ordered = tensor.coordinates.get("phase") in ("forward", "backward") or "order" in tensor.coordinates
    rivals = [each for each in then if not ordered or call(each) == call(tensor)]
    ranks = sorted({rank_of(each.coordinates) for each in rivals} - {""}, key=natural_key)
    finding = _finding(tensor, severity)
    assert finding is not None  # it is one of those that are bad
    return First(step_of(tensor), tuple(ranks), tensor, finding), len(ranks) > 1


def _made(tensor: TensorReport, tensors: Iterable[TensorReport], severity: Severity) -> str:
    """Whether the call that gave ``tensor`` made what is bad in it, by its inputs."""
    at = tensor.coordinates
    if at.get("side") == "input":
        return "propagator"  # it was bad before
    call_of = ("run", "step", "epoch", "micro", *RANKS, "phase", "module")
    inputs = [
        other
        for other in tensors
        if other.coordinates.get("side") == "input" and "module" in at
        if all(other.coordinates.get(name) == at.get(name) for name in call_of)
    ]
    if not inputs:
        return ""
    return "propagator" if any(_finding(each, severity) for each in inputs) else "producer"


def _finding(tensor: TensorReport, severity: Severity | None) -> Finding | None:
    """Its first new finding of that severity."""
    found = (each for each in tensor.findings if each.severity is severity and not each.known)
    return next(found, None)


# ---------------------------------------------------------------------------------------------- order


def step_of(tensor: TensorReport) -> int | None:
    """Its step; its epoch where that is all that is known."""
    return _number(tensor.coordinates.get("step", tensor.coordinates.get("epoch")))


def rank_of(at: Mapping[str, int | str]) -> str:
    """What tells the process apart: "3", or "tp 0 pp 1" where ranks are told by dimension; "" for none."""
    if "rank" in at:
        return str(at["rank"])
    return " ".join(f"{name} {at[name]}" for name in RANKS if name in at)


def call(tensor: TensorReport) -> Call:
    """Sort key inside a step: micro-step, phase, call, layer (from the last one on in backward), inputs first."""
    at = tensor.coordinates
    phase = PHASES.get(str(at.get("phase", "")), 0)
    layer = _layer(tensor)
    return (
        at.get("micro", 0), phase, at.get("order", -1), -layer if phase == 1 else layer,
        at.get("side") != "input",
    )  # fmt: skip


def where(tensor: TensorReport) -> str:
    """What it is called: its layer, where its name does not say it; its name, the module that made it, or its file."""
    module = str(tensor.coordinates.get("module", ""))
    name = module or tensor.tensor or tensor.file
    layer = tensor.coordinates.get("layer")
    unsaid = layer is not None and not re.search(rf"(?<![0-9])0*{layer}(?![0-9])", name)
    side = str(tensor.coordinates.get("side", "")) if module else ""
    return " ".join(filter(None, (f"layer {layer}" * unsaid, name, side)))


def _layer(tensor: TensorReport) -> int:
    layer = tensor.coordinates.get("layer")
    if layer is not None:
        return int(layer)
    name = where(tensor).lower()
    return -1 if any(word in name for word in _BEFORE_LAYERS) else _AFTER_LAYERS


def _moment(tensor: TensorReport) -> tuple[object, ...]:
    """Weights are named before optimizer state, whose names say less."""
    phase = tensor.coordinates.get("phase", "")
    rank = natural_key(rank_of(tensor.coordinates))
    name = natural_key(where(tensor))
    return (_time(step_of(tensor)), call(tensor)[:2], phase == "optimizer", call(tensor), name, rank)


def _time(step: int | None) -> tuple[bool, int]:
    """What no step is known of comes last: it is the end of a run, or stands beside it."""
    return step is None, step or 0


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def spans(names: Collection[str]) -> str:
    """Ranks or steps in few words: "0-7", "0-3, 5", "tp 0 pp 0, tp 1 pp 0"."""
    numbers = sorted(int(name) for name in names if name.isdigit())
    if len(numbers) < len(names):
        return ", ".join(sorted(names, key=natural_key))
    stretches: list[list[int]] = []
    for number in numbers:
        if stretches and stretches[-1][-1] == number - 1:
            stretches[-1].append(number)
        else:
            stretches.append([number])
    return ", ".join(f"{each[0]}-{each[-1]}" if len(each) > 1 else str(each[0]) for each in stretches)
