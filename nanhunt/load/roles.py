"""Which tensors of a container are logits, targets and class weights, and which only get a health check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod

from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container, NothingToCheck, NotNumbers
from nanhunt.load.options import ReadOptions
from nanhunt.load.reference import TARGETS, contents, inside, is_called, not_found, tensor_at
from nanhunt.load.tensor import FLOATING, INTEGER, Tensor
from nanhunt.load.wording import described, listed, printable

# Compiled by re when first used: most files hold one tensor without a name.
_LOGITS = r".*logits?(_per_\w+)?|(.*[_-])?scores?"
_SOFT_TARGETS = r"(.*[_-])?(targets?|labels?)([_-]probs?|[_-]probabilities)?"
_PARAMETER = (
    r"(.*[_-])?(weights?|bias|kernel|gamma|beta|embeddings?|exp_avg|exp_avg_sq|momentum_buffer"
    r"|square_avg|grad_avg|running_mean|running_var|lora_[ab]|weight_[gv]|inv_freq|master_param)"
)
"""Last name parts of what a model and its optimizer keep, in PyTorch's spelling and in Keras'."""


@dataclass(frozen=True)
class Chosen:
    """The roles in one container."""

    logits: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    """Other floating tensors; empty where the user named the logits."""
    targets: tuple[Tensor, str] | None = None
    """Labels or probability targets, and where they came from: "dump.npz:targets"."""
    class_weights: Tensor | None = None
    undecided: frozenset[str] = frozenset()
    """Labels of values that would fit labels beside them, where nothing is named like logits."""
    float_labels: tuple[Tensor, ...] = ()
    """Floating values that have the name and the shape of class labels, where there are no others."""


def choose(container: Container, options: ReadOptions) -> Chosen:
    """Roles by ``options``, and where those are silent by names and shapes.

    Without ``--logits``: tensors named like logits or scores, or a lone floating one that is not named like a
    parameter; everything else is values. Without ``--targets``: an integer tensor named like labels, or a
    floating one of the logits' shape. Targets and weights are looked for only where there are logits.
    Raises NothingToCheck when no tensor is floating, NanhuntError for names that lead nowhere or to the wrong
    kind.
    """
    if not any(_is_floating(tensor) for tensor in container.tensors.values()):
        raise _nothing_floating(container)
    given = [inside(container, spec) for spec in (options.targets, options.class_weights) if spec is not None]
    logits, values = _logits_and_values(container, options.logits, [tensor for tensor in given if tensor])
    if not logits:
        return Chosen((), values, undecided=frozenset(_undecided(container, values, options.class_axis)))
    targets = _targets(container, options, logits)
    used = {targets[0].label} if targets else set()
    weights = options.class_weights
    rest = tuple(tensor for tensor in values if tensor.label not in used)
    return Chosen(
        logits,
        rest,
        targets,
        None if weights is None else tensor_at(weights, "class weights", options.stored_dtype, container),
        float_labels=() if targets else tuple(_float_labels(rest, logits, options.class_axis)),
    )


def _float_labels(
    values: tuple[Tensor, ...], logits: tuple[Tensor, ...], class_axis: int
) -> Iterator[Tensor]:
    for tensor in values:
        if is_called(_SOFT_TARGETS, tensor.name) and any(_fits(tensor, one, class_axis) for one in logits):
            yield tensor


def _undecided(container: Container, values: tuple[Tensor, ...], class_axis: int) -> Iterator[str]:
    labels = [tensor for tensor in container.tensors.values() if _is_like_targets(tensor, ())]
    for tensor in values:
        if len(tensor.shape) > 1 and any(
            each.dtype in INTEGER and _fits(each, tensor, class_axis) for each in labels
        ):
            yield tensor.label


def _is_floating(tensor: Tensor) -> bool:
    return tensor.dtype in FLOATING


def _logits_and_values(
    container: Container, names: Sequence[str], taken: list[Tensor]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    if names:
        chosen = [tensor for name in names for tensor in _named_logits(container, name)]
        return tuple({tensor.name: tensor for tensor in chosen}.values()), ()
    for name, error in container.refused.items():
        if is_called(_LOGITS, name) and not isinstance(error, NotNumbers):
            raise error  # choosing another tensor instead would hide the one that matters
    floating = [
        tensor for tensor in container.tensors.values() if _is_floating(tensor) and tensor not in taken
    ]
    logits = [tensor for tensor in floating if tensor.shape and is_called(_LOGITS, tensor.name)]
    logits = logits or _lone_logits(floating)
    return tuple(logits), tuple(tensor for tensor in floating if tensor not in logits)


def _lone_logits(floating: list[Tensor]) -> list[Tensor]:
    """The one tensor that can be logits because nothing else can; scalars beside it are losses and steps."""
    arrays = [tensor for tensor in floating if tensor.shape]
    if len(arrays) > 1:
        arrays = [tensor for tensor in arrays if not is_called(_SOFT_TARGETS, tensor.name)]
    lone = len(arrays) == 1 and not is_called(_PARAMETER, arrays[0].name)
    return arrays if lone else []


def _named_logits(container: Container, pattern: str) -> list[Tensor]:
    """Tensors for one --logits: the exact name first, then a glob over floating tensors."""
    exact = inside(container, pattern)
    matching = [tensor for name, tensor in container.tensors.items() if fnmatchcase(name, pattern)]
    floating = [tensor for tensor in ([exact] if exact else matching) if _is_floating(tensor)]
    if floating:
        return floating
    wrong = exact or next(iter(matching), None)
    if wrong is None:
        raise not_found(container, pattern, "--logits")
    hint = f"Logits are floating-point numbers. {contents(container)}"
    raise NanhuntError(f"{printable(wrong.label)} is {wrong.dtype}, which cannot be logits.", hint)


def _targets(
    container: Container, options: ReadOptions, logits: tuple[Tensor, ...]
) -> tuple[Tensor, str] | None:
    if options.targets is not None:
        tensor = tensor_at(options.targets, "targets", options.stored_dtype, container)
        return tensor, tensor.label
    found = _targets_beside(container, logits, options.class_axis)
    return (found, found.label) if found else None


def _targets_beside(container: Container, logits: tuple[Tensor, ...], class_axis: int) -> Tensor | None:
    """The tensor named like labels. With several, the one that fits; raises when that is not one."""
    named = [tensor for tensor in container.tensors.values() if _is_like_targets(tensor, logits)]
    integer = [tensor for tensor in named if not _is_floating(tensor)]
    candidates = integer or named
    if len(candidates) > 1:
        fitting = [tensor for tensor in candidates if all(_fits(tensor, one, class_axis) for one in logits)]
        beside = [tensor for tensor in fitting if all(_prefix(tensor) == _prefix(one) for one in logits)]
        candidates = next((few for few in (fitting, beside) if len(few) == 1), candidates)
    if len(candidates) > 1:
        names = listed(described(tensor) for tensor in candidates)
        message = f"{printable(container.file)} holds several tensors that could be the labels: {names}."
        raise NanhuntError(
            message, "Choose with --targets NAME (and the logits they belong to with --logits NAME)."
        )
    return candidates[0] if candidates else None


def _is_like_targets(tensor: Tensor, logits: tuple[Tensor, ...]) -> bool:
    if tensor.dtype in INTEGER:
        return tensor.dtype != "bool" and is_called(TARGETS, tensor.name)
    same_shape = _is_floating(tensor) and all(tensor.shape == one.shape for one in logits)
    return same_shape and tensor not in logits and is_called(_SOFT_TARGETS, tensor.name)


def _fits(targets: Tensor, logits: Tensor, class_axis: int) -> bool:
    """Whether there is one label per row of the logits."""
    axis = class_axis % max(1, len(logits.shape))
    rows = prod(logits.shape[:axis] + logits.shape[axis + 1 :])
    return targets.shape == logits.shape or prod(targets.shape) == rows


def _prefix(tensor: Tensor) -> str:
    return tensor.name.rpartition(".")[0]


def _nothing_floating(container: Container) -> NanhuntError:
    """NothingToCheck, unless something in the file could be logits if only it could be read."""
    for error in container.refused.values():
        if not (isinstance(error, NotNumbers) and container.tensors):
            return error
    message = f"{printable(container.file)} holds no floating-point tensor."
    hint = f"Logits are floating-point; labels are given with --targets. {contents(container)}"
    return NothingToCheck(message, hint)
