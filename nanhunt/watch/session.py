"""One hunt: recorder, trip wire and looks at work on the running program, and what has been found so far."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from . import optimizer_step
from .batches import Batches
from .calls import calls_patched
from .filing import Filing
from .incident import FoundBy, Incident
from .investigation import Evidence, Solved, investigate, unexplained
from .loaded import Loaded
from .names import Names
from .numbers import checkable, finite, tensors_in
from .observer import Observer
from .options import WatchOptions
from .post_mortem import bad_results, causes, holds_nan, innermost, may_be_about_numbers
from .ranks import world_size
from .read_loss import ReadLoss, models_run, tested
from .recorder import Recorder, Recorders
from .run_up import RunUp
from .second_look import CannotRepeat, repeat
from .short_cuts import short_cuts
from .site import Site, caller, resolve, user_frame
from .stopping import Stop, Stopped, StoppedTaskError
from .tape import Slot
from .tripwire import Roots, TripWire, Update
from .unlooked import Unlooked
from .unseen import muted, unseen

CLOSE_STEPS = 100
"""Steps to watch closely for a fault to show again."""
LOSSES = 4
"""Of the steps before that a report may quote."""


@dataclass(frozen=True, kw_only=True)
class Settings(WatchOptions):
    """What the user asked for."""

    stop: Callable[[Incident], None] | None = None
    """Called instead of raising ``Stopped``."""


class Session:
    """Watches from ``__enter__`` to ``__exit__``; ``report`` is called with each incident."""

    def __init__(self, settings: Settings, report: Callable[[Incident], None]) -> None:
        self.settings = settings
        self.report = report
        self.unlooked = Unlooked(settings.every_op)
        self.recorders = Recorders(self.value_read, self.unlooked)
        self.first_thread = threading.get_ident()
        self.observer = Observer(self.recorder.tape.entry_of) if settings.every_op else None
        self.wire = TripWire(self.recorders, self, self.observer)
        self.incidents: list[Incident] = []
        self.step = 1
        self.backwards = 0
        self.losses: deque[float] = deque(maxlen=LOSSES)
        self.run_up = RunUp()
        self.batches = Batches()
        self.loaded = Loaded()
        self.spoilt = False
        """Whether it was said that an earlier fault has spoilt the parameters."""
        self.unapplied = False
        """Whether a fault was reported since the optimizer last stepped."""
        self.stop = Stop(settings.stop)
        self.suspect: ReadLoss | None = None
        self.pending: Incident | None = None
        """An incident nobody could explain yet: the following steps are watched for another."""
        self.patience = 0
        self.pid = os.getpid()
        self.filing = Filing(Path(settings.capture_dir), time.time(), self._blown_up, self.batches.indices)
        self.process: Callable[[], str] = str
        """Gives the name of a child process; "" in the first."""
        self.listeners: list[Callable[[Session, Roots], None]] = []
        self._counts: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        """Steps of each optimizer; under the trip wire itself, those that GradScaler skipped."""
        self._stack = contextlib.ExitStack()

    # life ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Session:
        self._stack.enter_context(unseen())
        self._stack.enter_context(calls_patched(self.recorders, self.module_called, self.module_returned))
        self._stack.enter_context(short_cuts(self.recorders))
        self.wire.install()
        self._stack.callback(self.wire.remove)
        self._stack.enter_context(self.recorders.threads_followed())
        if self.settings.stop is None:
            self._stack.enter_context(self.stop.heard())
        self._stack.enter_context(self.batches.followed(self.recorders))
        self._stack.enter_context(self.loaded.followed(self.recorders))
        self._stack.enter_context(self.recorders.start())
        if self.observer is not None:
            self._stack.enter_context(self.observer)
        return self

    def __exit__(self, *exception: object) -> None:
        self.recorder.step_back()
        self.stop.closing = True
        try:
            if self.pending is not None:
                self._tell(self.pending)
            elif self.suspect is not None and exception[:1] == (None,):
                self._confirm_suspect()
            elif exception[:1] == (None,) and not self.incidents:
                self.wire.check_update()
        finally:
            self._stack.close()
        self.recorder.tape.cut()

    def raised(self, error: BaseException) -> bool:
        """The script has ended by an exception, perhaps over a NaN; whether it is our own interrupt."""
        if isinstance(error, KeyboardInterrupt):
            return self.stop.interrupted()
        self._examine(error)
        return False

    def _examine(self, error: BaseException) -> None:
        if isinstance(error, Stopped | StoppedTaskError) or self.incidents or self.pending:
            return
        self.recorder.step_back()
        self.stop.closing = True
        self.wire.check_update()
        if not self.incidents and may_be_about_numbers(error):
            with self.recorder.pause(), _suspended(self.observer), muted():
                evidence = self._last_words(error)
            if evidence is not None:
                self._incident(evidence)

    def _last_words(self, error: BaseException) -> Evidence | None:
        """The bad numbers the script was working on when it raised."""
        tape, refused, frame = self.recorder.tape, self.recorder.refused, innermost(error)
        kind = type(error).__name__
        if refused is not None and refused.error in map(id, causes(error)):
            name, tensors = refused.operation, refused.bad
            held = "nan" if any(map(holds_nan, tensors)) else "an infinity"
            what, slots = f"{kind} was raised: {name} was given {held}", list(map(tape.slot, tensors))
        else:
            what, slots = f"{kind} was raised after a result had become nan", bad_results(tape)
        return Evidence(what, [], slots=slots, noticed=_here_in(error, frame), frame=frame) if slots else None

    @property
    def recorder(self) -> Recorder:
        """That of the running thread."""
        return self.recorders.recorder

    @property
    def steps(self) -> int:
        """Steps that were completed."""
        skipped = self._counts.get(self.wire, 0)
        stepped = max((count for key, count in self._counts.items() if key is not self.wire), default=0)
        return stepped + skipped if self._counts else self.backwards

    def forked(self) -> None:
        """In a child: what was found before is the parent's."""
        self.incidents = []
        self.suspect = self.pending = None
        self.stop.times = 0
        self.unlooked.forget()

    # what the trip wire says -----------------------------------------------------------------------------------

    def bad_loss(self, roots: Roots) -> None:
        """The loss is not finite."""
        self._incident(Evidence(_loss_sentence(roots[0][0]), roots))

    def value_read(self, tensor: torch.Tensor, value: bool | float) -> None:
        """The script has read a number: a loss that is not finite, or a test that says so.

        A script that skips bad losses never calls backward on them.
        """
        if isinstance(value, bool):
            losses = tested(self.recorder.tape, tensor)
        else:
            losses = [] if math.isfinite(value) else [tensor]
            if losses:
                self.unlooked.read(value, caller(sys._getframe(1)))
        if not losses:
            return
        with self.recorder.pause():
            bad = [loss for loss in losses if loss.requires_grad and not loss.is_leaf and not finite(loss)]
        # After backward the tape begins anew: what is computed from the loss then is a metric for sure.
        if bad and self.wire.reached() and not self.wire.is_scaled(bad[0]):
            self.suspect = ReadLoss(bad[0], models_run(self.recorder.tape), _here(user_frame()))

    def module_called(self, module: torch.nn.Module) -> None:
        """An outermost module is about to run."""
        if self.suspect is not None and id(module) in self.suspect.models:
            self._confirm_suspect()

    def _confirm_suspect(self) -> None:
        suspect, self.suspect = self.suspect, None
        if suspect is not None:
            evidence = Evidence(_loss_sentence(suspect.loss), [(suspect.loss, None)], noticed=suspect.site)
            self._incident(evidence)

    def bad_gradients(self, roots: Roots, leaves: list[torch.Tensor], total: int, what: str) -> None:
        """Gradients are not finite though the loss was."""
        self._incident(Evidence(what, roots, leaves, parameters=total))

    def scaled_to_infinity(self, roots: Sequence[tuple[Slot | None, torch.Tensor | None]]) -> bool:
        """Whether the step, repeated without the loss's scale, has finite gradients."""
        if any(slot is None for slot, _ in roots):
            return True  # cannot tell: the count of skipped steps will
        try:
            look = repeat(self.recorder.tape, [(slot, seed) for slot, seed in roots if slot], backward=True)
        except CannotRepeat:
            return True
        return not look.bad_gradients()

    def bad_parameters(self, update: Update, leaves: list[torch.Tensor]) -> None:
        """The gradients were finite; the parameters are not, after the optimizer's step."""
        self._incident(Evidence("", [], leaves), update)

    def healthy(self, roots: Roots) -> None:
        """A backward pass is over."""
        self.suspect = None
        if len(roots) == 1 and roots[0][0].numel() == 1:
            self.losses.append(float(roots[0][0].detach()))
            self.run_up.stepping(self.wire.leaves, self.losses[-1])
        self.backwards += 1
        if not self._counts:
            self.step = self.backwards + 1
        for listener in self.listeners:
            listener(self, roots)
        if self.pending is not None:
            self.patience -= 1
            if not self.patience:
                self._tell(self.pending)
                self.stop.now(self.incidents[-1])
        if self.observer is not None:
            self.observer.forget()

    def stepped(self, optimizer: torch.optim.Optimizer | None) -> None:
        """An optimizer has stepped, or GradScaler has skipped a step."""
        key = optimizer if optimizer is not None else self.wire
        self._counts[key] = count = self._counts.get(key, 0) + 1
        self.step = (count if len(self._counts) == 1 else self.steps) + 1
        self.unapplied = False

    def module_returned(self, output: Any) -> None:
        """The outermost module has returned; without gradients this is where a bad value shows."""
        if torch.is_grad_enabled():
            return
        if self.observer is None:
            self.unlooked.no_grad += 1
            return
        for tensor in tensors_in(output):
            seen = self.observer.of(tensor) if checkable(tensor) else None
            if seen is not None and (seen.out.nan or seen.out.posinf):
                kind = "nan" if seen.out.nan else "inf"
                self._incident(Evidence(f"the model's output holds {kind}", [(tensor, None)]))
                return
        self.observer.forget()

    # incidents -----------------------------------------------------------------------------------------------

    def _incident(self, evidence: Evidence, update: Update | None = None) -> None:
        if self.stop.times:
            self.stop.now(self.incidents[-1])
        if len(self.incidents) >= (self.settings.max_reports if self.settings.keep_going else 1):
            return
        with self.recorder.pause(), _suspended(self.observer), muted():
            solved = self._consequence(evidence) if self.incidents else None
            if solved is not None and self.spoilt:
                return  # it was said before
            self.spoilt = solved is not None
            if solved is None and self.unapplied and not evidence.roots:
                return  # the bad gradients of the step just reported are about to be applied
            self.unapplied = True
            incident = self._filed(solved or self._solve(evidence, update))
        self.recorder.tape.cut()
        if self.observer is not None:
            self.observer.forget()
        elif self._looks_closer(incident):
            return
        self._tell(incident)
        if not self.settings.keep_going:
            self.stop.now(incident)

    def _tell(self, incident: Incident) -> None:
        first, self.pending = self.pending, None
        if first is not None and first is not incident:
            note = (
                f"step {first.step} had gone bad before ({first.what}), in a way that could not be repeated"
            )
            incident = replace(
                incident, notes=(*incident.notes, f"{note}; the steps since were watched closely")
            )
        self.incidents.append(incident)
        self.report(incident)

    def _looks_closer(self, incident: Incident) -> bool:
        """Watch every operation from now on, if this step could not be explained; whether to wait for what shows.

        While waiting, the bad gradients are not applied: they would spoil the parameters, and with them every
        later step. The script is to be stopped anyway.
        """
        explained = incident.found_by.is_sure
        alone = world_size() == 1 and threading.get_ident() == self.first_thread
        if explained or not alone:
            return False
        self.observer = self.wire.observer = Observer(self.recorder.tape.entry_of)
        self._stack.enter_context(self.observer)
        if self.settings.keep_going:
            return False
        self.pending = incident
        self.patience = CLOSE_STEPS
        self.wire.discard = True
        return True

    def _consequence(self, evidence: Evidence) -> Solved | None:
        """What is to be said of a step that is bad because an earlier fault has spoilt the parameters."""
        leaves = {id(leaf): leaf for leaf in (*evidence.gradients, *self.wire.leaves, *self.wire.reached())}
        bad = [leaf for leaf in leaves.values() if checkable(leaf) and not finite(leaf)]
        if not bad:
            return None
        evidence.frame = user_frame()
        evidence.noticed = evidence.noticed or _here(evidence.frame)
        evidence.step = self.step
        evidence.gradients = []
        names = Names(self.recorder.roots.values(), evidence.frame)
        held = f"{len(bad)} of {len(leaves)} parameters ({names.of(bad[0])} among them) are not finite"
        evidence.what = f"since the fault of step {self.incidents[-1].step}, {held}"
        solved = unexplained(
            evidence, names, "bad steps from here on are its consequence and are not reported"
        )
        return replace(solved, incident=replace(solved.incident, found_by=FoundBy.CONSEQUENCE))

    def _solve(self, evidence: Evidence, update: Update | None) -> Solved:
        evidence.frame = evidence.frame or user_frame()
        evidence.step = self.step
        evidence.losses = tuple(self.losses)
        evidence.loaded = self.loaded
        evidence.noticed = evidence.noticed or _here(evidence.frame)
        names = Names(self.recorder.roots.values(), evidence.frame)
        evidence.what = evidence.what or _gradient_sentence(evidence, names)
        if update is not None:
            evidence.step = max(self.steps, 1)
            return optimizer_step.explain(evidence, update, names)
        try:
            return investigate(evidence, self.recorder, self.observer)
        except Exception as error:
            # The script must not suffer from a fault of ours: report what is known.
            return unexplained(
                evidence, names, f"nanhunt failed to explain it: {type(error).__name__}: {error}"
            )

    def _filed(self, solved: Solved) -> Incident:
        rank = int(os.environ["RANK"]) if "RANK" in os.environ else None
        scales = self.wire.run_of_scales()
        notes = (*solved.incident.notes, *([scales] if scales else []))
        incident = replace(solved.incident, rank=rank, process=self.process(), notes=notes)
        return self.filing.file(incident, solved)

    def _blown_up(self) -> str:
        return self.run_up.sentence(self.wire.reached(), self.losses)


def _loss_sentence(loss: torch.Tensor) -> str:
    value = loss.detach()
    first = value.flatten()[(~torch.isfinite(value)).flatten()][0].item()
    return f"the loss is {first:g}"


def _here(frame: FrameType | None) -> Site | None:
    return resolve(frame.f_code, frame.f_lasti) if frame is not None else None


def _here_in(error: BaseException, frame: FrameType | None) -> Site | None:
    """The line of ``frame`` that the exception went through."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame is not frame:
        trace = trace.tb_next
    return resolve(trace.tb_frame.f_code, trace.tb_lasti) if trace is not None else None


def _gradient_sentence(evidence: Evidence, names: Names) -> str:
    first = evidence.gradients[0]
    if first.grad is None:  # torch.autograd.grad has returned it
        return f"the loss is finite, the gradient of {names.of(first)} is not"
    kind = "nan" if bool(first.grad.isnan().any()) else "inf"
    if not evidence.roots:
        return (
            f"the gradient of {names.of(first)} has become {kind} between backward and the optimizer's step"
        )
    return f"the loss is finite, the gradient of {names.of(first)} is {kind}"


@contextlib.contextmanager
def _suspended(observer: Observer | None) -> Iterator[None]:
    if observer is None:
        yield
        return
    observer.suspended = True
    try:
        yield
    finally:
        observer.suspended = False
