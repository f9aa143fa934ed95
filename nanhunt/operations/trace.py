"""Which operation inside a form made the first NaN or infinity: observed while the form runs on one unit.

So that the arithmetic behind a finding need not be written by hand for every form: "log(0) = -inf".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_NAMES = {"_softmax": "softmax", "_log_softmax": "log_softmax", "_to_copy": "cast", "reciprocal": "1/x"}
"""What users call an operation that dispatches under another name."""
_SILENT = frozenset(
    {"detach", "empty", "empty_like", "new_empty", "new_empty_strided", "clone", "where", "fill_", "full"}
    | {"full_like", "masked_fill", "scalar_tensor", "lift_fresh"}
)
"""Operations that make no numbers of their own: a NaN in what they return was there, or is written on purpose."""


@dataclass(frozen=True)
class FirstBad:
    """One operation whose result is not finite although nothing that went in explains it."""

    text: str
    """E.g. "log(0) = -inf", "bmm: -inf appears in a result of shape (1, 8, 8)"."""
    backward: bool
    """Whether it happened in the backward pass."""


def first_bad(run: Callable[[], torch.Tensor], upstream: float = 1.0) -> FirstBad | None:
    """Runs ``run`` forward, and backward from the sum of its result times ``upstream``; None if nothing went bad.

    ``run`` returns a tensor that requires a gradient, or not: then only the forward pass is looked at.
    """
    found: list[str] = []
    with Watcher(found.append):
        value = run()
        forward = len(found)
        if not forward and value.requires_grad:
            backward(value, upstream)
    return FirstBad(found[0], backward=not forward) if found else None


def backward(value: torch.Tensor, upstream: float) -> None:
    """The gradients of the sum of ``value``, any shape, times ``upstream`` as its dtype holds it."""
    torch.autograd.backward((value * torch.tensor(upstream, dtype=torch.float64).to(value.dtype)).sum())


class Uncompiled(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode for code that runs as it is written."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, and to see to that PyTorch would import its compiler, for seconds."""
        return False


class Watcher(Uncompiled):
    """Looks at what every dispatched operation was given and what it returned, up to the first that made a bad number.

    That one is told to ``tell`` in the words of ``explained``, while the frames that called it are still there.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tell: Callable[[str], None] | None = tell

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = _copied(args) if self._tell is not None and func._schema.is_mutable else args
        result = func(*args, **(kwargs or {}))
        if self._tell is not None:
            text = explained(func.overloadpacket.__name__, given, result)
            if text:
                tell, self._tell = self._tell, None
                tell(text)
        return result


def _copied(args: Sequence[Any]) -> list[Any]:
    """What an operation in place is about to overwrite."""
    return [each.clone() if isinstance(each, torch.Tensor) else each for each in args]


def _tensors(values: Sequence[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def explained(name: str, args: Sequence[Any], result: Any) -> str | None:
    """What a dispatched operation made NaN or infinite, "log(0) = -inf"; None where it is not to blame."""
    if name in _SILENT:
        return None
    inputs = [each for each in _tensors(args) if each.is_floating_point()]
    outputs = [each for each in _tensors([result]) if each.is_floating_point()]
    return _explained(name, args, inputs, outputs)


def _explained(
    name: str, args: Sequence[Any], inputs: list[torch.Tensor], outputs: list[torch.Tensor]
) -> str | None:
    """What went bad in this operation; None where its result is finite, or as bad as what went in."""
    for output in outputs:
        for is_bad in (torch.isnan, torch.isinf):
            bad = is_bad(output)
            if bool(bad.any()) and not any(_accounts_for(each, is_bad) for each in inputs):
                return _sentence(_NAMES.get(name, name.strip("_")), args, output, bad)
    return None


def _accounts_for(given: torch.Tensor, is_bad: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Whether a number that was there already explains the bad one: NaN any NaN, infinity and NaN an infinity."""
    if is_bad is torch.isinf:
        return bool((~given.isfinite()).any())
    return bool(given.isnan().any())


def _sentence(name: str, args: Sequence[Any], output: torch.Tensor, bad: torch.Tensor) -> str:
    at = tuple(int(index) for index in bad.nonzero()[0])
    value = _number(float(output[at]))
    operands = [_operand(each, output.shape, at) for each in args]
    if operands and all(each is not None for each in operands):
        return f"{name}({', '.join(each for each in operands if each)}) = {value}"
    shape = "x".join(map(str, output.shape)) or "one number"
    return f"{name} returns {value} ({shape}) from finite numbers"


def _operand(argument: Any, shape: torch.Size, at: tuple[int, ...]) -> str | None:
    """The number of an elementwise argument that went into the result at ``at``; None where that cannot be told."""
    if isinstance(argument, bool | int | float):
        return _number(float(argument))
    if not isinstance(argument, torch.Tensor):
        return None
    if argument.dim() == 0:
        return _number(float(argument))
    try:
        return _number(float(argument.expand(shape)[at])) if argument.dim() <= len(shape) else None
    except RuntimeError:  # not broadcast to the result: a sum, a product of matrices
        return None


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{value:.6g}"
