"""The trip wire: backward, the optimizer and GradScaler, wrapped for as long as a session lasts.

It decides whether a step is healthy: one sum of the loss, one of each gradient, one of each parameter after the
optimizer. What is done about a bad step, ``session`` decides.
"""

from __future__ import annotations

import functools
import math
import sys
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, Protocol

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from nanhunt.operations.caller import judging

from .names import operation
from .numbers import all_finite, checkable, finite, local
from .observer import Observer
from .recorder import Opaque, Recorder, Recorders, transforming
from .site import caller
from .tape import Slot, Tape
from .unseen import hide

Roots = list[tuple[torch.Tensor, torch.Tensor | None]]
PARAMETERS_EVERY = 10
"""Updates between two looks at all parameters. A bad one shows at once in the next loss; only one that nothing reads
waits for this look, or for the end."""
SKIPS_WITHOUT_END = 20
"""Consecutive steps GradScaler may skip: from its initial 65536 that many halvings end far below 1."""


SCALES_KEPT = 64
"""Of skipped steps, for the report."""


class Judge(Protocol):
    """What a session answers to."""

    def bad_loss(self, roots: Roots) -> None:
        """The loss is not finite; backward has not run."""

    def bad_gradients(self, roots: Roots, leaves: list[torch.Tensor], total: int, what: str) -> None:
        """These leaves' gradients are not finite. Without roots: they were, when backward had run."""

    def scaled_to_infinity(self, roots: Sequence[tuple[Slot | None, torch.Tensor | None]]) -> bool:
        """Whether without the loss's scale the gradients would have been finite, so that it was by design."""

    def bad_parameters(self, update: Update, leaves: list[torch.Tensor]) -> None:
        """The optimizer's step has made these parameters not finite."""

    def healthy(self, roots: Roots) -> None:
        """Backward is over, and everything was finite."""

    def stepped(self, optimizer: torch.optim.Optimizer | None) -> None:
        """A step is over (None: one that GradScaler skipped)."""


@dataclass
class _Scaled:
    """A loss that GradScaler multiplied, and the loss itself."""

    scaled: weakref.ref[torch.Tensor]
    loss: torch.Tensor
    scaler: torch.amp.GradScaler


@dataclass(frozen=True)
class Update:
    """An optimizer's step, and the versions of the parameters after it."""

    optimizer: torch.optim.Optimizer
    site: tuple[CodeType, int]
    versions: list[int]

    def untouched(self) -> list[torch.Tensor]:
        """The parameters nobody has written to since."""
        leaves = zip(_parameters(self.optimizer), self.versions, strict=False)
        return [leaf for leaf, version in leaves if leaf._version == version]


@dataclass(eq=False)
class TripWire:
    """Patches torch while installed; every patch is taken back by ``remove``."""

    recorders: Recorders
    judge: Judge
    observer: Observer | None = None
    scaled: list[_Scaled] = field(default_factory=list)
    leaves: list[torch.Tensor] = field(default_factory=list)
    """Whose gradients the last backward was to fill."""
    skips: int = 0
    scales: deque[float] = field(default_factory=lambda: deque(maxlen=SCALES_KEPT))
    """The loss scales of the last steps that were skipped, oldest first."""
    skipped: int = 0
    """How many were skipped in all."""
    unscaled_is_bad: bool = False
    """Whether the last bad gradients were so without the scale too."""
    scale: float | None = None
    """By which the script itself multiplied the loss, where that made the present gradients infinite."""
    checked: dict[int, int] = field(default_factory=dict)
    """id of a gradient -> its version when it was last found finite."""
    inside_scaler: bool = False
    updates: int = 0
    bad_before: weakref.WeakKeyDictionary[Any, int] = field(default_factory=weakref.WeakKeyDictionary)
    """Optimizer -> how many of its parameters' values were not finite before its first update: no update did that."""
    last_update: Update | None = None
    """None where the gradients were bad: the update is not to blame for what it made of them."""
    poisoned: bool = False
    discard: bool = False
    """Whether the gradients of the bad step are to be left out of the update."""
    discarded: bool = False
    """Whether they are, in the update that comes next: FSDP's own parameters are none that the step has read."""
    undo: list[Callable[[], None]] = field(default_factory=list)

    @property
    def recorder(self) -> Recorder:
        """That of the running thread."""
        return self.recorders.recorder

    def install(self) -> None:
        """Wrap what a training step calls."""
        self._patch(torch.autograd, "backward", self._backward)
        self._patch(torch.autograd, "grad", self._grad)
        self._patch(torch.amp.GradScaler, "scale", self._scale)
        self._patch(torch.amp.GradScaler, "step", self._scaler_step)
        self._patch(torch.optim.Optimizer, "zero_grad", self._unrecorded)
        self.undo.append(register_optimizer_step_pre_hook(self._before_step).remove)
        self.undo.append(register_optimizer_step_post_hook(self._after_step).remove)

    def remove(self) -> None:
        """Leave torch as it was found."""
        while self.undo:
            self.undo.pop()()

    def _patch(self, owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
        original = owner.__dict__[name]

        @functools.wraps(original)
        def patched(*args: Any, **kwargs: Any) -> Any:
            if judging():  # nanhunt.check in a watched script runs losses that it knows to be bad
                return original(*args, **kwargs)
            try:
                return wrapper(original, *args, **kwargs)
            except BaseException as error:
                hide(error)
                raise

        setattr(owner, name, patched)
        self.undo.append(lambda: setattr(owner, name, original))

    # backward ------------------------------------------------------------------------------------------------

    def _backward(
        self, original: Callable[..., Any], tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        self.recorder.step_back()  # in case an optimizer's step raised
        if self.recorder.paused or transforming():
            return original(tensors, grad_tensors, *args, **kwargs)
        with self.recorder.apart():
            roots = self._roots(tensors, grad_tensors)
            self.leaves = leaves = self.reached()
            good = self._check_loss(roots)
            result = original(tensors, grad_tensors, *args, **kwargs)
            if good:
                self._check_gradients(roots, leaves, tensors)
            self._discard_bad(leaves)
            self.judge.healthy(roots)
            if not (kwargs.get("retain_graph") or kwargs.get("create_graph") or any(args[:2])):
                self.recorder.tape.cut()
        return result

    def _grad(
        self,
        original: Callable[..., Any],
        outputs: Any,
        inputs: Any,
        grad_outputs: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if self.recorder.paused:
            return original(outputs, inputs, grad_outputs, *args, **kwargs)
        if transforming():
            self.recorder.unlooked.transforms += 1
            with self.recorder.pause():  # the function mode comes by here once more
                return original(outputs, inputs, grad_outputs, *args, **kwargs)
        with self.recorder.pause():
            roots = self._roots(outputs, grad_outputs)
            self._check_loss(roots)
        found = self.recorder.opaque(Opaque(original, "grad"), (outputs, inputs, grad_outputs, *args), kwargs)
        with self.recorder.pause():
            leaves = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
            bad = [leaf for leaf, grad in zip(leaves, found, strict=False) if grad is not None and _bad(grad)]
            if bad and self._scaler_of(outputs) is None:
                self.judge.bad_gradients(roots, bad, len(leaves), "")
        return found

    def _roots(self, tensors: Any, seeds: Any) -> Roots:
        """What backward starts from, with GradScaler's factor taken off again."""
        roots = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        given = [seeds] if isinstance(seeds, torch.Tensor) or seeds is None else list(seeds)
        given += [None] * (len(roots) - len(given))
        pairs = zip(roots, given, strict=False)
        return [(self._unscaled(root), seed) for root, seed in pairs if isinstance(root, torch.Tensor)]

    def is_scaled(self, tensor: torch.Tensor) -> bool:
        """Whether GradScaler made it: its infinities are by design."""
        return self._unscaled(tensor) is not tensor

    def _unscaled(self, tensor: torch.Tensor) -> torch.Tensor:
        return next((item.loss for item in self.scaled if item.scaled() is tensor), tensor)

    def _scaler_of(self, tensors: Any) -> torch.amp.GradScaler | None:
        roots = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        return next(
            (item.scaler for item in self.scaled if any(item.scaled() is root for root in roots)), None
        )

    def reached(self) -> list[torch.Tensor]:
        """Leaves of the step so far that gradients would be accumulated in.

        Of all it has seen, not of its inputs: in the first step ``torch.zeros(3, requires_grad=True)`` is a call.
        """
        tape = self.recorder.tape
        known = [slot() for slot in tape.slots.values()]
        if tape.modules:
            known += [leaf for module in tape.modules.values() for leaf in module.parameters()]
            known = list({id(tensor): tensor for tensor in known}.values())
        return [tensor for tensor in known if tensor is not None and tensor.requires_grad and tensor.is_leaf]

    def _discard_bad(self, leaves: list[torch.Tensor]) -> None:
        """Put 0 for bad gradients, once, where the session asks for it."""
        if self.discard:
            self.discard = self.poisoned = False
            self.discarded = True
            _zero_bad(leaves)

    def _check_loss(self, roots: Roots) -> bool:
        good = all_finite([root for root, _ in roots if checkable(root)])
        if not good and self._only_the_scale(roots):
            return True
        if not good:
            self.check_update()  # a bad parameter is the update's fault, not that of the first to read it
            self.poisoned = True
            self.judge.bad_loss([(root, seed) for root, seed in roots if _bad(root)])
        return good

    def _only_the_scale(self, roots: Roots) -> bool:
        """Whether the losses were finite before the script multiplied them by its loss scale."""
        by_hand = scaled_by_hand(self.recorder.tape, roots)
        if by_hand is None:
            return False
        losses = [slot.tensor for slot, _ in by_hand[0] if slot]
        known = [loss for loss in losses if loss is not None and checkable(loss)]
        if len(known) < len(losses):  # a loss without a name is gone once it has been multiplied
            return self.judge.scaled_to_infinity(by_hand[0])
        return all(map(finite, known))

    def _check_gradients(self, roots: Roots, leaves: list[torch.Tensor], tensors: Any) -> None:
        scaler = self._scaler_of(tensors)
        self.scaled.clear()
        grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
        if all_finite(grads):
            self.skips, self.scale = 0, None
            self.poisoned = False
            self.checked = {id(grad): grad._version for grad in grads}
            return
        self.poisoned = scaler is None
        bad = [leaf for leaf in leaves if leaf.grad is not None and _bad(leaf.grad)]
        tape = self.recorder.tape
        by_hand = scaled_by_hand(tape, roots) if scaler is None else None
        plain = by_hand[0] if by_hand else [(tape.find(root), seed) for root, seed in roots]
        if (scaler is None and by_hand is None) or not self.judge.scaled_to_infinity(plain):
            self.unscaled_is_bad = True
            self.judge.bad_gradients(roots, bad, len(grads), "")
            return
        self.unscaled_is_bad = False
        self.skips += 1
        scale = scaler.get_scale() if scaler is not None else by_hand[1] if by_hand else 1.0
        self.scales.append(scale)
        self.skipped += 1
        self.scale = None if scaler is not None else scale
        if self.skips >= SKIPS_WITHOUT_END or scale <= 1:
            who = "the script" if scaler is None else "GradScaler"
            what = f"{who} has skipped {self.skips} steps in a row, its scale is down to {scale:g}"
            # Without the scale there is nothing to be seen: the scaled loss is what went bad.
            self.judge.bad_gradients(self._roots(tensors, None), bad, len(grads), what)

    def run_of_scales(self) -> str:
        """How the loss scale has come down, step by skipped step; "" where it has not."""
        if len(self.scales) < 2 or self.scales[-1] >= self.scales[0]:
            return ""
        first, *rest = (f"{scale:g}" for scale in self.scales)
        some = ", ".join([first, *rest] if len(rest) < 4 else [first, rest[0], "...", *rest[-2:]])
        innocent = ": it is not the cause, this gradient is bad without it" if self.unscaled_is_bad else ""
        return f"the loss scale has come down ({some}) in the {self.skipped} steps skipped so far{innocent}"

    # GradScaler ----------------------------------------------------------------------------------------------

    def _scale(self, original: Callable[..., Any], scaler: torch.amp.GradScaler, outputs: Any) -> Any:
        scaled = original(scaler, outputs)
        if isinstance(scaled, torch.Tensor) and scaled is not outputs:
            # One that is gone will never be backpropagated: a loss that was only scaled must not pile up.
            self.scaled = [item for item in self.scaled if item.scaled() is not None]
            self.scaled.append(_Scaled(weakref.ref(scaled), outputs, scaler))
        return scaled

    def _scaler_step(
        self, original: Callable[..., Any], scaler: Any, optimizer: Any, *args: Any, **kwargs: Any
    ) -> Any:
        self.inside_scaler = True
        try:
            return original(scaler, optimizer, *args, **kwargs)
        finally:
            self.inside_scaler = False
            if self.skips:
                self.judge.stepped(None)

    def _unrecorded(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.recorder.step_aside()
        try:
            return original(*args, **kwargs)
        finally:
            self.recorder.step_back()

    # optimizer -----------------------------------------------------------------------------------------------

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if optimizer not in self.bad_before and not self.recorder.paused:
            self.bad_before[optimizer] = count = self._count_bad(_parameters(optimizer))
            if count:
                self.recorder.unlooked.began_bad(count, caller(sys._getframe()))
        closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
        if closure is not None or self.recorder.paused:
            return  # the closure holds the user's forward and backward: those are to be seen
        self.recorder.step_aside()
        if self.observer is not None:
            self.observer.suspended = True  # the parameters are looked at afterwards
        if self.inside_scaler:
            return  # GradScaler calls step only when every gradient is finite
        leaves = [leaf for leaf in _parameters(optimizer) if leaf.grad is not None]
        if self.discarded:
            self.discarded = False
            _zero_bad(leaves)
        unchecked = [leaf for leaf in leaves if self.checked.get(id(leaf.grad)) != leaf.grad._version]  # type: ignore[union-attr]
        if unchecked and not all_finite([leaf.grad for leaf in unchecked if leaf.grad is not None]):
            bad = [leaf for leaf in unchecked if leaf.grad is not None and _bad(leaf.grad)]
            self.poisoned = True
            what = "" if self.scale is None else _applied(self.scale)
            self.judge.bad_gradients([], bad, len(leaves), what)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self.observer is not None:
            self.observer.suspended = False
        with self.recorder.pause():
            leaves = _parameters(optimizer)
            self.updates += 1
            update = Update(optimizer, caller(sys._getframe()), [leaf._version for leaf in leaves])
            self.last_update = None if self.poisoned else update
            self.judge.stepped(optimizer)
            if self.updates % PARAMETERS_EVERY == 1:
                self.check_update()
        self.recorder.step_back()
        self.recorder.tape.cut()

    def _count_bad(self, leaves: list[torch.Tensor]) -> int:
        with self.recorder.pause():
            if all_finite(leaves):
                return 0
            return sum(int((~leaf.detach().isfinite()).sum()) for leaf in leaves if _bad(leaf))

    def check_update(self) -> None:
        """Look at the parameters that the last update has written, and nothing since."""
        if self.last_update is not None:
            with self.recorder.pause():  # a number that we read is none that the script has read
                bad = [leaf for leaf in self.last_update.untouched() if _bad(leaf)]
            if bad and self._count_bad(bad) > self.bad_before.get(self.last_update.optimizer, 0):
                self.judge.bad_parameters(self.last_update, bad)


def scaled_by_hand(
    tape: Tape, roots: Roots
) -> tuple[list[tuple[Slot | None, torch.Tensor | None]], float] | None:
    """The losses before the script multiplied them by a loss scale above 1, and the scale; None where it did not.

    As fairseq, Megatron, DeepSpeed and apex do: ``(loss * scale).backward()``, and steps are skipped while the scaled
    gradients overflow.
    """
    found = [_factors(tape, root) for root, _ in roots]
    scales = [item[1] for item in found if item is not None]
    if len(scales) < len(roots) or not scales:
        return None
    return [(item[0], seed) for item, (_, seed) in zip(found, roots, strict=True) if item], max(scales)


def _factors(tape: Tape, root: torch.Tensor) -> tuple[Slot, float] | None:
    slot = tape.find(root)
    maker = next((entry for entry in reversed(tape.entries) if slot is not None and entry.out is slot), None)
    if maker is None or operation(maker.func) != "mul" or len(maker.args) != 2:
        return None
    for loss, factor in (maker.args, maker.args[::-1]):
        value = factor.tensor if isinstance(factor, Slot) else factor
        if isinstance(value, torch.Tensor):
            value = value.item() if value.numel() == 1 and not value.requires_grad else None
        if isinstance(loss, Slot) and isinstance(value, int | float) and 1 < value < math.inf:
            return loss, float(value)
    return None


def _applied(scale: float) -> str:
    return f"gradients that the loss scale of {scale:g} made infinite are applied: the step was not skipped"


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [leaf for group in optimizer.param_groups for leaf in group["params"]]


def _zero_bad(leaves: list[torch.Tensor]) -> None:
    for leaf in leaves:
        if leaf.grad is not None and _bad(leaf.grad):
            local(leaf.grad).zero_()


def _bad(tensor: torch.Tensor) -> bool:
    return checkable(tensor) and not finite(tensor)
