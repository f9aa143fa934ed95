"""In words: what was understood of a run's layout, and where in it the trouble began."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nanhunt.render import phrases
from nanhunt.results.finding import Severity
from nanhunt.results.series import Began, First, Moment, Run, spans, where

OWN = 4
"""Ranks whose own first is told."""
_MADE = {
    "producer": "Its inputs are finite: it was made here.",
    "propagator": "An input of it is bad already: it was made earlier, by what was not dumped.",
    "": "",
}


def understood(run: Run) -> str:
    """E.g. "2 ranks, steps 9-10, 24 layers; order: step, layer"."""
    parts = [phrases.plural(len(run.ranks), "rank")] if len(run.ranks) > 1 else []
    parts += [_steps(run)] if run.unit else []
    parts += [phrases.plural(run.layers, "layer")] if run.layers else []
    order = [run.unit, "call" if run.ordered else "", "layer" if run.layers else ""]
    name = f"{run.name}: " if run.name else ""
    return f"{name}{', '.join(parts)}; order: {', '.join(filter(None, order))}"


def _steps(run: Run) -> str:
    steps = [moment.step for moment in run.moments if moment.step is not None]
    if len(steps) == 1:
        return f"{run.unit} {steps[0]}"
    if steps[-1] - steps[0] == len(steps) - 1:
        return f"{run.unit}s {steps[0]}-{steps[-1]}"
    return f"{phrases.count(len(steps))} {run.unit}s from {steps[0]} to {steps[-1]}"


def sentences(run: Run) -> list[str]:
    """Where it began, what was clean before and what is bad since, and what never moved; empty where nothing is bad."""
    began = run.began
    if began is None:
        return [*_untrained(run)]
    return [
        *_checkpoints(run, began), *_beginning(run, began), *_ranks(run, began), *_log(run), *_untrained(run)
    ]  # fmt: skip


def _untrained(run: Run) -> Iterator[str]:
    """E.g. "never trained: q_proj.lora_B.weight and 3 more are 0 at all 5 steps: no gradient reached them"."""
    if run.untrained:
        first, *more = run.untrained
        names = f"{first} and {phrases.count(len(more))} more are" if more else f"{first} is"
        them = "them" if more else "it"
        steps = phrases.plural(len(run.moments), run.unit)
        yield f"never trained: {names} 0 at all {steps}: no gradient reached {them}"


def _checkpoints(run: Run, began: Began) -> Iterator[str]:
    if not run.is_checkpoints or len(run.moments) < 2 or began.severity is not Severity.ERROR:
        return
    good = began.clean.path or _at(run, began.clean) if began.clean else "none"
    counts = ", ".join(
        f"{phase or 'other'} {phrases.count(tally.bad)} of {phrases.count(tally.tensors)}"
        for phase, tally in sorted(began.moment.by_phase.items())
        if tally.bad
    )
    yield f"last good: {good}, first bad: {began.moment.path or _at(run, began.moment)} ({counts} tensors)"


def _beginning(run: Run, began: Began) -> Iterator[str]:
    word = "bad" if began.severity is Severity.ERROR else "warning"
    yield f"first {word}: {_told(run, began.first, began.tied)}"
    parts = [f"clean at {_at(run, began.clean)}"] if began.clean else []
    parts += [_spread(run, began)]
    if any(parts):
        yield "; ".join(filter(None, parts))
    if _MADE[began.made]:
        yield _MADE[began.made]
    elif run.called:
        yield "Whether the inputs of that call were finite is not known: this is the earliest that is seen."


def _told(run: Run, first: First, tied: bool = False) -> str:
    """E.g. "step 1200, rank 3, layers.7.q_proj.weight: 12 NaN of 64 values, the first at [3, 17]"."""
    when = "" if first.step is None else f"{run.unit} {first.step}"
    who = _who(first.ranks, tied)
    place = ", ".join(filter(None, (when, who, where(first.tensor))))
    return f"{place}: {first.finding.message}"


def _who(ranks: Sequence[str], tied: bool) -> str:
    if tied:
        return f"the same point on ranks {spans(ranks)}"
    if not ranks:
        return ""
    return f"rank {ranks[0]}" if ranks[0].isdigit() else ranks[0]


def _spread(run: Run, began: Began) -> str:
    """E.g. "41 of 148 tensors bad at step 1200, all at step 1300"; nothing where there is one tensor a step."""
    if began.moment.tensors == 1:
        return ""
    here = f"{phrases.count(began.moment.bad)} of {phrases.plural(began.moment.tensors, 'tensor')} bad"
    if began.moment.step is None:
        return here
    told = f"{here} at {_at(run, began.moment)}"
    return f"{told}, {_share(began.later[0])} at {_at(run, began.later[0])}" if began.later else told


def _share(moment: Moment) -> str:
    if moment.bad == 0:
        return "none"
    if moment.bad == moment.tensors - moment.counters:
        return "all but step counters" if moment.counters else "all"
    return f"{phrases.count(moment.bad)} of {phrases.count(moment.tensors)}"


def _at(run: Run, moment: Moment) -> str:
    return "the end" if moment.step is None else f"{run.unit} {moment.step}"


def _ranks(run: Run, began: Began) -> Iterator[str]:
    """Each rank's own first, where they are not all alike and it is not the one that is told already."""
    told = began.first
    own = [
        first
        for first in began.own
        if not ({*first.ranks} <= {*told.ranks} and _place(first) == _place(told))
    ]
    for first in own[:OWN]:
        yield f"own first of {_who(first.ranks, tied=False)}: {_told(run, replace(first, ranks=()))}"
    if len(own) > OWN:
        yield f"and of {phrases.plural(len(own) - OWN, 'more rank')}"


def _place(first: First) -> tuple[int | None, str]:
    return first.step, where(first.tensor)


def _log(run: Run) -> Iterator[str]:
    """E.g. "trainer_state.json says: loss 6.04 at step 20, 6.01 at step 25, nan at step 30"."""
    for logged in run.logged:
        *_, last = logged.values
        told = ", ".join(
            f"{phrases.number(value)} at step {step}"
            for step, value in zip(logged.steps, logged.values, strict=True)
        )
        file = logged.file.rpartition("/")[2]
        if math.isfinite(last) and logged.name == "loss":
            told += ", always finite: the Trainer leaves NaN out of it unless logging_nan_inf_filter=False"
        if not math.isfinite(last) or logged.name == "loss":
            yield f"{file} says: {logged.name} {told}"
