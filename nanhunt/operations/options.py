"""What the user asks of every operation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nanhunt.dtypes.formats import DTYPES, SPELLINGS
from nanhunt.options import option


def rules() -> Iterable[str]:
    """Codes and names, for completion."""
    from nanhunt.operations.rules import RULES

    return (word for rule in RULES.values() for word in (rule.code, rule.name))


def operations() -> Iterable[str]:
    """Names, for completion."""
    from nanhunt.operations.registry import OPERATIONS

    return OPERATIONS


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """What to look for."""

    op: str | None = option(
        None,
        metavar="NAME",
        help="Judge as this operation; `nanhunt op` lists them. Default: what the names of the tensors say, "
        "cross entropy where there are logits.",
        suggestions=operations,
    )
    role: Sequence[str] = option(
        (),
        metavar="ROLE=[FILE:]NAME",
        help="Which tensor plays a role of the operation. Default: by name.",
    )
    dtype: Sequence[str] = option(
        (),
        help="Judge in this dtype. Default: the dtype in the file.",
        choices=DTYPES,
        spellings=SPELLINGS,
        with_commas=True,
    )
    scaling: str = option(
        "tensor",
        help="What shares a scale in a cast to float8, set by its largest magnitude: the tensor, a block of 128 "
        "values along the last axis, or nothing is scaled.",
        choices=("tensor", "block", "none"),
    )
    select: Sequence[str] = option(
        (),
        metavar="RULE",
        help="Only these rules: codes, names or prefixes like NH1.",
        suggestions=rules,
        with_commas=True,
    )
    ignore: Sequence[str] = option(
        (), metavar="RULE", help="Not these rules.", suggestions=rules, with_commas=True
    )
    max_rows: int = option(10, help="Rows listed per finding.", at_least=1)


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """Losses."""

    reduction: str = option(
        "mean", help="How the losses of rows or values become one.", choices=("mean", "sum")
    )


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """Masks."""

    mask_drops: bool | None = option(
        None,
        help="A mask is True where something is left out, as a key_padding_mask is. Default: where it stays, but for "
        "the padding_mask of a policy's tokens.",
        is_flag=True,
    )


@dataclass(frozen=True, kw_only=True)
class BetaOptions:
    """Weights of a reference policy."""

    beta: float = option(
        0.1, help="Weight of ppo's KL term, and of the margin of a preference (bce).", at_least=0.0
    )


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """For an operation that has none of its own."""


@dataclass(frozen=True, kw_only=True)
class EpsOptions:
    """What keeps a division from dividing by 0."""

    eps: float | None = option(
        None,
        help="Added in the denominator. Default: the operation's usual one.",
        is_number=True,
        at_least=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class TemperatureOptions:
    """What scores are divided by."""

    temperature: float = option(1.0, help="Divides the logits first.")
