"""One hunt: recorder, trip wire and looks at work on the running program, and what has been found so far."""

from __future__ import annotations

import contextlib
import math
import os
import signal
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

from . import capture, replay, saved_step
from .batches import Batches
from .calls import calls_patched
from .incident import Culprit, FoundBy, Incident, Phase
from .investigation import Evidence, Solved, investigate, unexplained
from .loaded import Loaded
from .names import Names, operation
from .numbers import checkable, finite, numbers, tensors_in
from .observer import Observer
from .options import WatchOptions
from .post_mortem import bad_results, causes, holds_nan, innermost, may_be_about_numbers
from .recorder import Recorder, Recorders
from .repair.mend import Failing, mend
from .repair.sample import without_bad_samples, without_bad_weights
from .run_up import RunUp
from .second_look import CannotRepeat, repeat
from .site import Site, caller, resolve, user_frame
from .story import Exhibits
from .subject import Subject
from .tape import Module, Slot, Tape, slots_in
from .tripwire import Roots, TripWire, Update
from .unlooked import Unlooked
from .unseen import muted, unseen

CLOSE_STEPS = 100
"""Steps to watch closely for a fault to show again."""
LOSSES = 4
"""Of the steps before that a report may quote."""
STOP = signal.SIGURG
"""Interrupts the first thread for another. Not SIGINT: a background job is deaf to that, and a script or asyncio may
have a handler of its own. Whoever has no handler for this one does not notice it.
"""
LEAVING = 5.0
"""Seconds that a thread which has stopped the script has for its own end."""
PATIENCE = 2.0
"""Seconds a rank without a fault of its own waits for the others to say that they had one."""


class Stopped(SystemExit):
    """Ends the script after a report, with exit code 1. Not an Exception, so that ``except Exception`` lets it by."""

    def __init__(self) -> None:
        super().__init__(1)

    def __reduce__(self) -> tuple[type[Stopped], tuple[()]]:
        """A pool of processes hands it to the first."""
        return Stopped, ()


class StoppedTaskError(ArithmeticError):
    """Ends a task of a ``multiprocessing.Pool``: a worker that exits leaves its parent waiting for ever."""


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
        self.stopper: int | None = None
        """The thread that has stopped the first one, and is about to end."""
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
        self.stopped = 0
        self.closing = False
        self.suspect: _Suspect | None = None
        self.pending: Incident | None = None
        """An incident nobody could explain yet: the following steps are watched for another."""
        self.patience = 0
        self.started = time.time()
        self.pid = os.getpid()
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
        self.wire.install()
        self._stack.callback(self.wire.remove)
        self._stack.enter_context(self.recorders.threads_followed())
        if self.settings.stop is None:
            self._stack.enter_context(_heard(self._heed))
        self._stack.enter_context(self.batches.followed(self.recorders))
        self._stack.enter_context(self.loaded.followed(self.recorders))
        self._stack.enter_context(self.recorders.start())
        if self.observer is not None:
            self._stack.enter_context(self.observer)
        return self

    def __exit__(self, *exception: object) -> None:
        self.recorder.step_back()
        self.closing = True
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
            if self.stopper is not None:
                _await_end(self.stopper)
            return bool(self.stopped)
        self._examine(error)
        return False

    def _examine(self, error: BaseException) -> None:
        if isinstance(error, Stopped | StoppedTaskError) or self.incidents or self.pending:
            return
        self.recorder.step_back()
        self.closing = True
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
        self.stopped = 0
        self.unlooked.forget()

    # what the trip wire says -----------------------------------------------------------------------------------

    def bad_loss(self, roots: Roots) -> None:
        """The loss is not finite."""
        self._incident(Evidence(_loss_sentence(roots[0][0]), roots))

    def value_read(self, tensor: torch.Tensor, value: bool | float) -> None:
        """The script has read a number: a loss that is not finite, or a test that says so.

        A script that skips bad losses never calls backward on them. It is no incident yet: a metric may be infinite,
        a term may be left out of the loss. It is one when the same model is called again with no backward between.
        """
        if isinstance(value, bool):
            losses = _tested(self.recorder.tape, tensor)
        else:
            losses = [] if math.isfinite(value) else [tensor]
            if losses:
                self.unlooked.read(value, caller(sys._getframe(1)))
        with self.recorder.pause():
            bad = [loss for loss in losses if loss.requires_grad and not loss.is_leaf and not finite(loss)]
        # After backward the tape begins anew: what is computed from the loss then is a metric for sure.
        if bad and self.wire.reached() and not self.wire.is_scaled(bad[0]):
            models = {id(_outermost(entry.module)) for entry in self.recorder.tape.entries if entry.module}
            self.suspect = _Suspect(bad[0], models, _here(user_frame()))

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
                self._stop()
        if self.observer is not None:
            self.observer.forget()

    def stepped(self, optimizer: torch.optim.Optimizer | None) -> None:
        """An optimizer has stepped, or GradScaler has skipped a step."""
        key = optimizer if optimizer is not None else self.wire
        self._counts[key] = self._counts.get(key, 0) + 1
        self.step = self.steps + 1
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
        if self.stopped:
            self._stop()
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
            incident = self._file(solved or self._solve(evidence, update))
        self.recorder.tape.cut()
        if self.observer is not None:
            self.observer.forget()
        elif self._looks_closer(incident):
            return
        self._tell(incident)
        if not self.settings.keep_going:
            self._stop()

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
        alone = os.environ.get("WORLD_SIZE", "1") == "1" and threading.get_ident() == self.first_thread
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
            return _optimizer_incident(evidence, update, names)
        try:
            return investigate(evidence, self.recorder, self.observer)
        except Exception as error:
            # The script must not suffer from a fault of ours: report what is known.
            return unexplained(
                evidence, names, f"nanhunt failed to explain it: {type(error).__name__}: {error}"
            )

    def _file(self, solved: Solved) -> Incident:
        """Prove the fix and write the capture; a folder that cannot be written to becomes a note."""
        rank = int(os.environ["RANK"]) if "RANK" in os.environ else None
        incident = replace(solved.incident, rank=rank, process=self.process())
        folder = Path(self.settings.capture_dir)
        notes = incident.notes
        try:
            incident = replace(incident, remedies=capture.prove(solved.exhibits, incident))
        except Exception as error:
            # No proof is no reason to lose the report, or to break the script.
            notes += (f"no fix could be proven: {type(error).__name__}: {error}",)
        try:
            incident = self._mended(incident, solved.failing)
        except Exception as error:
            notes += (f"no patch could be proven: {type(error).__name__}: {error}",)
        try:
            incident = self._step_saved(folder, incident, solved)
            incident = capture.write(folder, solved.exhibits, incident)
        except OSError as error:
            notes += (f"no capture was written: {error.strerror}: {folder}",)
        if incident.rank is not None and os.environ.get("WORLD_SIZE", "1") != "1":
            notes += capture.first_rank(folder, self.started, 0.0 if incident.culprits else PATIENCE)
        return replace(incident, notes=notes)

    def _step_saved(self, folder: Path, incident: Incident, solved: Solved) -> Incident:
        """With the file from which the step can be repeated, or why there is none. Raises OSError."""
        failing, path = solved.failing, folder / capture.file_name(incident, "-replay")
        if failing is None:
            return replace(incident, not_saved="it could not be repeated")
        try:
            saved_step.save(path, failing.tape, failing.roots, failing.names, incident, solved.gradients)
            if not replay.repeats(path, incident):
                path.unlink()
                return replace(incident, not_saved="repeated from the file alone it went another way")
        except OSError:
            raise
        except Exception as error:
            known = isinstance(error, CannotRepeat | saved_step.CannotSave)
            return replace(incident, not_saved=str(error) if known else f"{type(error).__name__}: {error}")
        return replace(incident, replay=str(path))

    def _mended(self, incident: Incident, failing: Failing | None) -> Incident:
        """With the patch; or, where code is not the cause, with what shows that."""
        blown_up = self.run_up.sentence(self.wire.reached(), self.losses)
        if blown_up:
            return replace(incident, not_code=blown_up)
        if failing is None:
            return incident
        if any(culprit.phase is Phase.INPUT for culprit in incident.culprits):
            return replace(incident, not_code=without_bad_samples(failing, self.batches.indices()))
        if any(culprit.phase is Phase.PARAMETER for culprit in incident.culprits):
            return replace(incident, not_code=without_bad_weights(failing))
        mended = mend(failing)
        return replace(incident, patch=mended.patch, tried=tuple(mended.tried))

    def _heed(self, *_: object) -> None:
        """The handler of that signal, in the first thread."""
        if self.stopper is not None:
            raise KeyboardInterrupt

    def _stop(self) -> None:
        self.stopped += 1
        if self.settings.stop is not None:
            return self.settings.stop(self.incidents[-1])
        if self.closing:
            return None  # the script has ended by itself
        if _is_pool_worker():
            raise StoppedTaskError(f"nanhunt: {self.incidents[-1].what} (step {self.incidents[-1].step})")
        if threading.current_thread() is not threading.main_thread():
            self.stopper = threading.get_ident()
            _interrupt_main(self._heed)
            raise SystemExit(1)  # of its very class: a thread ends by it without a word
        if self.stopped > 2:
            # The script caught SystemExit, twice: it would train on with a broken model.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
        raise Stopped


@contextlib.contextmanager
def _heard(heed: Callable[..., None]) -> Iterator[None]:
    """Let ``heed`` be called in the first thread at a stop from another."""
    try:
        before = signal.signal(STOP, heed)
    except ValueError:  # only the first thread may
        yield
        return
    try:
        yield
    finally:
        if signal.getsignal(STOP) == heed:
            signal.signal(STOP, before)


def _interrupt_main(heed: Callable[..., None]) -> None:
    """Stop the script from another of its threads, in whatever it waits."""
    if signal.getsignal(STOP) == heed:
        first = threading.main_thread().ident
        assert first is not None
        signal.pthread_kill(first, STOP)
    else:  # the script has a use of its own for that signal
        os.kill(os.getpid(), signal.SIGINT)


def _await_end(thread: int) -> None:
    """Until that thread has left: Python ends one that is still in the engine's C++ by aborting the process.

    Not by Thread.join, which believes after an interrupted join that the thread has ended.
    """
    deadline = time.monotonic() + LEAVING
    while thread in sys._current_frames() and time.monotonic() < deadline:
        time.sleep(0.001)


def _is_pool_worker() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "multiprocessing.pool":
            return True
        frame = frame.f_back
    return False


def _tested(tape: Tape, answer: torch.Tensor) -> list[torch.Tensor]:
    """The single number whose isnan, isinf or isfinite was asked, if that is what made the answer."""
    slot = tape.find(answer)
    for entry in reversed(tape.entries[-4:]):
        if entry.out is slot and slot is not None:
            asked = next(slots_in(entry.args), None)
            if operation(entry.func) in ("isnan", "isinf", "isfinite"):
                tensor = asked.tensor if asked else None
                return [tensor] if tensor is not None and tensor.numel() == 1 else []
            slot = asked
    return []


@dataclass(frozen=True)
class _Suspect:
    """A loss the script has read, that was not finite."""

    loss: torch.Tensor
    models: set[int]
    """ids of the outermost modules that had run by then."""
    site: Site | None


def _outermost(module: Module) -> torch.nn.Module:
    running, outer = module
    return running if outer is None else _outermost(outer)


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
    kind = "nan" if first.grad is None or bool(first.grad.isnan().any()) else "inf"
    if not evidence.roots:
        return (
            f"the gradient of {names.of(first)} has become {kind} between backward and the optimizer's step"
        )
    return f"the loss is finite, the gradient of {names.of(first)} is {kind}"


def _optimizer_incident(evidence: Evidence, update: Update, names: Names) -> Solved:
    optimizer, site = update.optimizer, resolve(*update.site)
    called = f"{type(optimizer).__name__}.step"
    concerned = tuple(names.of(leaf) for leaf in evidence.gradients)
    rates = sorted({float(group["lr"]) for group in optimizer.param_groups if "lr" in group})
    gradients = [
        numbers(leaf.grad) for leaf in evidence.gradients if leaf.grad is not None and checkable(leaf.grad)
    ]
    culprit = Culprit(
        operation=called,
        phase=Phase.OPTIMIZER,
        site=site,
        module="",
        detail="",
        out=numbers(evidence.gradients[0]),
        inputs=tuple(gradients[:1]),
        reason=f"the gradients were finite before it; learning rate {', '.join(f'{rate:g}' for rate in rates)}",
        rule=None,
        name="optimizer-step",
        fix=_optimizer_fix(optimizer),
        tensor_names=concerned,
    )
    incident = Incident(
        step=evidence.step,
        what=f"{concerned[0]} is not finite after {called}()",
        noticed=evidence.noticed,
        culprits=(culprit,),
        chain=(),
        terms=(),
        bad_gradients=(),
        parameters=sum(len(group["params"]) for group in optimizer.param_groups),
        found_by=FoundBy.WATCHING,
    )
    broken = Subject("values", {concerned[0]: evidence.gradients[0].detach()})
    return Solved(incident, Exhibits(subjects=(broken,)))


def _optimizer_fix(optimizer: torch.optim.Optimizer) -> str:
    if any(group.get("eps") == 0 for group in optimizer.param_groups):
        return "Give the optimizer an eps above 0: a second moment of 0 divides 0 by 0."
    return "Lower the learning rate, or clip the gradients before the step."


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
