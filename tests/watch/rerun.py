"""The test of truth: a patch applied by git, the script run again without nanhunt, every loss and gradient looked at.

Nothing of nanhunt's own watching is used here: another pair of eyes.
"""

from __future__ import annotations

import contextlib
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


def apply(patch: str, folder: Path) -> None:
    """``git apply`` it in the folder."""
    command = ["git", "apply", "--whitespace=nowarn", "-"]
    subprocess.run(command, cwd=folder, input=patch, text=True, check=True, capture_output=True)


def faults(script: Path) -> list[str]:
    """Losses and gradients that are not finite when the script runs; what it raises counts as well."""
    found: list[str] = []
    _forget(script.parent)
    sys.path.insert(0, str(script.parent))
    try:
        with _looked_at(found):
            runpy.run_path(str(script), run_name="__main__")
    except Exception as error:
        found.append(f"{type(error).__name__}: {error}")
    finally:
        sys.path.remove(str(script.parent))
        _forget(script.parent)
    return found


def _forget(folder: Path) -> None:
    """Let the files beside the script be imported anew."""
    for name, module in list(sys.modules.items()):
        if name != "__main__" and str(getattr(module, "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


@contextlib.contextmanager
def _looked_at(found: list[str]) -> Iterator[None]:
    backward, grad = torch.autograd.backward, torch.autograd.grad

    def watched(tensors: Any, *args: Any, **kwargs: Any) -> None:
        roots = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        found.extend(f"the loss is {root}" for root in roots if not root.isfinite().all())
        leaves = [leaf for root in roots for leaf in _leaves(root)]
        backward(tensors, *args, **kwargs)
        bad = [leaf for leaf in leaves if leaf.grad is not None and not leaf.grad.isfinite().all()]
        found.extend(f"a gradient of shape {tuple(leaf.shape)} is not finite" for leaf in bad)

    def differentiated(*args: Any, **kwargs: Any) -> Any:
        out = grad(*args, **kwargs)
        bad = [one for one in out if one is not None and not one.isfinite().all()]
        found.extend(f"a gradient of shape {tuple(one.shape)} is not finite" for one in bad)
        return out

    torch.autograd.backward, torch.autograd.grad = watched, differentiated
    try:
        yield
    finally:
        torch.autograd.backward, torch.autograd.grad = backward, grad


def _leaves(root: torch.Tensor) -> list[torch.Tensor]:
    waiting, seen, found = [root.grad_fn], set(), []
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found += [node.variable] if hasattr(node, "variable") else []
            waiting += [below for below, _ in node.next_functions]
    return found
