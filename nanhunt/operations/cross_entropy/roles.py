"""Which tensors of a container are logits, targets and class weights, and which only get a health check."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container, NothingToCheck, NotNumbers
from nanhunt.load.numbers import values_beside
from nanhunt.load.options import ReadOptions
from nanhunt.load.reference import contents, matching, not_found, tensor_at, tensors_at
from nanhunt.load.roles import Candidates, is_called, place
from nanhunt.load.tensor import FLOATING, INTEGER, Tensor
from nanhunt.load.tree import coordinates
from nanhunt.load.wording import described, listed, printable
from nanhunt.operations.cross_entropy.tensors import (
    CLASS_MASK,
    CLASS_WEIGHTS,
    INPUTS,
    LOGITS,
    NOT_LOGITS,
    OTHERS_LABELS,
    SCORES,
    TARGETS,
)

UNDECIDED = (
    "its values were checked, no more: to judge it as logits for the labels beside it, use --logits NAME"
)


@dataclass(frozen=True)
class Pairing:
    """Logits and what may be the targets of their loss; whether they are, their values decide."""

    logits: Tensor
    targets: Tensor | None = None
    source: str = ""
    """Where the targets came from: "dump.npz:targets"."""
    assumed: str = ""
    """Why these are taken for logits though neither the user nor a name says so; empty where one does."""
    given: bool = True
    """Whether the user said which are the targets."""
    inputs: Tensor | None = None
    """The tokens that made these logits, where they are there."""
    notes: tuple[str, ...] = ()
    """What is to be said of the targets."""

    @property
    def named(self) -> bool:
        """Whether the user, or a name, says that these are logits."""
        return not self.assumed


@dataclass(frozen=True)
class Chosen:
    """The roles in one container."""

    pairings: tuple[Pairing, ...]
    values: tuple[Tensor, ...] = ()
    """Other floating tensors; empty where the user named the logits."""
    class_weights: Tensor | None = None
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What is to be said of values, by their label."""


def choose(container: Container, options: ReadOptions) -> Chosen:
    """Roles by ``options``, and where those are silent by names and shapes.

    Without ``--logits``: tensors named like logits or scores, or a lone floating one that is not named like
    something else; everything else is values. Without ``--targets``: the tensor named like labels that stands
    nearest to the logits. Targets and weights are looked for only where there are logits.
    Raises NothingToCheck when no tensor is floating, NanhuntError for names that lead nowhere or to the wrong
    kind.
    """
    beside = () if options.logits else values_beside(container)
    if not beside and not any(_is_floating(tensor) for tensor in container.tensors.values()):
        raise _nothing_floating(container)
    logits, values = _logits_and_values(container, options)
    values += beside
    if not logits:
        undecided = dict.fromkeys(_undecided(container, values, options.class_axis), (UNDECIDED,))
        return Chosen((), values, notes=undecided)
    pairings = tuple(_pairings(container, options, logits))
    used = {pairing.targets.label for pairing in pairings if pairing.targets}
    weights = options.class_weights
    return Chosen(
        pairings,
        tuple(tensor for tensor in values if tensor.label not in used),
        None if weights is None else tensor_at(weights, CLASS_WEIGHTS, options.stored_dtype, container),
    )


def _undecided(container: Container, values: tuple[Tensor, ...], class_axis: int) -> Iterator[str]:
    """Labels of values that would fit labels beside them, where nothing is named like logits."""
    labels = [tensor for tensor in TARGETS.among(container.tensors.values()) if _is_class_labels(tensor)]
    for tensor in values:
        if len(tensor.shape) > 1 and any(fits(each, tensor, class_axis) for each in labels):
            yield tensor.label


def _is_floating(tensor: Tensor) -> bool:
    return tensor.dtype in FLOATING


def _is_class_labels(tensor: Tensor) -> bool:
    return tensor.dtype in INTEGER and tensor.dtype != "bool"


# ---------------------------------------------------------------------------------------------- logits


def _logits_and_values(
    container: Container, options: ReadOptions
) -> tuple[dict[str, str], tuple[Tensor, ...]]:
    """(how each tensor came to be logits, by name: "" where it was told; the other floating tensors)."""
    if options.logits:
        chosen = [tensor for name in options.logits for tensor in _named_logits(container, name)]
        return dict.fromkeys((tensor.name for tensor in chosen), ""), ()
    for name, error in container.refused.items():
        if (is_called(LOGITS.called, name) or is_called(SCORES.called, name)) and not isinstance(
            error, NotNumbers
        ):
            raise error  # choosing another tensor instead would hide the one that matters
    given = [spec for spec in (options.targets, options.class_weights) if spec is not None]
    taken = {tensor.name for spec in given for tensor in matching(container, spec)}
    floating = [each for each in container.tensors.values() if _is_floating(each) and each.name not in taken]
    logits = {tensor.name: "" for tensor in floating if LOGITS.suits(tensor) or SCORES.suits(tensor)}
    logits = (
        logits
        or _lone_logits(container, floating, options)
        or dict.fromkeys(_pairs(container), _ASSUMED_PAIR)
    )
    return logits, tuple(tensor for tensor in floating if tensor.name not in logits)


def _lone_logits(container: Container, floating: list[Tensor], options: ReadOptions) -> dict[str, str]:
    """The one tensor that can be logits because nothing else can; scalars beside it are losses and steps."""
    arrays = [tensor for tensor in floating if tensor.shape]
    if len(arrays) > 1:
        arrays = [tensor for tensor in arrays if not TARGETS.suits(tensor)]
    if len(arrays) != 1 or is_called(NOT_LOGITS, arrays[0].name) or _is_of_the_run(arrays[0], options):
        return {}
    stem = container.file.replace("\\", "/").rpartition("/")[2].partition(".")[0]
    told = options.targets is not None
    if not arrays[0].name and not told:  # then the file is what has a name
        if is_called(NOT_LOGITS, stem):
            return {}
        told = is_called(LOGITS.called, stem)
    return {arrays[0].name: "" if told else _ASSUMED_LONE}


def _is_of_the_run(tensor: Tensor, options: ReadOptions) -> bool:
    """Whether path and name say that it is optimizer state, or which module or layer made it, and not of logits."""
    made_by = coordinates(tensor.file, tensor.name, options.layout)
    stem = tensor.file.replace("\\", "/").rpartition("/")[2].partition(".")[0]
    if made_by.get("phase") == "optimizer" or re.fullmatch(_REGISTERED, stem):
        return True
    if not made_by.keys() & {"module", "side", "layer"}:
        return False
    return not any(is_called(LOGITS.called, name) for name in (stem, str(made_by.get("module", ""))))


_REGISTERED = r"custom_checkpoint_[0-9]+"
"""accelerate's files for objects that are saved along: averages of weights, mostly."""
_ASSUMED_LONE = "assumed to be logits, as the only floating-point tensor here"
_ASSUMED_PAIR = "assumed to be logits, with the integers beside them as labels"


def _pairs(container: Container) -> dict[str, Tensor]:
    """(logits, labels) tuples, which have numbers for names: the integers, by the name of the floats they fit."""
    tuples: dict[str, list[Tensor]] = {}
    for name, tensor in container.tensors.items():
        around, _, last = name.rpartition(".")
        if last.isdigit():
            tuples.setdefault(around, []).append(tensor)
    found = {}
    for beside in tuples.values():
        floating = [tensor for tensor in beside if _is_floating(tensor)]
        labels = [tensor for tensor in beside if _is_class_labels(tensor)]
        if floating and is_called(NOT_LOGITS, floating[0].name):
            continue
        if len(beside) == 2 and len(floating) == len(labels) == 1 and _fits_somehow(labels[0], floating[0]):
            found[floating[0].name] = labels[0]
    return found


def _fits_somehow(labels: Tensor, logits: Tensor) -> bool:
    return len(logits.shape) > 1 and any(fits(labels, logits, axis) for axis in (-1, 1))


def _named_logits(container: Container, pattern: str) -> list[Tensor]:
    """Tensors for one --logits: the exact name first, then a glob over floating tensors."""
    asked = matching(container, pattern)
    floating = [tensor for tensor in asked if _is_floating(tensor)]
    if floating:
        return floating
    if not asked:
        raise not_found(container, pattern, "--logits")
    hint = f"Logits are floating-point numbers. {contents(container)}"
    raise NanhuntError(f"{printable(asked[0].label)} is {asked[0].dtype}, which cannot be logits.", hint)


# ---------------------------------------------------------------------------------------------- their targets


def _pairings(container: Container, options: ReadOptions, logits: dict[str, str]) -> Iterator[Pairing]:
    tensors = [container.tensors[name] for name in logits]
    others = [tensor for tensor in container.tensors.values() if tensor.name not in logits]
    given = options.targets is not None
    if options.targets is not None:
        labels, pairs = Candidates(tensors_at(options.targets, TARGETS, options.stored_dtype, container)), {}
    else:
        labels, pairs = Candidates(TARGETS.among(others)), _pairs(container)
    masks = Candidates(CLASS_MASK.among(others))
    inputs = Candidates(INPUTS.among(others))
    for tensor in tensors:
        pair = pairs.get(tensor.name)
        found, remark = (pair, "") if pair else _targets_of(tensor, labels, options, given)
        if found is None and not remark and not given:
            found = _class_mask(tensor, masks)
        read = [each for each in inputs.nearest(tensor) if found and each.shape == found.shape]
        yield Pairing(
            tensor, found, found.label if found else "", logits[tensor.name], given,
            read[0] if len(read) == 1 else None, (remark,) if remark else (),
        )  # fmt: skip


def _targets_of(
    logits: Tensor, candidates: Candidates, options: ReadOptions, given: bool
) -> tuple[Tensor | None, str]:
    """(the targets of these logits, what is to be said about them). NanhuntError for several that were named."""
    if not given and is_called(OTHERS_LABELS, logits.name):
        return (
            None,
            "named like logits that others are compared with: labels beside it were not taken for its own",
        )
    found = candidates.nearest(logits)
    found = [tensor for tensor in found if _is_class_labels(tensor)] or found
    for axis in (options.class_axis, 1):  # PyTorch's own layout shows in the labels' shape
        found = [tensor for tensor in found if fits(tensor, logits, axis)] or found
    shared = [len(_words(tensor) & _words(logits)) for tensor in found]
    found = [tensor for tensor, number in zip(found, shared, strict=True) if number == max(shared)]
    if len(found) < 2:
        return (found[0] if found else None), ""
    names = listed(described(tensor) for tensor in found)
    message = f"several tensors could be the labels of {printable(logits.label)}: {names}"
    if given:
        raise NanhuntError(f"{message}.", "Name one with --targets, or one in each place with a glob.")
    return None, f"{message}. Choose with --targets NAME"


def _class_mask(logits: Tensor, masks: Candidates) -> Tensor | None:
    """The mask (N, H, W) beside scores (N, C, H, W): a shape that nothing else has there."""
    wanted = logits.shape[:1] + logits.shape[2:]
    found = [mask for mask in masks.nearest(logits) if mask.shape == wanted and mask.dtype != "bool"]
    return found[0] if len(found) == 1 and not SCORES.suits(logits) else None


def _words(tensor: Tensor) -> set[str]:
    """val and logits of val_logits, which go with val_labels and not with train_labels."""
    return set(re.split("[_-]", place(tensor.name).word))


def fits(targets: Tensor, logits: Tensor, class_axis: int) -> bool:
    """Whether there is one label per row of the logits, or one number per class of each."""
    axis = class_axis % max(1, len(logits.shape))
    rows = prod(logits.shape[:axis] + logits.shape[axis + 1 :])
    return targets.shape == logits.shape or prod(targets.shape) == rows


def _nothing_floating(container: Container) -> NanhuntError:
    """NothingToCheck, unless something in the file could be logits if only it could be read."""
    for error in container.refused.values():
        if not (isinstance(error, NotNumbers) and container.tensors):
            return error
    message = f"{printable(container.file)} holds no floating-point tensor."
    hint = f"Logits are floating-point; labels are given with --targets. {contents(container)}"
    return NothingToCheck(message, hint)
