"""The search for a repair: the proposals for a culprit are tried best first, until the repeated step is sound."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..incident import Patch, Proof, Tried
from ..names import Names
from ..observer import Observation
from ..second_look import CannotRepeat, Repetition, repeat
from ..step_graph import StepGraph
from ..story import Story
from ..tape import Entry, Tape
from .comparison import compare
from .edit import CannotEdit, diff, snippet
from .proof import Roots, Trial, attempt, differentiable, proof_of
from .proposals import proposals_for
from .regions import Opened, opened
from .rewrite import Proposal, Rewrite, by_order
from .spot import Spot
from .tempting import tempting

MAX_ROUNDS = 6
"""Culprits in a row that are mended: repairing one shows the next."""
MAX_TRIALS = 40
"""Repetitions in all."""


@dataclass
class Mending:
    """What the search has brought."""

    patch: Patch | None = None
    tried: list[Tried] = field(default_factory=list)


@dataclass
class Failing:
    """A step that repeats its fault, and who is to blame."""

    tape: Tape
    roots: Roots
    names: Names
    losses: Sequence[float]
    look: Repetition | None
    """None where every operation was watched while the step ran, so that it had not to be repeated yet."""
    guilty: Sequence[Observation]
    wide: list[Repetition | None] = field(default_factory=list)
    """The step in float64, once it was asked for."""

    def opened(self) -> Failing:
        """The same with the calls inside of compiled regions on the tape. Raises CannotRepeat."""
        found = opened(self.tape, [slot for slot, _ in self.roots])
        return self if found is None else Failing(found.tape, self.roots, self.names, self.losses, None, ())

    def exact(self) -> Repetition | None:
        """The step repeated from its inputs in float64; None where its calls do not take them."""
        if not self.wide:
            self.wide.append(self._widened(backward=True) or self._widened(backward=False))
        return self.wide[0]

    def _widened(self, *, backward: bool) -> Repetition | None:
        try:
            return repeat(self.tape, self._wide_roots(), backward=backward, wide=True)
        except CannotRepeat:
            return None

    def _wide_roots(self) -> Roots:
        return [(slot, seed.double() if seed is not None else None) for slot, seed in self.roots]

    def repeated(self) -> tuple[Repetition, Sequence[Observation]]:
        """The step as it was, and who is to blame. Raises CannotRepeat."""
        if self.look is not None:
            return self.look, self.guilty
        look = repeat(self.tape, self.roots, backward=False)
        trial = attempt(self.tape, self.roots, None if differentiable(look, self.roots) else look, ())
        return trial.look, trial.guilty

    def differentiated(self, look: Repetition) -> Repetition:
        """The step as it was with its gradients, a loss of NaN or not. Raises CannotRepeat."""
        done = bool(look.gradients())
        return (
            look
            if done or not differentiable(look, self.roots)
            else repeat(self.tape, self.roots, backward=True)
        )


def mend(step: Failing) -> Mending:
    """Find what makes the repeated step sound. An empty ``Mending`` where nothing is known for this operation."""
    try:
        step = step.opened()
        look, guilty = step.repeated()
        if not guilty:
            return Mending()
        before = step.differentiated(look)
    except CannotRepeat:
        return Mending()
    found = _search(step, look, guilty, before, strict=True)
    if found.patch is None or not found.patch.diff:
        looser = _search(step, look, guilty, before, strict=False)
        found = looser if looser.patch is not None and (looser.patch.diff or not found.patch) else found
    found.patch = found.patch or _inside_functions(step, before)
    if differentiable(look, step.roots):
        found.tried[:0] = tempting(step.tape, step.roots, before, _runs(step, look, guilty))
    return found


def _inside_functions(step: Failing, before: Repetition) -> Patch | None:
    """A repair of one call in the forward of a custom Function, proven with the Function's own backward."""
    with contextlib.suppress(CannotRepeat):
        found = opened(step.tape, [slot for slot, _ in step.roots], functions=True)
        if found is None:
            return None
        inner = Failing(found.tape, step.roots, step.names, step.losses, None, ())
        for proposal in _proposals(inner, *inner.repeated()):
            rewrites = by_order((proposal,))
            proof = (
                _run_inside(step, before, found, rewrites) if rewrites.keys() <= found.inner.keys() else None
            )
            if proof is not None and proof.sound and _unchanged(proof, (proposal,)):
                # The gradient is what the Function's own backward makes of the bound value.
                bends = proposal.bends.removesuffix(", with no gradient through it")
                return _patch((replace(proposal, bends=bends),), proof)
    return None


def _run_inside(
    step: Failing, before: Repetition, found: Opened, rewrites: Mapping[int, list[Rewrite]]
) -> Proof | None:
    instead = found.instead(step.tape, rewrites)
    try:
        look = repeat(step.tape, step.roots, backward=differentiable(before, step.roots), instead=instead)
    except CannotRepeat:
        return None
    return proof_of(look, step.roots, compare(before, look, (), step.exact))


def _runs(step: Failing, look: Repetition, guilty: Sequence[Observation]) -> list[Entry]:
    """Every run in the step of each expression that is to blame."""
    story = Story(step.names, step.tape, look, step.losses)
    blamed = [entry for entry in (story.scene(item).entry for item in guilty) if entry is not None]
    return [one for one in look.entries if any(_same_place(one, entry) for entry in blamed)]


def _search(
    step: Failing, look: Repetition, guilty: Sequence[Observation], before: Repetition, *, strict: bool
) -> Mending:
    """Culprit after culprit, until a chain of repairs holds.

    ``strict``: a culprit that a stable form has mended gets no repair that bends the objective beside it.
    """
    found, accepted, trials = Mending(), list[Proposal](), 0
    for _ in range(MAX_ROUNDS):
        better: tuple[Proposal, Trial] | None = None
        for proposal in _proposals(step, look, guilty):
            if strict and proposal.bends and better is not None and not better[0].bends:
                break
            trials += 1
            chosen = [*_without(accepted, proposal), proposal]
            trial = _try(step, before, chosen, found)
            if trial is not None and trial.proof.sound and _unchanged(trial.proof, chosen):
                patch = _patch(chosen, trial.proof)
                found.patch = found.patch or patch
                if patch.diff:
                    found.patch = patch
                    return found
            elif trial is not None and _moves_on(trial, guilty) and _goes_before(proposal, better):
                better = proposal, trial
            if trials >= MAX_TRIALS:
                return found
        if better is None or (found.patch is not None and strict):
            return found
        accepted = [*_without(accepted, better[0]), better[0]]
        look, guilty = better[1].look, better[1].guilty
        found.tried.clear()
    return found


def _try(step: Failing, before: Repetition, chosen: Sequence[Proposal], found: Mending) -> Trial | None:
    try:
        trial = attempt(step.tape, step.roots, before, chosen, step.exact)
    except CannotRepeat:
        return None  # its shape or dtype does not fit: no repair of this code
    outcome = _outcome(trial.proof, chosen)
    if outcome:
        found.tried.append(Tried(chosen[-1].title, outcome))
    return trial


def _outcome(proof: Proof, chosen: Sequence[Proposal]) -> str:
    """What is still wrong; "" where it holds."""
    if proof.loss - proof.loss != 0:
        return f"the loss is still {proof.loss:g}"
    if not proof.sound:
        bad = proof.gradients - proof.finite_gradients
        return f"{bad} of {proof.gradients} gradients still not finite"
    if not _unchanged(proof, chosen):
        return f"changes {proof.changed:,} of {proof.compared:,} values that were finite"
    return ""


def _unchanged(proof: Proof, chosen: Sequence[Proposal]) -> bool:
    """Whether what was finite is as before, unless a proposal says that it bends the objective."""
    return not proof.changed or any(one.bends for one in chosen)


def _without(accepted: Sequence[Proposal], proposal: Proposal) -> list[Proposal]:
    """Those that do not rewrite a place that the new one rewrites."""
    taken = {one.where for one in proposal.rewrites}
    return [one for one in accepted if taken.isdisjoint(rewrite.where for rewrite in one.rewrites)]


def _moves_on(trial: Trial, guilty: Sequence[Observation]) -> bool:
    """Whether the culprit is mended, and another one shows."""
    now = {_key(item) for item in trial.guilty}
    return bool(trial.guilty) and _key(guilty[0]) not in now


def _goes_before(proposal: Proposal, better: tuple[Proposal, Trial] | None) -> bool:
    """Whether it is the first; or the first that can be edited."""
    return better is None or (not _editable(better[0]) and _editable(proposal))


def _editable(proposal: Proposal) -> bool:
    """Whether the user's file shows all that it needs where it needs it."""
    try:
        return bool(diff(proposal.rewrites))
    except CannotEdit:
        return False


def _key(item: Observation) -> tuple[object, ...]:
    where = item.where
    place = (where.code, where.instruction) if isinstance(where, Entry) else where
    return place, item.node is None


def _proposals(step: Failing, look: Repetition, guilty: Sequence[Observation]) -> Iterator[Proposal]:
    """For the first culprit: each proposal with all runs of its expression in the step."""
    story = Story(step.names, step.tape, look, step.losses)
    graph, everything = StepGraph(look.entries, look.values), StepGraph(step.tape.entries)
    for item in guilty[:1]:
        scene = story.scene(item)
        if scene.entry is None or (item.where is None and not item.node):
            continue
        entry = next(one for one in look.entries if one.order == scene.entry.order)
        runs = [one for one in look.entries if _same_place(one, entry)]
        for one in proposals_for(Spot(entry, scene, graph, everything)):
            whole = _in_all_runs(
                one, [Spot(run, scene, graph, everything) for run in runs if run is not entry]
            )
            if whole is not None:
                yield whole


def _same_place(one: Entry, other: Entry) -> bool:
    return one.code is other.code and one.instruction == other.instruction


def _in_all_runs(proposal: Proposal, others: Sequence[Spot]) -> Proposal | None:
    """The proposal with what it rewrites wherever this expression ran; None where it does not fit one of them."""
    rewrites, ends = list(proposal.rewrites), list(proposal.ends)
    some, every = proposal.bent
    for spot in others:
        same = next((one for one in proposals_for(spot) if one.title == proposal.title), None)
        if same is None:
            return None
        rewrites[:0] = same.rewrites
        ends += same.ends
        some, every = some + same.bent[0], every + same.bent[1]
    return replace(proposal, rewrites=tuple(rewrites), bent=(some, every), until=tuple(ends))


def _patch(chosen: Sequence[Proposal], proof: Proof) -> Patch:
    rewrites = [rewrite for one in chosen for rewrite in one.rewrites]
    title = "; ".join(dict.fromkeys(one.title for one in chosen))
    bends = "; ".join(dict.fromkeys(one.objective for one in chosen if one.bends))
    try:
        return Patch(title, proof, diff(rewrites), bends=bends)
    except CannotEdit as reason:
        texts = dict.fromkeys(snippet(rewrite) for rewrite in rewrites)
        return Patch(title, proof, "", "\n".join(texts), str(reason), bends)
