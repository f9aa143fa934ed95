"""The run-up: how large the parameters were in the steps before, so that a learning rate that blew up can be told."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterable, Sequence

import torch

from .numbers import checkable

KEPT = 6
"""Notes."""
EVERY = 10
"""Steps between two notes while the loss does not grow."""
BLOWN_UP = 10.0
"""Growth of the parameters' norm over the kept notes that no training in good health shows."""


class RunUp:
    """The norm of each parameter before some of the last steps: it is not waited for until it is asked for."""

    def __init__(self) -> None:
        self.notes: deque[tuple[int, Sequence[torch.Tensor]]] = deque(maxlen=KEPT)
        self.step = 0
        self.loss = math.inf

    def stepping(self, parameters: Iterable[torch.Tensor], loss: float) -> None:
        """Before an update: note how large the parameters are, now and then, and whenever the loss has doubled."""
        if self.step % EVERY == 0 or abs(loss) > 2 * self.loss:
            self._note(parameters)
        self.step += 1
        self.loss = abs(loss)

    def _note(self, parameters: Iterable[torch.Tensor]) -> None:
        known = [one.detach() for one in parameters if isinstance(one, torch.nn.Parameter) and checkable(one)]
        # A kind of tensor that has no norm (sparse, of a subclass) is no reason to break the script.
        with contextlib.suppress(RuntimeError, NotImplementedError, TypeError):
            self.notes.append((self.step, torch._foreach_norm(known) if known else []))

    def sentence(self, now: Iterable[torch.Tensor], losses: Sequence[float]) -> str:
        """What has blown up, with its numbers; "" where the parameters did not."""
        self._note(now)
        sizes = [(step, _size(norms)) for step, norms in self.notes if norms]
        sizes = [(step, size) for step, size in sizes if math.isfinite(size)]
        if len(sizes) < 2 or sizes[-1][1] < BLOWN_UP * sizes[0][1] or not sizes[0][1]:
            return ""
        (first, before), (last, after) = sizes[0], sizes[-1]
        known = f"; loss {', '.join(f'{one:.3g}' for one in losses)}" if losses else ""
        return (
            f"the parameters grew {after / before:.3g}-fold in {last - first} step{'s' if last - first > 1 else ''} "
            f"(norm {before:.3g} to {after:.3g}{known}): lower the learning rate or warm it up; no rewrite of this "
            "line would have helped"
        )


def _size(norms: Sequence[torch.Tensor]) -> float:
    """The norm of all parameters together."""
    return math.sqrt(sum(float(one) ** 2 for one in norms))
