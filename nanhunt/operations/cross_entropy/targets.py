"""A targets tensor becomes what each row should have been, or an error that says why it cannot."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.convert import native, to_floats
from nanhunt.errors import NanhuntError
from nanhunt.load.rows import Rows
from nanhunt.load.tensor import FLOATING, Tensor

Bools = npt.NDArray[np.bool_]


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
    probabilities: Rows | None = None
    probability_dtype: str = ""

    @property
    def kept(self) -> Bools:
        """Rows that the loss counts."""
        if self.ignored is None or self.bad is None:
            return np.ones(self.rows, bool)
        return ~(self.ignored | self.bad)


def read_targets(tensor: Tensor, source: str, logits: Tensor, class_axis: int, ignore_index: int) -> Targets:
    """Targets for those logits. NanhuntError when their kind or shape does not fit."""
    axis = class_axis % len(logits.shape)
    leading = logits.shape[:axis] + logits.shape[axis + 1 :]
    rows = math.prod(leading)
    if tensor.dtype in FLOATING:
        return _probabilities(tensor, source, logits, class_axis, rows)
    if tensor.dtype == "bool" or tensor.dtype.startswith("complex"):
        raise NanhuntError(
            f"{source}: targets are {tensor.dtype}.", "Give class numbers (integers) or probabilities."
        )
    if math.prod(tensor.shape) != rows or (len(tensor.shape) > 1 and tensor.shape != leading):
        raise NanhuntError(
            f"{source}: targets of shape {tensor.shape} do not fit logits {logits.label} of shape {logits.shape}.",
            f"With --class-axis {class_axis} there are {rows:,} rows, so labels must have shape {leading}"
            f" (or probabilities {logits.shape}). PyTorch's (N, C, d) layout needs --class-axis 1.",
        )
    return _labels(native(tensor.data), source, logits.shape[axis], ignore_index)


def _labels(data: npt.NDArray[np.integer], source: str, classes: int, ignore_index: int) -> Targets:
    ignored = (data == ignore_index).reshape(-1)
    bad = ((data < 0) | (data >= classes)).reshape(-1) & ~ignored
    labels = data.reshape(-1).astype(np.int64)
    return Targets(source, len(labels), labels, ignored, bad)


def _probabilities(tensor: Tensor, source: str, logits: Tensor, class_axis: int, rows: int) -> Targets:
    if tensor.shape != logits.shape:
        raise NanhuntError(
            f"{source}: floating targets of shape {tensor.shape} do not fit logits of shape {logits.shape}.",
            "Probability targets have the logits' shape; labels must be integers.",
        )
    return Targets(source, rows, probabilities=Rows(tensor.data, class_axis), probability_dtype=tensor.dtype)


def read_weights(tensor: Tensor, classes: int) -> npt.NDArray[np.float64]:
    """One weight per class, float64. NanhuntError when there are not as many as classes."""
    if tensor.dtype.startswith("complex") or math.prod(tensor.shape) != classes:
        raise NanhuntError(
            f"{tensor.label}: class weights of shape {tensor.shape} for {classes:,} classes.",
            f"Give one real number per class: shape ({classes},).",
        )
    data = to_floats(tensor.data, tensor.dtype) if tensor.dtype in FLOATING else native(tensor.data)
    return data.reshape(-1).astype(np.float64)
