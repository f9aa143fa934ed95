"""``--tensorboard DIR``: loss, gradient norm, largest logit and headroom of every step (extra ``tensorboard``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch

from nanhunt.dtypes.formats import FORMATS
from nanhunt.errors import NanhuntError

from .numbers import checkable
from .tripwire import Roots

if TYPE_CHECKING:
    from .session import Session


class Log:
    """Writes four scalars per backward pass; as a context, closes the files at the end.

    The session's trip wire calls it after a healthy backward. Reading the numbers waits for the device.
    """

    def __init__(self, session: Session, folder: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise NanhuntError(
                "--tensorboard needs the package tensorboard",
                "Install it with: pip install 'nanhunt[tensorboard]'",
            ) from None
        self.writer: Any = SummaryWriter(folder)
        session.recorder.keeps_logits = True
        session.listeners.append(self.step)

    def step(self, session: Session, roots: Roots) -> None:
        """Log one step."""
        for name, value in scalars(session, roots).items():
            self.writer.add_scalar(f"nanhunt/{name}", value, session.step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.writer.close()


def scalars(session: Session, roots: Roots) -> dict[str, float]:
    """The step's numbers. ``headroom`` is how far the largest logit is from the format's exp limit."""
    found = {"loss": float(sum(root.detach().float().sum() for root, _ in roots))}
    grads = [
        leaf.grad.detach() for leaf in session.wire.leaves if leaf.grad is not None and checkable(leaf.grad)
    ]
    if grads:
        norms = [torch.linalg.vector_norm(grad, dtype=torch.float32) for grad in grads]
        found["gradient_norm"] = float(torch.linalg.vector_norm(torch.stack([norm.cpu() for norm in norms])))
    logits, session.recorder.logits = session.recorder.logits, None
    if logits is not None:
        largest = float(logits.max())
        found["largest_logit"] = largest
        found["headroom"] = FORMATS[str(logits.dtype).removeprefix("torch.")].exp_limit - largest
    return found
