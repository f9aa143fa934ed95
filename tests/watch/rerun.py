"""The test of truth: a patch applied by git, the script run again without nanhunt, every loss and gradient looked at.

Nothing of nanhunt's own watching is used here: another pair of eyes.
"""

from __future__ import annotations

import contextlib
import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


def apply(patch: str, folder: Path) -> None:
    """``git apply`` it in the folder."""
    command = ["git", "apply", "--whitespace=nowarn", "-"]
    subprocess.run(command, cwd=folder, input=patch, text=True, check=True, capture_output=True)


def faults(script: Path) -> list[str]:
    """Losses and gradients that are not finite when the script runs; what it raises counts as well."""
    return [fault for step in steps(script) for fault in step.faults]


@dataclass
class Step:
    """What one backward has left."""

    tensors: list[torch.Tensor] = field(default_factory=list)
    """The losses and the gradients."""
    faults: list[str] = field(default_factory=list)


def steps(script: Path) -> list[Step]:
    """Each backward of the script, without nanhunt; what it raises is the last one's fault."""
    found: list[Step] = []
    _forget(script.parent)
    sys.path.insert(0, str(script.parent))
    torch.manual_seed(0)
    try:
        with _looked_at(found):
            runpy.run_path(str(script), run_name="__main__")
    except Exception as error:
        found.append(Step(faults=[f"{type(error).__name__}: {error}"]))
    finally:
        sys.path.remove(str(script.parent))
        _forget(script.parent)
    return found


def changed(before: list[Step], after: list[Step]) -> tuple[int, int]:
    """Losses and gradients that were finite up to the first bad step and its own: how many, how many are others now."""
    count = others = 0
    for old, new in zip(before, after, strict=False):
        for was, now in zip(old.tensors, new.tensors, strict=False):
            sound = was.isfinite()
            scale = float(was[sound].abs().max()) if bool(sound.any()) else 1.0
            moved = ~((was - now).abs()[sound] <= 0.02 * max(scale, 1e-3))
            count, others = count + int(sound.sum()), others + int(moved.sum())
        if old.faults:
            break
    return count, others


def _forget(folder: Path) -> None:
    """Let the files beside the script be imported anew."""
    for name, module in list(sys.modules.items()):
        if name != "__main__" and str(getattr(module, "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


@contextlib.contextmanager
def _looked_at(found: list[Step]) -> Iterator[None]:
    backward, grad = torch.autograd.backward, torch.autograd.grad

    def watched(tensors: Any, *args: Any, **kwargs: Any) -> None:
        roots = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        leaves = [leaf for root in roots for leaf in _leaves(root)]
        backward(tensors, *args, **kwargs)
        found.append(_step(roots, [leaf.grad for leaf in leaves if leaf.grad is not None]))

    def differentiated(*args: Any, **kwargs: Any) -> Any:
        out = grad(*args, **kwargs)
        found.append(_step([], [one for one in out if one is not None]))
        return out

    torch.autograd.backward, torch.autograd.grad = watched, differentiated
    try:
        yield
    finally:
        torch.autograd.backward, torch.autograd.grad = backward, grad


def _step(roots: list[torch.Tensor], grads: list[torch.Tensor]) -> Step:
    faults = [f"the loss is {root}" for root in roots if not root.isfinite().all()]
    faults += [
        f"a gradient of shape {tuple(one.shape)} is not finite" for one in grads if not one.isfinite().all()
    ]
    return Step([one.detach().clone() for one in (*roots, *grads)], faults)


def _leaves(root: torch.Tensor) -> list[torch.Tensor]:
    waiting, seen, found = [root.grad_fn], set(), []
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found += [node.variable] if hasattr(node, "variable") else []
            waiting += [below for below, _ in node.next_functions]
    return found
