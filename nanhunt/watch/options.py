"""What can be asked of ``nanhunt run`` and of ``nanhunt.watch``. Imports no torch: --help needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

from nanhunt.options import again, option

if TYPE_CHECKING:
    from .incident import Incident

Path_: TypeAlias = str | PathLike[str]


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """How to watch."""

    keep_going: bool = option(
        False, spelled="continue", help="Report and let the script run on instead of stopping it."
    )
    max_reports: int = option(5, help="Reports in all, where the script runs on.", at_least=1)
    every_op: bool = option(False, help="Look at every operation from the start, inference too; slower.")
    verbose: bool = option(
        False, help="Tell all: how sure it is, every culprit, every repair that was tried and fails."
    )
    capture_dir: str = option(
        "nanhunt-capture", metavar="DIR", help="Where to put tensors of a failing step."
    )
    tensorboard: str | None = option(
        None, metavar="DIR", help="Log loss, gradient norm, largest logit and headroom per step."
    )


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What to write."""

    format: str = option("text", help="What to write to standard error:", choices=("text", "json", "sarif"))
    output: tuple[str, ...] = option(
        (), metavar="FILE", help="Also write the report to FILE; .json, .sarif or text by its suffix."
    )
    replay: str | None = option(
        None, metavar="FILE", help="Repeat the failing step that a run has saved, without its script."
    )
    patch: str | None = option(
        None, metavar="FILE", help="Write the proven fix there, as a diff for git apply."
    )


@dataclass(frozen=True, kw_only=True)
class Keywords(WatchOptions):
    """The keywords of ``nanhunt.watch``: folders may be paths, and a report may be more than text."""

    # Wider types than the fields they replace, on purpose: Watch narrows them before anybody else sees them.
    capture_dir: Path_ = again(WatchOptions, "capture_dir", "A path too.")  # type: ignore[assignment]
    tensorboard: Path_ | None = again(WatchOptions, "tensorboard", "A path too.")  # type: ignore[assignment]
    report: Callable[[Incident], None] | None = option(
        None, help="Called with each Incident; by default it is printed to standard error.", is_setting=False
    )
