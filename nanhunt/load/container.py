"""What opening a path yields, and the ways in which it can yield nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nanhunt.errors import NanhuntError
from nanhunt.load.tensor import Tensor


@dataclass(frozen=True)
class Container:
    """The named tensors of one path."""

    file: str
    """The path as the user wrote it ("-" for standard input)."""
    tensors: Mapping[str, Tensor]
    """By name, in file order; "" for the only tensor of a file without names."""
    format: str
    """The name of its reader: "npy"."""
    refused: Mapping[str, RefusedTensor] = field(default_factory=dict)
    """Tensors that are in the file and cannot be read, with what to tell whoever asks for one."""
    numbers: Mapping[str, Tensor] = field(default_factory=dict)
    """Plain Python numbers: looked at, and never taken for logits or labels."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """What may hold numbers and was not looked at: by name, what it is."""
    missing: tuple[NanhuntError, ...] = ()
    """Parts that are not there or damaged, each once: the rest can be judged, and is not the whole."""
    not_run: tuple[str, ...] = ()
    """Classes and functions that the file names beside those of tensors: read as data, their state looked at."""
    told: Mapping[str, str] = field(default_factory=dict)
    """What nanhunt itself has written into the file beside the tensors: which operation they belong to."""
    settings: Mapping[str, float] = field(default_factory=dict)
    """Python's own bool, int and float under the names of the outermost dict: what a function may take beside tensors,
    gamma=2.0. The floats are in ``tensors`` or ``numbers`` as well."""


class NothingToCheck(NanhuntError):  # noqa: N818 - it is not a fault of the file: a search skips it
    """The path was read and holds no floating-point tensor: labels, indices, a scheduler's state."""


class RefusedTensor(NanhuntError):  # noqa: N818 - the tensor, not an error of the program
    """One tensor whose format cannot be judged as it is stored; the others in its file are fine."""


class NotNumbers(RefusedTensor):
    """Text, dates or Python objects: never logits, so not worth an error beside real tensors."""
