"""The run-up: how large the parameters were in the steps before, so that a learning rate that blew up can be told."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterable, Sequence

import torch

from .numbers import checkable

KEPT = 6
"""Steps."""
BLOWN_UP = 10.0
"""Growth of the parameters' norm over the kept steps that no training in good health shows."""


class RunUp:
    """The norm of each parameter before the last steps: a few floats a step, not waited for until they are asked."""

    def __init__(self) -> None:
        self.norms: deque[Sequence[torch.Tensor]] = deque(maxlen=KEPT)

    def note(self, parameters: Iterable[torch.Tensor]) -> None:
        """Before an update. A kind of tensor that has no norm is left out."""
        known = [one.detach() for one in parameters if isinstance(one, torch.nn.Parameter)]
        with contextlib.suppress(RuntimeError, NotImplementedError, TypeError):
            self.norms.append(torch._foreach_norm(known) if known else [])

    def sizes(self) -> list[float]:
        """The norm of all parameters together, oldest step first."""
        return [math.sqrt(sum(float(one) ** 2 for one in norms)) for norms in self.norms if norms]

    def sentence(self, now: Iterable[torch.Tensor], losses: Sequence[float]) -> str:
        """What has blown up, with its numbers; "" where the parameters did not."""
        self.note(one for one in now if checkable(one))
        sizes = [one for one in self.sizes() if math.isfinite(one)]
        if len(sizes) < 2 or sizes[-1] < BLOWN_UP * sizes[0] or not sizes[0]:
            return ""
        steps = len(sizes) - 1
        known = f"; loss {', '.join(f'{one:.3g}' for one in losses)}" if losses else ""
        return (
            f"the parameters grew {sizes[-1] / sizes[0]:.3g}-fold in {steps} step{'s' if steps > 1 else ''} "
            f"(norm {sizes[0]:.3g} to {sizes[-1]:.3g}{known}): lower the learning rate or warm it up; no rewrite "
            "of this line would have helped"
        )
