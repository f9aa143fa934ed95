"""What is known of each row in one dtype: plain booleans, which the rules read.

Two stages fill them in: ``screen`` where bounds prove them, ``confirm`` by running PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from nanhunt.operations.cross_entropy.forms import IMPLEMENTATIONS

Bools = npt.NDArray[np.bool_]


BLANK_FROM = 1000.0
"""From this magnitude on a constant row is no model's: what masks and sanitised NaN are filled with starts at 1e4, and
no dtype has an exp for it."""


@dataclass
class RowBehaviour:
    """What one implementation does with each row; every field bool (rows,)."""

    nan_probability: Bools
    """Some probability of the row is NaN."""
    zero_target_probability: Bools
    """The label's probability is exactly 0."""
    inf_loss: Bools
    nan_loss: Bools
    bad_gradient: Bools
    """Some entry of the row's gradient is NaN or infinite."""

    @property
    def bad_loss(self) -> Bools:
        """The row loss is NaN or infinite."""
        return self.inf_loss | self.nan_loss

    @property
    def fails(self) -> Bools:
        """The row loss or its gradient is not finite."""
        return self.inf_loss | self.nan_loss | self.bad_gradient


@dataclass
class RowFacts:
    """Facts on each row of a block; every field bool (rows,). "Logits" are those in the file unless it says cast."""

    nan_logit: Bools
    inf_logit: Bools
    fully_masked: Bools
    """Every logit is -inf."""
    constant: Bools
    """Every logit is the same finite number, and there are two at least."""
    blank: Bools
    """``constant``, at BLANK_FROM or beyond: no model's scores."""
    cast_overflow: Bools
    """A finite logit overflows in the cast (float8_e4m3fn: saturates)."""
    bad_label: Bools
    """Out of range, and not the ignored index."""
    ignored: Bools
    masked_target: Bools
    """The label's own logit is -inf."""
    exp_inf: Bools
    """Some exp of ``naive`` is inf."""
    sum_inf: Bools
    """No exp of ``naive`` is inf, their sum is."""
    sum_zero: Bools
    sum_subnormal: Bools
    zero_classes: Bools
    """Some unmasked class has probability 0 in ``naive``; filled in only where there are no targets."""
    options_at_fault: Bools
    """Weights, smoothing, temperature or probability targets make ``fused`` fail; without them it does not."""
    half_reduction: Bools
    """``fused`` sums the classes, or reduces the rows of the whole tensor, in half precision and overflows."""
    loss_sum_inf: Bools
    """The row losses of the whole tensor are finite, what ``fused`` adds them up to is not (but in half precision)."""
    mean_of_none: Bools
    """The mean over the whole tensor is over no rows."""
    collapsed: Bools
    """``fused`` loss and label gradient are exactly 0, the truth is not: it is at most (classes - 1) u (of float32 in
    half precision where classes are not last), and below u it always is. Held by test_collapsed."""
    absorbed: Bools
    """``logsumexp`` is off by more than its rounding bound, ``fused`` is not."""
    vanished: Bools
    """Outside the label, the gradient of ``fused`` is all 0, the truth is not."""
    low_headroom: Bools
    """The largest cast logit is within 10 % of the exp limit, or a magnitude within 10 % of the format's largest."""
    by: dict[str, RowBehaviour] = field(default_factory=dict)
    """Keyed by the names in ``IMPLEMENTATIONS``."""

    @property
    def rows(self) -> int:
        """How many rows these facts are about."""
        return len(self.nan_logit)


ROW_FIELDS = tuple(item.name for item in fields(RowFacts) if item.name != "by")
BEHAVIOUR_FIELDS = tuple(item.name for item in fields(RowBehaviour))


def nothing_wrong(rows: int) -> RowFacts:
    """Facts on healthy rows: all False, in arrays of their own."""
    healthy: dict[str, Any] = {name: np.zeros(rows, bool) for name in ROW_FIELDS}
    facts = RowFacts(**healthy)
    facts.by = {
        name: RowBehaviour(**{item: np.zeros(rows, bool) for item in BEHAVIOUR_FIELDS})
        for name in IMPLEMENTATIONS
    }
    return facts


def select(facts: RowFacts, where: npt.NDArray[np.intp]) -> RowFacts:
    """The facts on some of the rows."""
    part = nothing_wrong(0)
    for name in ROW_FIELDS:
        setattr(part, name, getattr(facts, name)[where])
    for name, behaviour in facts.by.items():
        part.by[name] = RowBehaviour(*(getattr(behaviour, item)[where] for item in BEHAVIOUR_FIELDS))
    return part
