"""Which tensors of a container are logits, targets and class weights, and which only get a health check."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path

from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container, NothingToCheck, NotNumbers
from nanhunt.load.opening import open_path
from nanhunt.load.source import STDIN
from nanhunt.load.tensor import FLOATING, INTEGER, Tensor
from nanhunt.load.wording import described, did_you_mean, listed, printable
from nanhunt.options import Options

# Compiled by re when first used: most files hold one tensor without a name.
_LOGITS = r".*logits?(_per_\w+)?|(.*[_-])?scores?"
_TARGETS = r"(.*[_-])?(targets?|labels?)([_-](ids?|idx|index))?|y|y_true"
_SOFT_TARGETS = r"(.*[_-])?(targets?|labels?)([_-]probs?|[_-]probabilities)?"
_CLASS_WEIGHTS = r"((class|ce|loss)[_-]?)?weights?"
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


def choose(container: Container, options: Options) -> Chosen:
    """Roles by ``options``, and where those are silent by names and shapes.

    Without ``--logits``: tensors named like logits or scores, or a lone floating one that is not named like a
    parameter; everything else is values. Without ``--targets``: an integer tensor named like labels, or a
    floating one of the logits' shape. Targets and weights are looked for only where there are logits.
    Raises NothingToCheck when no tensor is floating, NanhuntError for names that lead nowhere or to the wrong
    kind.
    """
    if not any(_is_floating(tensor) for tensor in container.tensors.values()):
        raise _nothing_floating(container)
    given = [
        _inside(container, name) for name in (options.targets, options.class_weights) if name is not None
    ]
    logits, values = _logits_and_values(container, options.logits, [tensor for tensor in given if tensor])
    if not logits:
        return Chosen((), values)
    targets = _targets(container, options, logits)
    used = {targets[0].label} if targets else set()
    weights = options.class_weights
    return Chosen(
        logits,
        tuple(tensor for tensor in values if tensor.label not in used),
        targets,
        None if weights is None else _resolved(container, weights, options, "class weights", _lone_weights),
    )


def _is_floating(tensor: Tensor) -> bool:
    return tensor.dtype in FLOATING


def _logits_and_values(
    container: Container, names: tuple[str, ...], taken: list[Tensor]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    if names:
        chosen = [tensor for name in names for tensor in _named_logits(container, name)]
        return tuple({tensor.name: tensor for tensor in chosen}.values()), ()
    for name, error in container.refused.items():
        if _is_called(_LOGITS, name) and not isinstance(error, NotNumbers):
            raise error  # choosing another tensor instead would hide the one that matters
    floating = [
        tensor for tensor in container.tensors.values() if _is_floating(tensor) and tensor not in taken
    ]
    logits = [tensor for tensor in floating if tensor.shape and _is_called(_LOGITS, tensor.name)]
    logits = logits or _lone_logits(floating)
    return tuple(logits), tuple(tensor for tensor in floating if tensor not in logits)


def _lone_logits(floating: list[Tensor]) -> list[Tensor]:
    """The one tensor that can be logits because nothing else can; scalars beside it are losses and steps."""
    arrays = [tensor for tensor in floating if tensor.shape]
    if len(arrays) > 1:
        arrays = [tensor for tensor in arrays if not _is_called(_SOFT_TARGETS, tensor.name)]
    lone = len(arrays) == 1 and not _is_called(_PARAMETER, arrays[0].name)
    return arrays if lone else []


def _is_called(pattern: str, name: str) -> bool:
    """Whether the innermost name matches: "logits" for outputs.logits, logits.0 and logits_1."""
    parts = [part for part in re.split(r"[./]", name.lower()) if part and not part.isdigit()]
    return bool(parts) and re.fullmatch(pattern, re.sub(r"[_-]?[0-9]+$", "", parts[-1])) is not None


def _named_logits(container: Container, pattern: str) -> list[Tensor]:
    """Tensors for one --logits: the exact name first, then a glob over floating tensors."""
    exact = _inside(container, pattern)
    matching = [tensor for name, tensor in container.tensors.items() if fnmatchcase(name, pattern)]
    floating = [tensor for tensor in ([exact] if exact else matching) if _is_floating(tensor)]
    if floating:
        return floating
    wrong = exact or next(iter(matching), None)
    if wrong is None:
        raise _not_found(container, pattern, "--logits")
    hint = f"Logits are floating-point numbers. {_contents(container)}"
    raise NanhuntError(f"{printable(wrong.label)} is {wrong.dtype}, which cannot be logits.", hint)


def _inside(container: Container, spec: str) -> Tensor | None:
    """The tensor of that name (or FILE:NAME with this file); None when there is none.

    Raises why when it is there and cannot be read.
    """
    name = spec.removeprefix(f"{container.file}:")
    if name in container.refused:
        raise container.refused[name]
    return container.tensors.get(name)


def _targets(container: Container, options: Options, logits: tuple[Tensor, ...]) -> tuple[Tensor, str] | None:
    if options.targets is not None:
        tensor = _resolved(container, options.targets, options, "targets", _lone_targets)
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
        return tensor.dtype != "bool" and _is_called(_TARGETS, tensor.name)
    same_shape = _is_floating(tensor) and all(tensor.shape == one.shape for one in logits)
    return same_shape and tensor not in logits and _is_called(_SOFT_TARGETS, tensor.name)


def _fits(targets: Tensor, logits: Tensor, class_axis: int) -> bool:
    """Whether there is one label per row of the logits."""
    axis = class_axis % len(logits.shape)
    rows = prod(logits.shape[:axis] + logits.shape[axis + 1 :])
    return targets.shape == logits.shape or prod(targets.shape) == rows


def _prefix(tensor: Tensor) -> str:
    return tensor.name.rpartition(".")[0]


def _lone_targets(container: Container) -> Tensor | None:
    """The tensor in a file of targets: the only one, the only one named so, or the only integers."""
    tensors = list(container.tensors.values())
    named = [tensor for tensor in tensors if _is_called(_TARGETS, tensor.name)]
    integer = [tensor for tensor in tensors if tensor.dtype in INTEGER]
    return _only(tensors, named, integer)


def _lone_weights(container: Container) -> Tensor | None:
    tensors = list(container.tensors.values())
    named = [tensor for tensor in tensors if _is_called(_CLASS_WEIGHTS, tensor.name)]
    return _only(tensors, named, [tensor for tensor in tensors if _is_floating(tensor)])


def _only(*choices: list[Tensor]) -> Tensor | None:
    return next((tensors[0] for tensors in choices if len(tensors) == 1), None)


def _resolved(
    container: Container,
    spec: str,
    options: Options,
    role: str,
    lone: Callable[[Container], Tensor | None],
) -> Tensor:
    """The tensor that FILE, NAME or FILE:NAME means; a name in ``container`` comes first, then a file."""
    inside = _inside(container, spec)
    if inside is not None:
        return inside
    option = "--" + role.replace(" ", "-")
    for file, name in _readings(spec):
        other = _opened(file, options.stored_dtype)
        tensor = lone(other) if name is None else _inside(other, name)
        if tensor is not None:
            return tensor
        if name is not None:
            raise _not_found(other, name, option)
        message = f"{printable(file)} holds several tensors, and it is not clear which are the {role}."
        raise NanhuntError(message, f"Name one: {option} {printable(file)}:NAME. {_contents(other)}")
    raise _no_such_tensor_or_file(container, spec, option)


def _readings(spec: str) -> Iterator[tuple[str, str | None]]:
    """FILE, then FILE:NAME at every colon, where such a file exists: both may hold colons themselves."""
    if _exists(spec):
        yield spec, None
    for colon in re.finditer(":", spec):
        if _exists(spec[: colon.start()]):
            yield spec[: colon.start()], spec[colon.end() :]


def _exists(file: str) -> bool:
    try:
        return file == STDIN or (file != "" and Path(file).exists())
    except (OSError, ValueError):
        return False


def _opened(file: str, stored_dtype: str | None) -> Container:
    try:
        container = open_path(file, stored_dtype)
    except NothingToCheck as error:  # of no concern in a search, but this file was named
        raise NanhuntError(error.message, error.hint) from None
    if not container.tensors:
        raise next(iter(container.refused.values()))
    return container


def _nothing_floating(container: Container) -> NanhuntError:
    """NothingToCheck, unless something in the file could be logits if only it could be read."""
    for error in container.refused.values():
        if not (isinstance(error, NotNumbers) and container.tensors):
            return error
    message = (
        f"{printable(container.file)} holds no floating-point tensor: {_list(container.tensors.values())}."
    )
    return NothingToCheck(message, "Logits are floating-point numbers; labels are given with --targets.")


def _not_found(container: Container, name: str, option: str) -> NanhuntError:
    message = f'{printable(container.file)} holds no tensor "{printable(name)}" ({option}).'
    return NanhuntError(message, did_you_mean(name, container.tensors) + _contents(container))


def _no_such_tensor_or_file(container: Container, spec: str, option: str) -> NanhuntError:
    message = f'"{printable(spec)}" ({option}) is neither a file nor a tensor in {printable(container.file)}.'
    return NanhuntError(
        message, did_you_mean(spec, [*container.tensors, *_neighbours(spec)]) + _contents(container)
    )


def _neighbours(spec: str) -> list[str]:
    folder = Path(spec.partition(":")[0]).parent
    try:
        return sorted(str(path) for path in folder.iterdir() if path.is_file())
    except (OSError, ValueError):
        return []


def _contents(container: Container) -> str:
    if list(container.tensors) == [""]:
        return f"The file holds one tensor without a name: {_list(container.tensors.values())}."
    return f"The file holds: {_list(container.tensors.values())}."


def _list(tensors: Iterable[Tensor]) -> str:
    return listed(described(tensor) for tensor in tensors)
