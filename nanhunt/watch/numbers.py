"""The numbers of one tensor that a report needs, and the cheap test that asks for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

MAX_ROWS = 10
_PLAIN_TYPES = frozenset({torch.Tensor, torch.nn.Parameter})
_PLAIN_DTYPES = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})


@dataclass(frozen=True)
class Numbers:
    """Counts over all values; extremes over the finite ones (of complex values: over both parts)."""

    shape: tuple[int, ...]
    dtype: str
    values: int
    nan: int
    posinf: int
    neginf: int
    zero: int
    min: float | None
    max: float | None
    rows: tuple[int, ...]
    """The first rows (over the leading dimensions, flat) that hold NaN or an infinity."""
    bad_rows: int
    """How many there are."""

    @property
    def finite(self) -> bool:
        """Whether no value is NaN or infinite."""
        return not (self.nan or self.posinf or self.neginf)

    @property
    def kind(self) -> str:
        """The worst it holds: "NaN", "inf", "-inf" or "finite"."""
        return "NaN" if self.nan else "inf" if self.posinf else "-inf" if self.neginf else "finite"


@dataclass(frozen=True)
class Signs:
    """What kinds of non-finite values a tensor holds."""

    nan: bool = False
    posinf: bool = False
    neginf: bool = False

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Signs:
        """From the extremes, which show both infinities and pass NaN on."""
        values = _real(local(tensor).detach())
        low, high = values.amin().item(), values.amax().item()
        if math.isnan(high):
            return cls(True, bool(values.isposinf().any()), bool(values.isneginf().any()))
        return cls(False, high == math.inf, low == -math.inf)

    @property
    def finite(self) -> bool:
        """None of them."""
        return not (self.nan or self.posinf or self.neginf)

    @property
    def one_infinity(self) -> bool:
        """Infinities of one sign and no NaN, as a mask holds."""
        return not self.nan and self.posinf != self.neginf


def checkable(tensor: torch.Tensor) -> bool:
    """Whether it has floating or complex values that can be looked at (not meta, sparse, fake, freed or empty)."""
    return (
        (tensor.dtype.is_floating_point or tensor.dtype.is_complex)
        and tensor.dtype.itemsize > 1
        and tensor.layout is torch.strided
        and tensor.device.type != "meta"
        and tensor.numel() > 0
        and in_memory(tensor)
    )


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a DTensor that is here (to read the whole would wait for other processes); else the tensor."""
    part: torch.Tensor = getattr(tensor, "_local_tensor", tensor)
    return part


def in_memory(tensor: torch.Tensor) -> bool:
    """Whether its numbers are there.

    FSDP frees the memory of gathered parameters and keeps the tensors: to read one ends the process by SIGSEGV.
    """
    part = local(tensor)
    return part.numel() == 0 or part.layout is not torch.strided or part.untyped_storage().size() > 0


def address(tensor: torch.Tensor) -> int:
    """Where its numbers lie; views of one tensor have one address."""
    return local(tensor).untyped_storage().data_ptr()


def finite(tensor: torch.Tensor) -> bool:
    """Whether every value is finite. A sum decides almost always; only a suspicious one is looked at closely."""
    values = _real(local(tensor).detach())
    total = values.sum(dtype=torch.float32 if values.dtype.itemsize < 4 else None)
    return math.isfinite(total.item()) or bool(torch.isfinite(values).all())


def _real(tensor: torch.Tensor) -> torch.Tensor:
    """Real and imaginary parts as a last dimension of a complex tensor."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def all_finite(tensors: Sequence[torch.Tensor]) -> bool:
    """``finite`` for many tensors, with one wait for each device.

    Sums of magnitudes of finite values may overflow, but no NaN or infinity can hide: only a non-finite total needs
    the exact test. Those of plain tensors are one call: each call passes by the recorder, and on a GPU is a kernel.
    """
    if len(tensors) == 1 and tensors[0].numel() == 1 and _is_plain(tensors[0]):
        return math.isfinite(tensors[0].item())  # a loss
    with torch.no_grad():
        plain = [item for item in tensors if _is_plain(item)]
        sums = list(torch._foreach_norm(plain, 1)) if plain else []
        if len(plain) < len(tensors):
            sums += [_dense(item).sum() for item in tensors if not _is_plain(item) and _summable(item)]
    there = [total for total in sums if not total.is_cpu]
    totals = [total.item() for total in [*(total for total in sums if total.is_cpu), *_gathered(there)]]
    return all(map(math.isfinite, totals)) or all(finite(_dense(item)) for item in tensors if _summable(item))


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether nothing about it needs a second thought: no subclass or layout, numbers that are there, of one part."""
    return (
        type(tensor) in _PLAIN_TYPES
        and tensor.dtype in _PLAIN_DTYPES
        and tensor.layout is torch.strided
        and tensor.data_ptr() != 0  # empty, freed, or on the meta device
    )


def _gathered(sums: list[torch.Tensor]) -> list[torch.Tensor]:
    """One number for each device and dtype."""
    kinds = {(total.device, total.dtype) for total in sums}
    same = [[total for total in sums if (total.device, total.dtype) == kind] for kind in kinds]
    return [torch.stack(group).sum() for group in same]


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """The floating values of a sparse or complex tensor."""
    part = local(tensor)
    return _real(part.coalesce().values() if part.layout is torch.sparse_coo else part)


def _summable(tensor: torch.Tensor) -> bool:
    """Whether there are numbers to add: not in float8, on the meta device, or in a compressed sparse layout."""
    part = local(tensor)
    known_layout = part.layout in (torch.strided, torch.sparse_coo)
    filled = part.dtype.itemsize > 1 and part.device.type != "meta" and part.numel() > 0
    return known_layout and filled and in_memory(part)


def numbers(tensor: torch.Tensor) -> Numbers:
    """Look closely at one floating tensor, of any shape."""
    values = local(tensor).detach()
    parts = _real(values)
    bad = ~torch.isfinite(values)
    good = parts[torch.isfinite(parts)]
    rows = bad.reshape(-1, bad.shape[-1]).any(dim=-1) if bad.dim() > 1 else bad.reshape(-1)
    where = rows.nonzero().flatten()
    return Numbers(
        shape=tuple(values.shape),
        dtype=str(values.dtype).removeprefix("torch."),
        values=values.numel(),
        nan=int(values.isnan().sum()),
        posinf=int(parts.isposinf().sum()),
        neginf=int(parts.isneginf().sum()),
        zero=int((values == 0).sum()),
        min=float(good.min()) if good.numel() else None,
        max=float(good.max()) if good.numel() else None,
        rows=tuple(where[:MAX_ROWS].tolist()),
        bad_rows=where.numel(),
    )


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor inside lists, tuples, dicts and dataclasses (a model's output may be any of these)."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _inside(value.values())
    elif isinstance(value, list | tuple):
        yield from _inside(value)
    elif hasattr(value, "__dataclass_fields__"):
        yield from _inside(getattr(value, name) for name in value.__dataclass_fields__)


def _inside(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        yield from tensors_in(value)
