"""What may be infinite or NaN without being a fault: legal masks, and bookkeeping beside the weights.

Masks: -inf exactly above a diagonal of the last two dimensions, which no fault produces; or, in a tensor called
mask, nothing but 0 and -inf. Bookkeeping: one number (or a plain list) that is called like a metric or a best
score, or that a trainer keeps with its callbacks and arguments. A best score starts at infinity. What a model, an
optimizer or an average of weights keeps is never bookkeeping, but for the limits that observers start at
infinity. Everything else that is not finite is a fault.
"""

from __future__ import annotations

import math
import re

import numpy as np

from nanhunt.dtypes.convert import Array
from nanhunt.dtypes.formats import FORMATS
from nanhunt.load.tensor import Tensor
from nanhunt.operations.values.health import Casting, Counts

_MASK = r"(.*[_-])?masks?"
_STATE = (
    r"state|state_dicts?|params?|parameters|.*weights|module|nets?|network|generator|discriminator|param_groups"
    r"|(?!best_k_models)(.*[_-])?(models?|optim(izer)?s?|ema|average[ds]?|shadow)([_-].*)?"
)
"""Places of what training goes on with."""
_METRIC = (
    r"best|kth_value|mode_worse|(.*[_-])?(best|kth|worst|min|max)[_-](\w+[_-])?(score|value|metric|epoch|delta)"
    r"|(.*[_-])?(loss(es)?|metrics?|score|acc(uracy)?|perplexity|ppl|auc|f1|bleu|psnr|fid|mse|mae|rmse|wer|cer)"
    r"([_-](avg|mean|min|max|best|sum|value))?"
)
_LIMIT = r"min_vals?|max_vals?|(min|max|best)[_-](value|score|loss|metric)"
"""Buffers of observers (quantization) and running metrics, one number each."""
_MOMENT = (
    r"(max_)?exp_avg(_sq)?(_row|_col)?|exp_inf|momentum_buffer|square_avg|grad_avg|acc_delta"
    r"|(row|col)_var|(optim(izer)?(_states?)?(\.\d+)?\.)?state\.\d+\.(sum|prev|step_size|variance|ax|mu|eta)"
)
"""What torch's optimizers keep of each weight; common words only where an optimizer's state is."""
_KEPT = (
    r"callbacks|loops|metrics?|meters?|logs?|log_history|history|hyper_parameters|hparams|args|config|cfg"
    r"|trainer(_state)?|early_stopp(ing|er)|best_k_models"
)
"""Places where trainers keep what is no part of a model."""


def excuse(tensor: Tensor, counts: Counts) -> str:
    """Why values that are not finite are no fault here; "" where they are one."""
    if is_bookkeeping(tensor, has_nan=counts.nan > 0):
        return "a number kept beside the weights (a metric, a best score, a limit), not a weight"
    if counts.nan or counts.posinf or not counts.neginf:
        return ""
    if _called(tensor, _MASK) and counts.zero + counts.neginf == math.prod(tensor.shape):
        return "nothing but 0 and -inf: a mask, not a fault"
    if _is_causal(tensor, counts.neginf):
        return "-inf above the diagonal and nowhere else: a causal mask, not a fault"
    return ""


def is_bookkeeping(tensor: Tensor, *, has_nan: bool) -> bool:
    """Whether this is a number about the run and not one that it goes on with; see the module."""
    parts = _parts(tensor)
    single = math.prod(tensor.shape) == 1
    if any(re.fullmatch(_STATE, part) for part in parts[:-1]):
        return single and not has_nan and _called(tensor, _LIMIT)
    if single and any(re.fullmatch(_KEPT, part) for part in parts[:-1]):
        return True
    return len(tensor.shape) <= 1 and _called(tensor, _METRIC)


def is_moment(tensor: Tensor) -> bool:
    """Whether this is an average that an optimizer keeps. Nobody casts those with the weights."""
    path = ".".join(_parts(tensor))
    return _called(tensor, _MOMENT) or re.fullmatch(rf"(.*\.)?({_MOMENT})", path) is not None


def is_bias(tensor: Tensor) -> bool:
    """Whether this is added to activations, beside which what a format flushes to 0 is below a rounding."""
    return _called(tensor, r"(.*[_-])?bias(es)?")


def lowest_mask(tensor: Tensor, counts: Counts, casting: Casting) -> bool:
    """Whether all that overflows in a cast is a mask's lowest number, which then becomes -inf and masks as well."""
    lowest = -FORMATS[tensor.dtype].max
    all_told = counts.zero + casting.overflow == math.prod(tensor.shape)
    return _called(tensor, _MASK) and counts.min == lowest and counts.max == 0 and all_told


def _parts(tensor: Tensor) -> list[str]:
    return [part for part in re.split(r"[./]", tensor.name.lower()) if part] or [""]


def _called(tensor: Tensor, pattern: str) -> bool:
    """Whether the innermost word of its name, numbers left out, matches."""
    words = [part for part in _parts(tensor) if not part.isdigit()] or [""]
    return re.fullmatch(pattern, words[-1]) is not None


def _is_causal(tensor: Tensor, infinities: int) -> bool:
    """Whether -inf stands at columns j > i + k, k = 0 or columns - rows, of every matrix, and nowhere else."""
    if len(tensor.shape) < 2 or min(tensor.shape[-2:]) < 3:
        return False
    rows, columns = tensor.shape[-2:]
    matrices = tensor.data.reshape(-1, rows, columns)
    for shift in {0, columns - rows}:
        above = [max(0, columns - max(0, row + shift + 1)) for row in range(rows)]
        # The count settles nearly all tensors; only then is every row looked at.
        if sum(above) * len(matrices) == infinities:
            return all(
                _ends_in(row, length, tensor.dtype)
                for matrix in matrices
                for row, length in zip(matrix, above, strict=True)
            )
    return False


def _ends_in(row: Array, length: int, dtype: str) -> bool:
    """Whether the last ``length`` of a row of stored values are all -inf; the count says that no other is."""
    from nanhunt.dtypes.convert import to_floats

    return bool(np.isneginf(to_floats(row[row.size - length :], dtype)).all())
