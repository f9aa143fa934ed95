"""torch.optim numbers the parameters whose state it keeps; a checkpoint that holds the model too can name them.

``optimizer.state_dict()`` is {"state": {0: {"exp_avg": ...}}, "param_groups": [{"params": [0, 1]}]}: the numbers count
parameters in the order in which the optimizer was given them (torch/optim/optimizer.py). Names are told only where
shapes bear them out, for every number: a wrong name is worse than none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nanhunt.load.readers.objects import spelled
from nanhunt.load.tensor import FLOATING, Tensor

_DEEPEST = 4
"""Levels at which checkpoints keep optimizers: {"optimizer_states": [{"state": ...}]}."""
_NO_PARAMETERS = ("running_mean", "running_var")
"""Floating buffers that a state_dict lists among its parameters."""

Shape = tuple[int, ...]


def owned(content: object, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of optimizer state, by name, with what is known of them: owner and eps.

    ``content``: what was unpickled; ``tensors``: what was found in it, by dotted name.
    """
    names, eps = owners(content, tensors), epsilons(content, tensors)
    return {
        name: replace(tensors[name], owner=names.get(name, ""), eps=eps.get(name))
        for name in names.keys() | eps.keys()
    }


def owners(content: object, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The parameter's name by the name of each tensor of optimizer state; empty where nothing says which.

    ``content``: what was unpickled; ``tensors``: what was found in it, by dotted name.
    """
    optimizers = {".".join((*path, "state", "")): groups for path, groups in _optimizers(content)}
    models = _models(tensors, tuple(optimizers)) if optimizers else []
    found: dict[str, str] = {}
    for prefix, groups in optimizers.items():
        state = {
            name: name.removeprefix(prefix).partition(".") for name in tensors if name.startswith(prefix)
        }
        # A step is a single number, whatever the parameter.
        shapes = {number: tensors[name].shape for name, (number, _, kept) in state.items() if kept != "step"}
        names = _names(groups, shapes, models)
        found |= {name: names[number] for name, (number, _, _) in state.items() if number in names}
    return found


def epsilons(content: object, tensors: Iterable[str]) -> dict[str, float]:
    """The eps of its group by the name of each tensor of optimizer state; those whose group says none are left out.

    ``content``: what was unpickled; ``tensors``: the dotted names of what was found in it.
    """
    known = {
        ".".join((*path, "state", str(number), "")): float(group["eps"])
        for path, groups in _optimizers(content)
        for group in groups
        if isinstance(group, Mapping) and isinstance(group.get("eps"), float)  # Adafactor has two
        for number in group.get("params") or ()
    }
    return {name: known[prefix] for name in tensors if (prefix := name[: name.rfind(".") + 1]) in known}


def _optimizers(content: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """(the keys that lead to it, its param_groups) of every state_dict of an optimizer."""
    if isinstance(content, Mapping) and "state" in content and isinstance(content.get("param_groups"), list):
        yield path, content["param_groups"]
    elif isinstance(content, Mapping | list | tuple) and len(path) < _DEEPEST:
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, item in items:
            if isinstance(item, Mapping | list | tuple):
                yield from _optimizers(item, (*path, spelled(key)))


def _models(tensors: Mapping[str, Tensor], optimizers: tuple[str, ...]) -> list[dict[str, Shape]]:
    """Parameters by name, of everything that may be a state_dict: what stands under one first key."""
    models: dict[str, dict[str, Shape]] = {}
    for name, tensor in tensors.items():
        first, dot, rest = name.partition(".")
        is_parameter = tensor.dtype in FLOATING and not rest.endswith(_NO_PARAMETERS)
        if dot and is_parameter and not name.startswith(optimizers):
            models.setdefault(first, {})[rest] = tensor.shape
    return list(models.values())


def _names(
    groups: Sequence[Any], shapes: Mapping[str, Shape], models: Sequence[Mapping[str, Shape]]
) -> dict[str, str]:
    """Name by number, as the groups say or as shapes bear out; empty when several answers fit."""
    numbers: list[Any] = [group.get("params") for group in groups if isinstance(group, Mapping)]
    if not numbers or not all(isinstance(each, list) for each in numbers):
        return {}
    flat = [str(number) for each in numbers for number in each]
    said = [name for group in groups for name in group.get("param_names") or ()]
    if len(said) == len(flat):  # of an optimizer that was given named_parameters()
        return dict(zip(flat, map(str, said), strict=True))
    fitting = [
        answer
        for model in models
        if len(model) == len(flat)
        for answer in (dict(zip(flat, order, strict=True)) for order in _orders(model, len(numbers)))
        if all(number in answer and model[answer[number]] == shape for number, shape in shapes.items())
    ]
    return fitting[0] if fitting and all(answer == fitting[0] for answer in fitting) else {}


def _orders(model: Mapping[str, Shape], groups: int) -> Iterator[list[str]]:
    """Orders in which the parameters are given to optimizers: as they stand, or matrices first (weight decay)."""
    if groups == 1:
        yield list(model)
    else:
        matrices = [name for name, shape in model.items() if len(shape) > 1]
        others = [name for name, shape in model.items() if len(shape) < 2]
        yield from ([*matrices, *others], [*others, *matrices])
