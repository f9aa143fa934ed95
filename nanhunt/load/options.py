"""What the user says about the files: which tensors are what, and how they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nanhunt.dtypes.formats import DTYPES, SPELLINGS
from nanhunt.options import again, option


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How to read an input."""

    logits: Sequence[str] = option(
        (),
        metavar="NAME",
        help="Tensor to judge as logits, globs allowed. Default: by shape and name.",
    )
    targets: str | None = option(
        None,
        metavar="[FILE:]NAME",
        help="Class labels, or probabilities of the logits' shape; globs allowed.",
    )
    class_weights: str | None = option(None, metavar="FILE[:NAME]", help="One weight per class.")
    class_axis: int = option(-1, help="Dimension of the classes; PyTorch's (N, C, d1) layout is 1.")
    stored_dtype: str | None = option(
        None,
        help="What a |V2 or |V1 .npy holds, which it cannot say.",
        choices=DTYPES,
        spellings=SPELLINGS,
    )
    exclude: Sequence[str] = option(
        (),
        metavar="GLOB",
        help="In folders, leave out files and folders whose name or path matches.",
    )
    layout: str | None = option(
        None,
        metavar="PATTERN",
        help="Where paths say what of a run, where it cannot be known: 'dumps/{step}/{rank}/{layer}_{name}.pt'.",
    )
    first: bool = option(
        False,
        help="Of a folder of steps, read no more than it takes to find the first bad one: checkpoints are bisected, "
        "activations and gradients read in order.",
    )


@dataclass(frozen=True, kw_only=True)
class SeriesOptions:
    """How to read a series of checkpoints."""

    layout: str | None = again(ReadOptions, "layout")
