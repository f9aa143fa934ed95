"""One tensor, one dtype, one loss: everything that the pass over its rows must know beforehand."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.convert import Array, rounded
from nanhunt.dtypes.formats import FORMATS, compute_format
from nanhunt.load.rows import RowSource
from nanhunt.load.tensor import Tensor
from nanhunt.operations.cross_entropy.facts import RowFacts
from nanhunt.operations.cross_entropy.layout import Layout
from nanhunt.operations.cross_entropy.options import CrossEntropyOptions, changes_terms, terms_of
from nanhunt.operations.cross_entropy.targets import Targets
from nanhunt.operations.rule import Rule
from nanhunt.operations.rules import of_operation

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.cross_entropy.confirm import Batch, RowTargets


@dataclass(frozen=True)
class Job:
    """Logits to judge."""

    tensor: Tensor
    dtype: str
    targets: Targets | None
    weights: npt.NDArray[np.float64] | None
    """(classes,)"""
    options: CrossEntropyOptions
    codes: frozenset[str]
    """Rules to look for."""
    sum_overflows: bool = False
    """Known from an earlier pass: the row losses are finite and add up past the largest number of the dtype."""

    @functools.cached_property
    def rows(self) -> RowSource:
        """The tensor as rows."""
        return self.tensor.rows(self.options.class_axis)

    def __getstate__(self) -> dict[str, Any]:
        """What units of work in other processes need: the plan of the whole tensor, counted once; no values."""
        counted = {"kept": self.kept, "divisor": self.divisor, "_all_ignored": self._all_ignored}
        known = {name: value for name, value in self.__dict__.items() if name not in ("rows", "judged")}
        return known | counted

    def ranges(self, values: int) -> Iterator[tuple[int, int]]:
        """(first row, the row after the last) of blocks of about ``values`` values over all rows."""
        if self.last_axis:
            step, count = max(1, values // max(1, self.rows.classes)), self.rows.count
            return ((first, min(first + step, count)) for first in range(0, count, step))
        return Layout(self.tensor, self.options.class_axis).ranges(values)

    def block(self, first: int, last: int) -> Array:
        """Stored values of one of those ranges, in the user's layout."""
        if self.last_axis:
            return self.rows.range(first, last)
        return Layout(self.tensor, self.options.class_axis).block(first, last)

    def around(self, row: int) -> tuple[int, Array]:
        """(its first row, the smallest block that treats that row as the whole tensor does)."""
        if self.last_axis:
            return row, self.rows.take(np.array([row]))
        return Layout(self.tensor, self.options.class_axis).around(row)

    @functools.cached_property
    def judged(self) -> list[Rule[Any, Any, Any]]:
        """The rules to look for, in order of causes."""
        rules = of_operation("cross-entropy", self.targets is not None)
        return [rule for rule in rules if rule.code in self.codes]

    @functools.cached_property
    def kept(self) -> int:
        """N of the mean: rows that the loss counts."""
        return self.rows.count if self.targets is None else int(np.count_nonzero(self.targets.kept))

    @property
    def half(self) -> bool:
        """Whether the losses are computed in float16."""
        return compute_format(self.dtype).is_narrow

    @property
    def last_axis(self) -> bool:
        """Whether the classes are the last dimension as stored."""
        return self.options.class_axis in (-1, len(self.tensor.shape) - 1)

    @property
    def plain(self) -> bool:
        """Whether the loss has none of the options that change its terms."""
        return not changes_terms(self.options) and self.weights is None

    @functools.cached_property
    def divisor(self) -> float:
        """What the mean divides by, in float64: N, or the weights (as cast) of the rows' labels; 1 for a sum."""
        if self.options.reduction == "sum":
            return 1.0
        targets = self.targets
        if self.weights is None or targets is None or targets.labels is None:
            return float(self.kept)
        weights = rounded(self.weights, compute_format(self.dtype).name)
        return float(weights[targets.labels[targets.kept]].sum())

    def row_targets(self, numbers: npt.NDArray[np.intp]) -> RowTargets:
        """The targets of the rows with those flat numbers."""
        from nanhunt.dtypes.convert import to_torch
        from nanhunt.operations.cross_entropy.confirm import RowTargets

        targets = self.targets
        if targets is None:
            return RowTargets()
        if targets.probabilities is not None:
            taken = targets.probabilities.take(numbers)
            return RowTargets(probabilities=to_torch(taken, targets.probability_dtype))
        assert targets.labels is not None
        assert targets.ignored is not None
        assert targets.bad is not None
        return RowTargets(targets.labels[numbers], targets.ignored[numbers], targets.bad[numbers])

    def mark_whole_tensor(self, facts: RowFacts, numbers: npt.NDArray[np.intp]) -> None:
        """Adds the facts that the whole tensor decides to those on the rows with those numbers."""
        if self.targets is None:
            return
        mean = self.options.reduction == "mean"
        facts.mean_of_none |= mean and self._all_ignored
        # The divisor of the mean is a float16 scalar inside F.cross_entropy: inf from 65,520 rows on.
        too_many = mean and self.kept >= FORMATS["float16"].overflow and self.targets.labels is not None
        if self.half and (self.sum_overflows or too_many):
            facts.half_reduction |= self.targets.kept[numbers]
        elif self.sum_overflows:
            facts.loss_sum_inf |= self.targets.kept[numbers]

    @functools.cached_property
    def _all_ignored(self) -> bool:
        """Whether every label is ignored; with one that is out of range there is no mean, but an IndexError."""
        ignored = None if self.targets is None else self.targets.ignored
        return ignored is not None and bool(ignored.all())

    @functools.cached_property
    def batch(self) -> Batch:
        """The loss as torch needs it."""
        from nanhunt.dtypes.convert import torch_dtype
        from nanhunt.operations.cross_entropy.confirm import Batch
        from nanhunt.operations.cross_entropy.forms import Loss

        dtype = torch_dtype(compute_format(self.dtype).name)
        weights = None if self.weights is None else _tensor(self.weights).to(dtype)
        options = Loss(**terms_of(self.options), weights=weights, last_axis=self.last_axis)
        by_hand, fused, fused_plain = self._gradients(dtype, weights)
        return Batch(self.tensor.dtype, self.dtype, options, by_hand, fused, fused_plain)

    def _gradients(
        self, dtype: torch.dtype, weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the reduction hands back to each row loss: (by hand, fused, fused without class weights)."""
        import torch

        one = torch.ones((), dtype=dtype)
        if self.options.reduction == "sum":
            return one, one, one
        targets = self.targets
        if targets is None or targets.labels is None:
            # F.cross_entropy divides by the number of rows as a Python number, whatever the weights.
            by_hand = one / float(self.kept)
            return by_hand, by_hand, by_hand
        count = torch.tensor(float(self.kept), dtype=dtype)
        by_hand = one / float(self.kept)
        if weights is None:
            return by_hand, one / count, one / count
        total = weights[_tensor(targets.labels[targets.kept])].sum()
        return one / total, one / total, one / count


def _tensor(values: npt.NDArray[np.float64] | npt.NDArray[np.int64]) -> torch.Tensor:
    import torch

    return torch.from_numpy(values.copy())
