"""What a test gives to losses, softmaxes and attentions: the tensors that may not survive another dtype."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

MOST = 20
"""Calls kept of each test: a training loop makes thousands that are alike."""


@dataclass(frozen=True)
class Capture:
    """The tensors of one call."""

    op: str
    """As --op takes it."""
    tensors: Mapping[str, torch.Tensor]
    """By role, detached."""
    fused: bool
    """Whether PyTorch's own function was called, and not a part of one written by hand."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """As keywords of ``nanhunt.check``."""


@dataclass(frozen=True)
class _Call:
    """A function of torch, and what of its arguments is what to nanhunt."""

    op: str
    roles: Mapping[str, str]
    """Parameter to role."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Parameter to option."""
    fused: bool = True
    names: tuple[str, ...] = ()
    """Its parameters, for a function without a signature."""


_SOFTMAX = _Call("cross-entropy", {"input": "logits"}, fused=False, names=("input", "dim"))
_CALLS: dict[Callable[..., Any], _Call] = {
    F.cross_entropy: _Call(
        "cross-entropy", {"input": "logits", "target": "targets"},
        {"ignore_index": "ignore_index", "reduction": "reduction", "label_smoothing": "label_smoothing"},
    ),
    F.binary_cross_entropy_with_logits: _Call(
        "bce", {"input": "logits", "target": "targets"}, {"reduction": "reduction"}
    ),
    F.scaled_dot_product_attention: _Call(
        "attention", {"query": "query", "key": "key", "value": "value", "attn_mask": "mask"},
        {"is_causal": "causal", "scale": "scale"},
        names=("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"),
    ),
    **dict.fromkeys((F.softmax, torch.softmax, torch.Tensor.softmax), _SOFTMAX),
    **dict.fromkeys((F.log_softmax, torch.log_softmax, torch.Tensor.log_softmax), _SOFTMAX),
}  # fmt: skip


class Captured(TorchFunctionMode):
    """Active, it keeps copies of what those functions are given; what they return is untouched."""

    def __init__(self) -> None:
        super().__init__()
        self.captures: list[Capture] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Called by torch in place of every function of its."""
        kwargs = kwargs or {}
        call = _CALLS.get(func)
        if call is not None and len(self.captures) < MOST:
            found = _capture(call, _named(func, call, args, kwargs))
            if found is not None:
                self.captures.append(found)
        return func(*args, **kwargs)


def _named(
    func: Callable[..., Any], call: _Call, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments by parameter."""
    names = call.names or tuple(inspect.signature(func).parameters)
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _capture(call: _Call, given: Mapping[str, Any]) -> Capture | None:
    """None where a role has no tensor, or the softmax is not over the last axis."""
    tensors = {
        role: given[name].detach().clone()
        for name, role in call.roles.items()
        if isinstance(given.get(name), torch.Tensor)
    }
    if call.op == "cross-entropy":
        logits = tensors.get("logits")
        if logits is None or not logits.is_floating_point() or logits.dim() == 0:
            return None
        if not call.fused and given.get("dim") not in (-1, logits.dim() - 1):
            return None
    options = {option: given[name] for name, option in call.options.items() if given.get(name) is not None}
    if options.get("reduction") == "none":
        options["reduction"] = "sum"
    return Capture(call.op, tensors, call.fused, options)
