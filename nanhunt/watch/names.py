"""What the user calls things: modules, parameters, variables, operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any

import torch

from .site import foreign
from .tape import Module

SOFTMAX_LIKE = frozenset({"exp", "softmax", "log_softmax", "cross_entropy", "logsumexp"})
"""Operations whose first argument are logits."""
_SPELLINGS = {
    "rsub": "sub", "truediv": "div", "rtruediv": "div", "rdiv": "div", "rpow": "pow", "radd": "add",
    "rmul": "mul", "rmatmul": "matmul", "getitem": "index", "setitem": "index_put", "true_divide": "div",
    "iadd": "add_", "isub": "sub_", "imul": "mul_", "itruediv": "div_",
}  # fmt: skip


def operation(func: Callable[..., Any]) -> str:
    """A torch function as people write it: "exp", "div", "cross_entropy"."""
    name = getattr(func, "__name__", type(func).__name__)
    bare = name.strip("_") if name.startswith("__") else name
    return _SPELLINGS.get(bare, bare)


def plain(op: str) -> str:
    """A low-level operation without the decoration that tells variants apart: "_softmax" -> "softmax"."""
    bare = op.strip("_").removeprefix("native_").removeprefix("linalg_")
    return _SPELLINGS.get(bare, bare)


def module_path(module: Module | None) -> str:
    """Dotted path below the outermost module, and the class: "layers.3.attn (Attention)"; "" outside."""
    if module is None:
        return ""
    running, outer = module
    root = running
    while outer is not None:
        root, outer = outer
    path = next((name for name, item in root.named_modules() if item is running), "")
    return f"{path} ({type(running).__name__})" if path else type(running).__name__


class Names:
    """Names of tensors: parameters by their module, else the variable that holds them."""

    def __init__(self, roots: Iterable[torch.nn.Module], frame: FrameType | None) -> None:
        self.by_id: dict[int, str] = {}
        self.buffers: set[str] = set()
        """Names of the modules' buffers."""
        visible = list(scopes(frame))
        for variables in reversed(visible):
            self.by_id.update(_tensors(variables))
        modules = {id(item): item for item in roots}
        for variables in visible:
            modules.update(
                {id(item): item for item in variables.values() if isinstance(item, torch.nn.Module)}
            )
        for root in modules.values():
            self.buffers.update(name for name, _ in root.named_buffers())
            for found in (root.named_buffers(), root.named_parameters()):
                self.by_id.update({id(tensor): name for name, tensor in found})

    def of(self, tensor: torch.Tensor) -> str:
        """Its name, or its shape."""
        return self.by_id.get(id(tensor)) or f"a tensor of shape {tuple(tensor.shape)}"

    def known(self, tensor: torch.Tensor) -> str | None:
        """Its name, if it has one."""
        return self.by_id.get(id(tensor))


def scopes(frame: FrameType | None) -> Iterable[Mapping[str, Any]]:
    """The variables of the user's frames, innermost first, then the script's globals."""
    while frame is not None:
        if not foreign[frame.f_code.co_filename]:
            yield dict(frame.f_locals)
            if frame.f_back is None or foreign[frame.f_back.f_code.co_filename]:
                yield {name: value for name, value in frame.f_globals.items() if not name.startswith("__")}
        frame = frame.f_back


def _tensors(variables: Mapping[str, Any]) -> dict[int, str]:
    found = {}
    for name, value in variables.items():
        if isinstance(value, torch.Tensor):
            found[id(value)] = name
        elif isinstance(value, dict):
            for key, item in value.items():
                if isinstance(item, torch.Tensor):
                    found[id(item)] = f"{name}[{key!r}]"
        elif isinstance(value, list | tuple) and len(value) <= 1000:
            found.update(
                {id(item): f"{name}[{n}]" for n, item in enumerate(value) if isinstance(item, torch.Tensor)}
            )
    return found
