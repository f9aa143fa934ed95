"""Which part of the input is judged here, and by how many: SLURM arrays, matrices of jobs, clusters, cores."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from nanhunt.errors import NanhuntError
from nanhunt.options import option
from nanhunt.parallel import Fastest

PATIENCE = "10s"
"""For a scheduler to answer."""


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """Who works.

    The report does not depend on it.
    """

    jobs: int = option(
        0,
        metavar="N",
        at_least=0,
        is_setting=False,
        help="Judge N files side by side. Default: one at a time, by blocks.",
    )
    shard: str = option(
        "",
        metavar="I/N",
        is_setting=False,
        help="Judge only every N-th file, from the I-th on; nanhunt report adds the reports up.",
    )
    dask: str = option(
        "",
        metavar="ADDRESS",
        is_setting=False,
        help="Let the workers of a Dask cluster judge; they must see the same paths.",
    )


@dataclass(frozen=True)
class Part:
    """One of several equal parts of the input."""

    number: int
    """From 1 on."""
    of: int

    def of_files(self, files: Sequence[str]) -> list[str]:
        """Every ``of``-th: neighbours are alike in size, so the parts are."""
        return list(files[self.number - 1 :: self.of])


def part_of(text: str) -> Part | None:
    """What --shard says; None for "". Raises NanhuntError for what is no I/N with 1 <= I <= N."""
    if not text:
        return None
    parts = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if parts is None or not 1 <= int(parts[1]) <= int(parts[2]):
        hint = "Parts count from 1: --shard 1/4 to 4/4. In a SLURM array: --shard $SLURM_ARRAY_TASK_ID/4"
        raise NanhuntError(f"--shard {text} is not I/N with I from 1 to N.", hint)
    return Part(int(parts[1]), int(parts[2]))


@dataclass(frozen=True)
class Workers:
    """Who judges what."""

    blocks: Executor
    """Blocks of rows of one file after the other."""
    files: Executor | None = None
    """Whole files side by side; None: there are only blocks."""
    close: AbstractContextManager[Any] = field(default_factory=nullcontext)
    """To be entered while they work."""
    are_elsewhere: bool = False
    """Whether they fetch what lies behind URLs themselves."""


def workers(options: WorkOptions) -> Workers:
    """Those that the options ask for. Raises NanhuntError for a cluster that cannot be reached."""
    if options.dask:
        return _dask(options.dask)
    if options.jobs:
        return Workers(Fastest(options.jobs), Fastest(options.jobs))
    return Workers(Fastest())


def _dask(address: str) -> Workers:
    try:
        distributed = importlib.import_module("dask.distributed")
    except ImportError:
        hint = "Install it here and on the workers: pip install 'nanhunt[dask]'"
        raise NanhuntError("--dask needs dask and distributed.", hint) from None
    try:
        client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        message = f"There is no Dask scheduler at {address}: {str(error).splitlines()[0]}."
        raise NanhuntError(message, "Start one (dask scheduler), or check the address.") from None
    executor = client.get_executor(
        pure=False
    )  # a name for every piece by its content takes longer than most pieces
    return Workers(executor, executor, client, are_elsewhere=True)
