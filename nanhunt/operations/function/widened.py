"""The user's code in float64 where it casts to float32 or less by itself: ``logits.float()`` is then no cast at all.

Without that the truth of such code would be as narrow as the code: exp(95) is infinite there too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from nanhunt.operations.trace import Uncompiled

_NARROW = frozenset({torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2})


@contextmanager
def widened() -> Iterator[None]:
    """While it lasts every cast to a narrower float, and every float that is made, is float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Widening():  # type: ignore[no-untyped-call]
            yield
    finally:
        torch.set_default_dtype(before)


class _Widening(Uncompiled):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return func(*map(_wide, args), **{name: _wide(each) for name, each in (kwargs or {}).items()})


def _wide(argument: Any) -> Any:
    return torch.float64 if isinstance(argument, torch.dtype) and argument in _NARROW else argument
