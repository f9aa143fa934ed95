"""What a cast with scales loses of a tensor, counted from what is read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanhunt.dtypes.formats import FORMATS
from nanhunt.operations.scaling import Scaled
from nanhunt.operations.values.health import Casting

if TYPE_CHECKING:
    import torch


def casting(scaled: Scaled, most: int) -> Casting:
    """Counts over the whole tensor, and at most ``most`` first positions of each kind."""
    found = Casting()
    for start, x, back, scale in scaled.pieces():
        found = _added(found, _lost(scaled.cast.dtype, start, x, back, scale, most), most)
    return found


def relative_limit(dtype: str) -> float:
    """The part of amax below which the cast leaves 0: half the smallest number over the largest."""
    return FORMATS[dtype].smallest_subnormal / 2 / FORMATS[dtype].max


def _lost(
    dtype: str, start: int, x: torch.Tensor, back: torch.Tensor, scale: torch.Tensor, most: int
) -> Casting:
    finite, form = x.isfinite(), FORMATS[dtype]
    overflow = finite & ~back.isfinite()
    zero = finite & (x != 0) & (back == 0)
    was_subnormal = x.abs() < FORMATS["float32"].smallest_normal
    subnormal = finite & (back != 0) & ~was_subnormal & ((back * scale).abs() < form.smallest_normal)
    return Casting(
        int(overflow.sum()), int(zero.sum()), int(subnormal.sum()),
        _first(overflow, start, most), _first(zero, start, most),
    )  # fmt: skip


def _first(hit: torch.Tensor, start: int, most: int) -> tuple[int, ...]:
    return tuple((hit.reshape(-1).nonzero()[:most, 0] + start).tolist())


def _added(one: Casting, other: Casting, most: int) -> Casting:
    both = one + other
    return Casting(
        both.overflow, both.zero, both.subnormal, both.first_overflow[:most], both.first_zero[:most]
    )
