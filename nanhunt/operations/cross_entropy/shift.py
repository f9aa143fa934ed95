"""Labels of a causal language model: position t predicts token t + 1, and what is saved beside the logits is unshifted.

transformers takes ``labels`` equal to ``input_ids`` and shifts them inside its loss; nanoGPT and others shift them
before. Both have the shape of the logits' rows, so that only the tokens that were read, or the logits, can tell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nanhunt.dtypes.convert import native, to_floats
from nanhunt.errors import NanhuntError
from nanhunt.load.roles import is_called
from nanhunt.load.rows import evenly
from nanhunt.load.tensor import Tensor
from nanhunt.load.wording import printable
from nanhunt.operations.cross_entropy.options import CrossEntropyOptions
from nanhunt.operations.cross_entropy.roles import Pairing
from nanhunt.operations.cross_entropy.targets import UnfitTargets, leading, whole_labels

Ints = npt.NDArray[np.integer]
SAMPLED = 512
LEAST_SAMPLED = 16
CLEAR = 0.5
"""Nats by which one alignment must beat the other on average ..."""
DEVIATIONS = 5.0
"""... and how many of its standard errors that must be."""
_SHIFTED_NAMES = r"(.*[_-])?(targets?|shift(ed)?_labels?)([_-]ids?)?|y|y_true"
"""Names that are used for labels that were shifted before they were saved; ``labels`` are not."""


@dataclass(frozen=True)
class Alignment:
    """Labels as they belong to the rows of the logits."""

    labels: Ints
    """In the shape of the rows."""
    code: str = ""
    """The line that makes them of the user's."""
    note: str = ""
    """What was assumed."""


def align(pairing: Pairing, tensor: Tensor, options: CrossEntropyOptions) -> Alignment:
    """Integer labels ``tensor`` for the rows of the logits.

    Raises UnfitTargets for labels that do not fit, and where nothing tells whether they are shifted and the
    user did not say which are the targets.
    """
    rows = leading(pairing.logits, options.class_axis)
    if options.shift is not False and rows and tensor.shape == (*rows[:-1], rows[-1] + 1):
        cut = native(tensor.data)[..., 1:]
        return Alignment(
            cut, "targets = targets[..., 1:]", f"labels are one longer than the logits: {_SHIFTED}"
        )
    labels = whole_labels(tensor, pairing.source, pairing.logits, options.class_axis)
    if options.shift is False or not rows or rows[-1] < 2:
        if options.shift:
            raise NanhuntError(
                f"{pairing.source}: --shift needs a sequence, and the rows have shape {rows}.",
                "Leave it out.",
            )
        return Alignment(labels)
    if options.shift:
        return _shifted(labels, options.ignore_index, f"--shift: {_SHIFTED}")
    return _recognised(pairing, tensor, labels, options)


_SHIFTED = "the logits at position t are judged against label t + 1"
_KEPT = "the logits at position t are judged against label t"


def _shifted(labels: Ints, ignore_index: int, note: str) -> Alignment:
    """As transformers does it: every label one position earlier, the last position without one."""
    moved = np.full_like(labels, ignore_index, dtype=np.int64)
    moved[..., :-1] = labels[..., 1:]
    code = (
        f"targets = F.pad(targets[..., 1:], (0, 1), value={ignore_index})  # position t predicts token t + 1"
    )
    return Alignment(moved, code, note)


def _recognised(pairing: Pairing, tensor: Tensor, labels: Ints, options: CrossEntropyOptions) -> Alignment:
    """By the tokens that were read, or else by which alignment the logits agree with."""
    told = None
    if pairing.inputs is not None:
        told = _by_inputs(labels, native(pairing.inputs.data).reshape(labels.shape), options.ignore_index)
    sequences = len(pairing.logits.shape) == 3 and options.class_axis in (-1, 2)
    if pairing.inputs is not None and told:
        name = printable(pairing.inputs.name)
        if not sequences:
            raise UnfitTargets(pairing.source, f"holds the same tokens as {name}", _ONE_SEQUENCE)
        note = f"the labels are {name} themselves, so {_SHIFTED} (--no-shift: label t)"
        return _shifted(labels, options.ignore_index, note)
    if told is False or not sequences:
        return Alignment(labels)
    return _by_logits(pairing, tensor, labels, options)


_ONE_SEQUENCE = "If the rows are one sequence, say --shift; else save logits as (batch, time, classes)."


def _by_logits(pairing: Pairing, tensor: Tensor, labels: Ints, options: CrossEntropyOptions) -> Alignment:
    gain, seen = _gain(pairing.logits, labels)
    if gain > 0:
        why = f"the loss is lower by {gain:.3g} on average for label t + 1 than for label t ({seen:,} positions)"
        return _shifted(labels, options.ignore_index, f"{why}: {_SHIFTED} (--no-shift: label t)")
    if is_called(_SHIFTED_NAMES, tensor.name):
        return Alignment(labels)
    if gain < 0:
        why = f"the loss is lower by {-gain:.3g} on average for label t than for label t + 1 ({seen:,} positions)"
        return Alignment(labels, note=f"{why}: {_KEPT} (--shift: label t + 1)")
    if pairing.given:
        return Alignment(labels, note=f"{_KEPT}; for unshifted labels of a causal language model: --shift")
    raise UnfitTargets(
        pairing.source,
        "may belong to the same position or, in a causal language model, to the one before; nothing here tells",
        "Say --no-shift or --shift to have the loss judged, or save input_ids beside them.",
    )


def _by_inputs(labels: Ints, inputs: Ints, ignore: int) -> bool | None:
    """Whether the labels are the tokens that were read (unshifted) or not; None where both or nothing fits."""
    kept = labels != ignore
    same = bool((labels == inputs)[kept].all())
    ahead = bool((labels[..., :-1] == inputs[..., 1:])[kept[..., :-1]].all())
    return None if same and ahead else same


def _gain(logits: Tensor, labels: Ints) -> tuple[float, int]:
    """(by how much the mean loss is lower for label t + 1 than for label t, in nats; positions looked at).

    0 where the difference is not clear. Both losses share their log-sum-exp, so two logits a row are all it takes.
    """
    classes = logits.shape[-1]
    flat = labels.reshape(-1, labels.shape[-1])
    here, ahead = flat[:, :-1], flat[:, 1:]
    usable = (here >= 0) & (here < classes) & (ahead >= 0) & (ahead < classes) & (here != ahead)
    at = np.flatnonzero(usable)
    at = at[evenly(len(at), SAMPLED)]
    sequence, position = np.divmod(at, here.shape[1])
    data = logits.data.reshape(len(flat), -1, classes) if logits.data.flags.c_contiguous else None
    if data is None or len(at) < LEAST_SAMPLED:
        return 0.0, 0
    picked = [
        to_floats(data[sequence, position, which[sequence, position]], logits.dtype).astype(np.float64)
        for which in (here, ahead)
    ]
    with np.errstate(invalid="ignore"):
        difference = picked[1] - picked[0]
    difference = difference[np.isfinite(difference)]
    seen = len(difference)
    if seen < LEAST_SAMPLED:
        return 0.0, seen
    mean, error = float(difference.mean()), float(difference.std()) / math.sqrt(seen)
    return (mean if abs(mean) > max(CLEAR, DEVIATIONS * error) else 0.0), seen
