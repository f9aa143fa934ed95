"""Whether a model and its optimizer are finite, before they are saved: nothing is copied to look at them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from nanhunt.api import check
from nanhunt.errors import NanhuntError
from nanhunt.results.finding import Severity
from nanhunt.results.series import spans

MOST = 3
"""Faults that are told."""


def faults(model: Any = None, *optimizers: Any) -> tuple[str, ...]:
    """What is not finite in parameters, buffers and optimizer state, the first few in words; () for all clear.

    ``model``: a module, or a mapping of names to tensors; ``optimizers``: torch's, or wrappers with an
    ``optimizer``. Masks and limits that may be infinite are no fault, as in ``nanhunt.check``. In a distributed run
    every rank must call it: each looks at its own shards, and all get the same answer, which says whose they are.
    Raises NanhuntError for a model that is neither.
    """
    named = [*_of_model(model), *(pair for each in optimizers for pair in _of_optimizer(each))]
    by_name = dict(named)
    told = [fault for name in _not_finite(named) for fault in _confirmed(name, by_name[name])]
    return _of_all_ranks(told[:MOST])


def _of_model(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if model is None:
        return
    if not isinstance(model, torch.nn.Module | Mapping):
        raise NanhuntError(
            f"A {type(model).__name__} has no tensors to look at.", "Give a module, or names and tensors."
        )
    values = (
        model.items() if isinstance(model, Mapping) else (*model.named_parameters(), *model.named_buffers())
    )
    yield from ((name, _local(value)) for name, value in values if isinstance(value, torch.Tensor))


def _of_optimizer(optimizer: Any) -> Iterator[tuple[str, torch.Tensor]]:
    while not isinstance(optimizer, torch.optim.Optimizer) and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer  # accelerate's and DeepSpeed's wrappers
    for number, state in enumerate(getattr(optimizer, "state", {}).values()):
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                yield f"optimizer.state.{number}.{name}", _local(value)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a distributed tensor that this rank has."""
    to_local = getattr(tensor, "to_local", None)
    local: torch.Tensor = to_local() if to_local else tensor
    return local.detach()


def _not_finite(named: Iterable[tuple[str, torch.Tensor]]) -> Iterator[str]:
    """Names of what is not all finite: one wait for each device, not one for each tensor."""
    by_device: dict[torch.device, list[tuple[str, torch.Tensor]]] = {}
    for name, tensor in named:
        if tensor.is_floating_point() and tensor.device.type != "meta":
            by_device.setdefault(tensor.device, []).append((name, tensor.isfinite().all()))
    for flags in by_device.values():
        finite = torch.stack([flag for _, flag in flags]).tolist()
        yield from (name for (name, _), fine in zip(flags, finite, strict=True) if not fine)


def _confirmed(name: str, tensor: torch.Tensor) -> list[str]:
    """In words, unless it may be so."""
    report = check({name: tensor.cpu()}, op="values", max_rows=1)
    return [f"{name}: {each.message}" for each in report.findings if each.severity is Severity.ERROR]


def _of_all_ranks(told: list[str]) -> tuple[str, ...]:
    """The first faults of the run: every rank takes part, whatever it found, and all act alike."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return tuple(told)
    # As objects, since those find the device that the backend can use: parameters may be offloaded from it.
    everyone: list[list[str] | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, told)
    by_fault: dict[str, list[str]] = {}
    for rank, faulty in enumerate(everyone):
        for fault in faulty or ():
            by_fault.setdefault(fault, []).append(str(rank))
    found = (
        fault if len(ranks) == len(everyone) else f"{_ranks(ranks)}: {fault}"
        for fault, ranks in by_fault.items()
    )
    return tuple(found)[:MOST]


def _ranks(numbers: list[str]) -> str:
    return f"rank{'s' if len(numbers) > 1 else ''} {spans(numbers)}"
