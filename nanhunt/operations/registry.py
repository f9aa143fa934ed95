"""The operations: one line each. One is loaded when it is asked for, so that nothing pays for the others."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nanhunt.operations.attention.options import AttentionOptions
from nanhunt.operations.bce.options import BceOptions
from nanhunt.operations.cross_entropy.options import CrossEntropyOptions
from nanhunt.operations.distance_options import DistanceOptions
from nanhunt.operations.function.options import FunctionOptions
from nanhunt.operations.gumbel_options import GumbelOptions
from nanhunt.operations.kl_options import KlOptions
from nanhunt.operations.masked_mean_options import MaskedMeanOptions
from nanhunt.operations.norm_options import NormOptions
from nanhunt.operations.ppo.options import PpoOptions
from nanhunt.options import one_of

if TYPE_CHECKING:
    from nanhunt.operations.operation import Described

_HOMES = {
    "cross-entropy": "nanhunt.operations.cross_entropy.operation:CROSS_ENTROPY",
    "values": "nanhunt.operations.values.operation:VALUES",
    "difference": "nanhunt.difference.operation:DIFFERENCE",
    "bce": "nanhunt.operations.bce.operation:BCE",
    "attention": "nanhunt.operations.attention.operation:ATTENTION",
    "function": "nanhunt.operations.function.operation:FUNCTION",
    "ppo": "nanhunt.operations.ppo.operation:PPO",
    "entropy": "nanhunt.operations.entropy:ENTROPY",
    "logsumexp": "nanhunt.operations.logsumexp:LOGSUMEXP",
    "softmax": "nanhunt.operations.softmax:SOFTMAX",
    "norm": "nanhunt.operations.norm:NORM",
    "gaussian-kl": "nanhunt.operations.gaussian_kl:GAUSSIAN_KL",
    "kl": "nanhunt.operations.kl:KL",
    "masked-mean": "nanhunt.operations.masked_mean:MASKED_MEAN",
    "distance": "nanhunt.operations.distance:DISTANCE",
    "log1mexp": "nanhunt.operations.log1mexp:LOG1MEXP",
    "contrastive": "nanhunt.operations.contrastive:CONTRASTIVE",
    "gumbel-softmax": "nanhunt.operations.gumbel_softmax:GUMBEL_SOFTMAX",
    "call": "nanhunt.operations.call.operation:CALL",
}
"""By the name that --op takes: module and attribute. In this order their rules are listed.

Names, and no imports: an operation may live in a room above, as the comparison of two dumps does."""
DEFAULT = "cross-entropy"
"""Judged without --op as well: where there are logits, and all other numbers as values."""


@dataclass(frozen=True, kw_only=True)
class OperationOptions(
    BceOptions,
    FunctionOptions,
    GumbelOptions,
    DistanceOptions,
    KlOptions,
    MaskedMeanOptions,
    NormOptions,
    PpoOptions,
    AttentionOptions,
    CrossEntropyOptions,
):
    """The options of all operations; one that has options of its own adds their class to the bases.

    The class must be quick to import: every command's flags are made of it before anything else is loaded.
    """


class _Operations(MutableMapping[str, "Described"]):
    """All operations by name, loaded one by one; one that is put in (by a test, by a notebook) is like the others."""

    def __init__(self) -> None:
        self._homes = dict(_HOMES)
        self._loaded: dict[str, Described] = {}

    def __getitem__(self, name: str) -> Described:
        if name not in self._loaded:
            module, attribute = self._homes[name].split(":")
            self._loaded[name] = getattr(importlib.import_module(module), attribute)
        return self._loaded[name]

    def __setitem__(self, name: str, operation: Described) -> None:
        self._homes.setdefault(name, "")
        self._loaded[name] = operation

    def __delitem__(self, name: str) -> None:
        del self._homes[name]
        self._loaded.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


OPERATIONS = _Operations()


def find(name: str | None) -> Described:
    """The operation of that name, the default one for None. NanhuntError, with the nearest one, for any other."""
    one_of("--op", name or DEFAULT, tuple(OPERATIONS))
    return OPERATIONS[name or DEFAULT]
