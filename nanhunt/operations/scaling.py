"""float8 as it is used: scaled before the cast, so that the largest number meets the largest of the format.

``scale = largest of the format / amax``, ``x * scale`` is cast, and what is read back is divided by ``scale``, all in
float32; amax, the largest finite magnitude, is that of the tensor (Micikevicius et al., FP8 Formats for Deep Learning,
2022, section 3) or of every 128 values along the last axis (DeepSeek-V3, 2024, section 3.3.2). Of a tensor of zeros, or
of numbers too small for a finite scale, amax is taken to be 1e-12, as torchao does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from nanhunt.dtypes.formats import FORMATS
from nanhunt.load.tensor import Tensor
from nanhunt.results.tensor import TensorReport

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

WAYS = ("tensor", "block", "none")
"""What one scale is for; "none": numbers are cast as they are."""
BLOCK = 128
"""Values along the last axis that share a scale."""
_LEAST_AMAX = 1e-12
_CHUNK = 1 << 20
"""Values scaled at once."""


@dataclass(frozen=True)
class Cast:
    """One way of getting a tensor's numbers into a format."""

    dtype: str
    scaling: str = "none"
    """One of ``WAYS``."""

    def of(self, tensor: Tensor) -> Tensor:
        """The tensor to judge: itself, or in float32 what a scaled cast leaves of it."""
        return tensor if self.scaling == "none" else Scaled(tensor, self).read_back

    @property
    def name(self) -> str:
        """As reports name it."""
        return self.dtype if self.scaling == "none" else f"{self.dtype} scaled per {self.scaling}"

    @property
    def judged(self) -> str:
        """The format to judge that tensor in: what is read back from a scaled cast is float32."""
        return self.dtype if self.scaling == "none" else "float32"

    def told(self, report: TensorReport, tensor: Tensor) -> TensorReport:
        """The report on ``of(tensor)`` as one on ``tensor``, saying how it was scaled."""
        if self.scaling == "none":
            return report
        note = f"{Scaled(tensor, self).how}, cast to {self.dtype}, scaled back and judged in float32"
        notes = (note, *report.notes)
        return replace(report, stored_dtype=tensor.dtype, dtype=self.dtype, scaling=self.scaling, notes=notes)


def casts(tensor: Tensor, dtype: str, scaling: str, both: bool) -> tuple[Cast, ...]:
    """How ``tensor`` gets into ``dtype``; ``both``: float8 without scaling first, to be compared."""
    if dtype == tensor.dtype or FORMATS[dtype].has_arithmetic or scaling == "none":
        return (Cast(dtype),)
    return (*([Cast(dtype)] if both else []), Cast(dtype, scaling))


@dataclass(frozen=True)
class Scaled:
    """A tensor that is cast with scales."""

    tensor: Tensor
    cast: Cast

    @property
    def read_back(self) -> Tensor:
        """What the cast leaves, float32 of the same shape; made when it is read."""
        return Tensor(
            self.tensor.file, self.tensor.name, "float32", self.tensor.shape, self._values,
            note=self.tensor.note, owner=self.tensor.owner,
        )  # fmt: skip

    @property
    def how(self) -> str:
        """For readers of the report: "scaled per tensor by 448 / amax"."""
        of = f"block of {BLOCK} values" if self.cast.scaling == "block" else "tensor"
        return f"scaled per {of} by {FORMATS[self.cast.dtype].max:g} / amax"

    @cached_property
    def amax(self) -> float:
        """The largest finite magnitude of the tensor; 0 for a tensor without one."""
        return max((float(_amax(rows).max()) for _, rows in self._blocks()), default=0.0)

    def pieces(self) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Of every few rows (flat position of the first value, values, those read back, scales); rows x classes."""
        import torch

        from nanhunt.dtypes.convert import torch_dtype

        form = FORMATS[self.cast.dtype]
        for first, x in self._blocks():
            if self.cast.scaling == "block":
                scale = _scale(_amax(_in_blocks(x)), form.max)
                scale = scale.repeat_interleave(BLOCK, -1)[:, : x.shape[-1]]
            else:
                scale = _scale(torch.tensor(self.amax), form.max)
            back = (x * scale).to(torch_dtype(form.name)).float() / scale
            # Infinities are masks, put on after scaling back; NaN stays NaN.
            yield first, x, back.where(x.isfinite(), x), scale

    def _blocks(self) -> Iterator[tuple[int, torch.Tensor]]:
        """(flat position of the first value, rows as float32) over the tensor."""
        from nanhunt.dtypes.convert import to_torch

        shape = self.tensor.shape or (1,)
        size = max(1, shape[-1])
        step = max(1, _CHUNK // size) * size
        total = math.prod(shape)
        for start in range(0, total, step):
            part = self.tensor.flat(start, min(start + step, total))
            yield start, to_torch(part, self.tensor.dtype).float().reshape(-1, size)

    def _values(self) -> npt.NDArray[np.float32]:
        import numpy as np

        found = np.empty(self.tensor.shape, np.float32)
        flat = found.reshape(-1)
        for start, _, back, _ in self.pieces():
            flat[start : start + back.numel()] = back.reshape(-1).numpy()
        return found


def _amax(x: torch.Tensor) -> torch.Tensor:
    """The largest finite magnitude along the last axis, 0 where there is none."""
    return x.abs().nan_to_num(0.0, 0.0).amax(-1)


def _scale(amax: torch.Tensor, largest: float) -> torch.Tensor:
    return largest / amax.clamp_min(_LEAST_AMAX)


def _in_blocks(x: torch.Tensor) -> torch.Tensor:
    """(rows, classes) -> (rows, blocks, BLOCK), the last one filled up with zeros."""
    import torch.nn.functional as F

    return F.pad(x, (0, -x.shape[-1] % BLOCK)).reshape(len(x), -1, BLOCK)
