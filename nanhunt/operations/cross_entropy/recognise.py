"""Whose loss is it: what the values of logits and targets tell about it, and what had to be assumed.

Where they contradict a softmax cross entropy it is not judged as one; nothing is shifted, moved or left out
without a word.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nanhunt.dtypes.convert import to_floats
from nanhunt.dtypes.errstate import ignoring
from nanhunt.errors import NanhuntError
from nanhunt.load.rows import evenly
from nanhunt.load.tensor import FLOATING, Tensor
from nanhunt.load.wording import printable
from nanhunt.operations.cross_entropy import shift
from nanhunt.operations.cross_entropy.options import CrossEntropyOptions
from nanhunt.operations.cross_entropy.roles import Pairing
from nanhunt.operations.cross_entropy.targets import (
    SUM_TOLERANCE,
    Targets,
    UnfitTargets,
    class_labels,
    leading,
    read_targets,
)
from nanhunt.operations.cross_entropy.tensors import SCORES

SAMPLED_ROWS = 64
SAMPLED_VALUES = 1 << 20


@dataclass(frozen=True)
class Recognised:
    """How to judge one pairing."""

    softmax: bool
    """False: as numbers only."""
    options: CrossEntropyOptions
    """With the class axis that was found."""
    targets: Targets | None = None
    notes: tuple[str, ...] = ()
    """What was assumed, and why a loss is not judged."""


def recognise(pairing: Pairing, options: CrossEntropyOptions) -> Recognised:
    """What is known of the loss on these logits, which have at least one dimension and one class.

    Raises NanhuntError where the user named targets that cannot be those of a softmax cross entropy.
    """
    notes = list(pairing.notes)
    axis, remark = _class_axis(pairing, options)
    options = replace(options, class_axis=axis)
    notes += [remark] if remark else []
    if pairing.logits.shape[axis] == 1:
        notes.append(_ONE_CLASS)
        if not options.logits and not pairing.given:
            return Recognised(False, options, None, (*notes, _NUMBERS_ONLY))
    found: Targets | None = None
    if pairing.targets is not None:
        try:
            found, remarks = _targets(pairing, pairing.targets, options)
            notes += remarks
        except UnfitTargets as error:
            if pairing.given:
                raise
            notes.append(f"{printable(pairing.targets.name)} {error.reason}. {error.hint}")
            regression = not pairing.named and pairing.targets.dtype in FLOATING
            if (not error.softmax or regression) and not options.logits:
                return Recognised(False, options, None, (*notes, _NUMBERS_ONLY))
    else:
        notes += _unseen_axis(pairing, options)
    notes += _second_softmax(pairing.logits, axis)
    assumed = filter(None, [pairing.assumed])
    notes += filter(None, [pairing.logits.note])
    return Recognised(True, options, found, (*assumed, *notes))


_ONE_CLASS = (
    "one class a row: a softmax over it is 1 whatever the logit, so the loss is another one "
    "(--op bce judges binary_cross_entropy_with_logits)"
)
_NUMBERS_ONLY = "judged as numbers only: a softmax is not known to follow (--logits NAME says that it does)"


def _class_axis(pairing: Pairing, options: CrossEntropyOptions) -> tuple[int, str]:
    """(the dimension of the classes, what is to be said of it): PyTorch's (N, C, d) shows in the labels' shape."""
    shape, targets = pairing.logits.shape, pairing.targets
    given = options.class_axis % len(shape)
    if given != len(shape) - 1 or len(shape) < 3 or targets is None or targets.dtype in FLOATING:
        return options.class_axis, ""
    second = leading(pairing.logits, 1)
    if targets.shape not in (second, (second[0], 1, *second[1:])):
        return options.class_axis, ""
    if targets.shape == leading(pairing.logits, -1):
        if len(shape) > 3 and options.class_axis == -1:
            return 1, f"class axis 1, where F.cross_entropy has it; if they are last: --class-axis {given}"
        said = f"classes assumed in the last dimension of {shape}; where they are the second: --class-axis 1"
        return options.class_axis, said
    name = printable(targets.name or targets.label)
    return 1, f"class axis 1, as the shape of {name} says: {shape} without its second dimension is {second}"


def _unseen_axis(pairing: Pairing, options: CrossEntropyOptions) -> list[str]:
    """Images have their classes second, which only labels would show; scores of attention are four-dimensional too."""
    shape = pairing.logits.shape
    if len(shape) < 4 or options.class_axis not in (-1, len(shape) - 1) or SCORES.suits(pairing.logits):
        return []
    return [f"classes assumed in the last dimension of {shape}; for images: --class-axis 1"]


def _targets(pairing: Pairing, tensor: Tensor, options: CrossEntropyOptions) -> tuple[Targets, list[str]]:
    logits, axis = pairing.logits, options.class_axis
    if tensor.dtype in FLOATING:
        if options.shift:
            raise NanhuntError(f"{pairing.source}: --shift moves labels, not probabilities.", "Leave it out.")
        return read_targets(tensor, pairing.source, logits, axis, options.ignore_index), []
    alignment = shift.align(pairing, tensor, options)
    classes = logits.shape[axis]
    targets = class_labels(
        alignment.labels, pairing.source, classes, options.ignore_index, tensor.shape, alignment.code
    )
    notes = [alignment.note] if alignment.note else []
    return targets, [*notes, *_one_wrong_label(targets)]


def _one_wrong_label(targets: Targets) -> list[str]:
    """Where one number alone is out of range, and it is used for padding, that is more often than a fault."""
    assert targets.labels is not None
    assert targets.bad is not None
    wrong = targets.labels[targets.bad]
    if not len(wrong) or not (wrong == wrong[0]).all() or not (wrong[0] < 0 or wrong[0] in (255, 65535)):
        return []
    every = (
        "every label is" if len(wrong) == targets.rows else f"{len(wrong):,} of {targets.rows:,} labels are"
    )
    return [f"{every} {wrong[0]}: if that marks rows that the loss leaves out, say --ignore-index {wrong[0]}"]


@ignoring("over", "invalid")  # what is not finite is no probability
def _second_softmax(logits: Tensor, class_axis: int) -> list[str]:
    """Whether the rows are probabilities already, as far as a sample of them tells."""
    rows = logits.rows(class_axis)
    if not 1 < rows.classes <= SAMPLED_VALUES or not rows.count:
        return []
    most = min(rows.count, SAMPLED_ROWS, max(1, SAMPLED_VALUES // rows.classes))
    sample = evenly(rows.count, most)
    for part in (sample[:1], sample):  # one row is enough for nearly all logits
        values = to_floats(rows.take(part), logits.dtype)
        sums = values.sum(-1, dtype=np.float64)
        if not ((values >= 0).all() and (abs(sums - 1) <= SUM_TOLERANCE).all()):
            return []
    seen = "" if most == rows.count else f" ({most:,} of {rows.count:,} looked at)"
    return [
        f"the rows are probabilities: nonnegative, adding up to 1{seen}. A softmax over them is a second one; "
        "save the logits before the first, unless the loss was given these"
    ]
