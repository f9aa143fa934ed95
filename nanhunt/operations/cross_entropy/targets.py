"""A targets tensor becomes what each row should have been, or an error that says why it cannot."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.convert import native, to_floats
from nanhunt.dtypes.errstate import ignoring
from nanhunt.dtypes.formats import FORMATS
from nanhunt.errors import NanhuntError
from nanhunt.load.rows import RowSource
from nanhunt.load.tensor import FLOATING, Tensor

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.integer]
SUM_TOLERANCE = 0.02
"""How far probabilities of a row may add up from 1: a softmax in half precision over many classes is off by 0.5 %."""
FLOAT8_TOLERANCE = 0.15
"""The same for float8, whose numbers are rounded by up to 1/16 each."""
BLOCK_VALUES = 1 << 20


class UnfitTargets(NanhuntError):  # noqa: N818 - nothing need be wrong with the tensors
    """These cannot be the targets of a softmax cross entropy over those logits: the loss is another, or not known."""

    def __init__(self, source: str, reason: str, hint: str, *, softmax: bool = True) -> None:
        """``reason`` is a predicate: what is true of the targets called ``source``."""
        super().__init__(f"{source} {reason}.", hint)
        self.reason = reason
        self.softmax = softmax
        """Whether the logits may still go through a softmax."""


@dataclass(frozen=True)
class Targets:
    """Labels of all rows (small: one integer each), or probabilities read block by block."""

    source: str
    rows: int
    labels: npt.NDArray[np.int64] | None = None
    """(rows,)"""
    ignored: Bools | None = None
    bad: Bools | None = None
    """Out of range and not ignored."""
    probabilities: RowSource | None = None
    probability_dtype: str = ""
    shape: tuple[int, ...] | None = None
    """Of labels as the user has them; None: that of the rows."""
    code: str = ""
    """The line that makes these targets of the user's, where they are not taken as they are."""

    def __getstate__(self) -> dict[str, Any]:
        """Other processes map what is large."""
        from nanhunt.load.spool import Portable  # only what goes to other processes

        return {
            name: Portable(value) if isinstance(value, np.ndarray) else value
            for name, value in self.__dict__.items()
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As __getstate__ left it."""
        from nanhunt.load.spool import Portable

        self.__dict__.update(
            {name: each.array if isinstance(each, Portable) else each for name, each in state.items()}
        )

    @property
    def kept(self) -> Bools:
        """Rows that the loss counts."""
        if self.ignored is None or self.bad is None:
            return np.ones(self.rows, bool)
        return ~(self.ignored | self.bad)


def leading(logits: Tensor, class_axis: int) -> tuple[int, ...]:
    """The logits' shape without the classes: one row each."""
    axis = class_axis % len(logits.shape)
    return logits.shape[:axis] + logits.shape[axis + 1 :]


def read_targets(tensor: Tensor, source: str, logits: Tensor, class_axis: int, ignore_index: int) -> Targets:
    """Targets for those logits, taken as they are. UnfitTargets when their kind, shape or values do not fit."""
    if tensor.dtype in FLOATING:
        return _probabilities(tensor, source, logits, class_axis)
    labels = whole_labels(tensor, source, logits, class_axis)
    return class_labels(labels, source, logits.shape[class_axis], ignore_index, tensor.shape)


def whole_labels(tensor: Tensor, source: str, logits: Tensor, class_axis: int) -> Ints:
    """Integer labels in the shape of the rows. Raises as ``read_targets`` does."""
    rows = leading(logits, class_axis)
    if tensor.dtype.startswith("complex"):
        raise UnfitTargets(source, f"is {tensor.dtype}", _KINDS)
    if tensor.shape == logits.shape != (1,):
        raise _per_class(tensor, source, class_axis)
    axis = class_axis % len(logits.shape)
    with_one = (*rows[:axis], 1, *rows[axis:])  # as Keras keeps labels, and images keep masks
    if tensor.shape not in (rows, with_one, (math.prod(rows),)):
        raise UnfitTargets(
            source,
            f"has shape {tensor.shape}, which does not fit logits of shape {logits.shape}",
            f"With --class-axis {class_axis} there are {math.prod(rows):,} rows, so labels must have shape {rows}"
            f" (or probabilities {logits.shape}). PyTorch's (N, C, d) layout needs --class-axis 1.",
        )
    if tensor.dtype == "bool":
        raise UnfitTargets(source, "is bool, which F.cross_entropy does not take", _KINDS)
    return native(tensor.data).reshape(rows)


_KINDS = "Give class numbers (integers) or probabilities."


def class_labels(
    data: Ints, source: str, classes: int, ignore_index: int, shape: tuple[int, ...], code: str = ""
) -> Targets:
    """Targets of labels that have the shape of the rows, and ``shape`` as the user has them."""
    ignored = (data == ignore_index).reshape(-1)
    bad = ((data < 0) | (data >= classes)).reshape(-1) & ~ignored
    labels = data.reshape(-1).astype(np.int64)
    return Targets(source, len(labels), labels, ignored, bad, shape=shape, code=code)


def _per_class(tensor: Tensor, source: str, class_axis: int) -> UnfitTargets:
    """Integers or booleans of the logits' own shape: F.cross_entropy takes none, so the loss was given others."""
    least, most = np.inf, -np.inf
    for _, block in tensor.rows(class_axis).blocks(_step(tensor, class_axis)):
        values = native(block)
        sums = np.where((values < 0).any(-1), -1, values.sum(-1, dtype=np.int64))
        if sums.size:
            least, most = min(least, float(sums.min())), max(most, float(sums.max()))
    if least == most == 1 or least > most:
        hint = "Save what the loss is given: targets.argmax(-1), or targets.float()."
        return UnfitTargets(
            source, f"is one-hot in {tensor.dtype}, which F.cross_entropy does not take", hint
        )
    return _no_distribution(source, least, most)


def _no_distribution(source: str, least: float, most: float) -> UnfitTargets:
    span = f"{least:.6g}" if least == most else f"{least:.6g} to {most:.6g}"
    return UnfitTargets(
        source,
        f"has the logits' shape and rows that add up to {span}, which are no probabilities",
        "That is a loss per class (--op bce judges binary_cross_entropy_with_logits) or a regression, not a softmax.",
        softmax=False,
    )


def _step(tensor: Tensor, class_axis: int) -> int:
    return max(1, BLOCK_VALUES // max(1, tensor.shape[class_axis]))


# ---------------------------------------------------------------------------------------------- probabilities


def _probabilities(tensor: Tensor, source: str, logits: Tensor, class_axis: int) -> Targets:
    rows = math.prod(leading(logits, class_axis))
    if tensor.shape == logits.shape:
        _check_sums(tensor, source, class_axis)
        return Targets(source, rows, probabilities=tensor.rows(class_axis), probability_dtype=tensor.dtype)
    if math.prod(tensor.shape) != rows:
        raise UnfitTargets(
            source,
            f"is {tensor.dtype} and has shape {tensor.shape}, which does not fit logits of shape {logits.shape}",
            "Probability targets have the logits' shape; labels must be integers.",
        )
    raise _one_number_a_row(tensor, source, logits.shape[class_axis])


def _one_number_a_row(tensor: Tensor, source: str, classes: int) -> UnfitTargets:
    values = to_floats(tensor.data, tensor.dtype)
    if bool(((values == np.floor(values)) & (values < classes)).all()):
        reason = f"is {tensor.dtype}, so it was not taken for labels"
        return UnfitTargets(source, reason, "Save class numbers as int64.")
    reason = (
        f"is {tensor.dtype} and holds other numbers than those of classes, so it was not taken for labels"
    )
    return UnfitTargets(source, reason, "This looks like a regression.")


@ignoring("invalid")  # NaN is told by the rows that it makes NaN
def _check_sums(tensor: Tensor, source: str, class_axis: int) -> None:
    """UnfitTargets unless every row is a distribution; rows of zeros are padding where others hold fractions."""
    tolerance = SUM_TOLERANCE if FORMATS[tensor.dtype].bits > 8 else FLOAT8_TOLERANCE
    least, most, empty, fractions = np.inf, -np.inf, False, False
    for _, block in tensor.rows(class_axis).blocks(_step(tensor, class_axis)):
        values = to_floats(block, tensor.dtype)
        if values.min(initial=0) < 0:
            reason = "has the logits' shape and holds negative numbers, which are no probabilities"
            raise UnfitTargets(source, reason, "This looks like a regression, not a softmax.", softmax=False)
        sums = values.sum(-1, dtype=np.float64)
        empty |= bool((sums == 0).any())
        fractions |= bool(((values > 0) & (values < 1)).any())
        counted = sums[sums != 0]
        least = np.fmin(least, np.fmin.reduce(counted, initial=np.inf))
        most = np.fmax(most, np.fmax.reduce(counted, initial=-np.inf))
    if least < 1 - tolerance or most > 1 + tolerance or (empty and not fractions):
        raise _no_distribution(source, 0.0 if empty else float(least), float(max(most, 0.0)))


def read_weights(tensor: Tensor, classes: int) -> npt.NDArray[np.float64]:
    """One weight per class, float64. NanhuntError when there are not as many as classes."""
    if tensor.dtype.startswith("complex") or math.prod(tensor.shape) != classes:
        raise NanhuntError(
            f"{tensor.label}: class weights of shape {tensor.shape} for {classes:,} classes.",
            f"Give one real number per class: shape ({classes},).",
        )
    data = to_floats(tensor.data, tensor.dtype) if tensor.dtype in FLOATING else native(tensor.data)
    return data.reshape(-1).astype(np.float64)
