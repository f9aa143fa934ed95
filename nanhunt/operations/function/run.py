"""How the user's function is run on rows: mapped by torch.func.vmap, else one by one, else on the batch as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nanhunt.errors import NanhuntError
from nanhunt.operations.function.code import Code

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Tensors

PROBED = 16
"""Rows that are run together and apart to see whether they depend on each other."""
TOLERANCE = 1e-6
"""Relative: rows apart and together agree to this in float64."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How the function is run, found out on a few rows."""

    code: Code
    stable: Code | None
    rows: frozenset[str]
    """Parameters whose first axis are the rows; empty: the batch as a whole is the only unit."""
    plain: Mapping[str, float]
    """Parameters that are single whole numbers in the file: given as such."""
    mapped: bool
    """Whether torch.func.vmap maps both functions over rows."""
    reduction: str
    """What the function makes of the rows' values, "mean" or "sum"; "none" where it returns them one by one."""
    why: str = ""
    """Why rows are not judged apart."""


def called(code: Code, t: Tensors, way: Way) -> torch.Tensor:
    """The function on tensors as they are. Raises NanhuntError where it raises, or returns no single tensor."""
    import torch

    given = {name: t[name] for name in code.parameters if name in t} | {
        name: value for name, value in way.plain.items() if name in code.parameters
    }
    try:
        value = code.call(**given)
    except NanhuntError:
        raise
    except (Exception, SystemExit) as error:
        told = str(error).split("\n")[0]
        raise NanhuntError(
            f"{code.name} raises {type(error).__name__}: {told.rstrip('.')}.",
            "It was given " + ", ".join(f"{name} {_described(each)}" for name, each in given.items()) + ".",
        ) from error
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value
    if isinstance(value, tuple | list | dict):
        kind = f"{len(value)} values ({type(value).__name__})"
    elif isinstance(value, torch.Tensor):
        kind = f"a tensor of {str(value.dtype)[6:]}"
    else:
        kind = "None" if value is None else f"a {type(value).__name__}"
    raise NanhuntError(
        f"{code.name} returns {kind}.", "Let it return one floating-point tensor: the loss, or the output."
    )


def _described(value: Any) -> str:
    return f"{str(value.dtype)[6:]} {tuple(value.shape)}" if hasattr(value, "dtype") else repr(value)


def values(code: Code, t: Tensors, way: Way) -> torch.Tensor:
    """(rows, *value of a row), each row run as a batch of one; (1, *value) of the batch as a whole."""
    import torch

    if not way.rows:
        return called(code, t, way)[None]
    names = [name for name in code.parameters if name in t]
    single = {name: t[name].unsqueeze(1) if name in way.rows else t[name] for name in names}
    if not way.mapped:
        count = len(single[next(name for name in names if name in way.rows)])
        made = [
            called(
                code, {name: each[row] if name in way.rows else each for name, each in single.items()}, way
            )
            for row in range(count)
        ]
        return torch.stack(made) if made else torch.zeros(0)
    axes = tuple(0 if name in way.rows else None for name in names)

    def one(*tensors: torch.Tensor) -> torch.Tensor:
        return called(code, dict(zip(names, tensors, strict=True)), way)

    return torch.func.vmap(one, in_dims=axes, randomness="different")(*(single[name] for name in names))


def doubled(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Float tensors in float64."""
    return {name: each.double() if each.is_floating_point() else each for name, each in tensors.items()}


def way_of(
    code: Code, stable: Code | None, t: Tensors, rows: frozenset[str], plain: Mapping[str, float]
) -> Way:
    """Tries the functions on a few rows in float64, and finds out how rows may be run.

    ``t``: those rows, by parameter; ``rows``: parameters that have an axis of them. Raises NanhuntError for a
    function that raises, changes what it is given, or returns no single tensor.
    """
    codes = [each for each in (code, stable) if each is not None]
    few = _tame(doubled(t))
    batch = Way(code=code, stable=stable, rows=frozenset(), plain=plain, mapped=False, reduction="none")
    together = [_unchanged(each, few, batch) for each in codes]
    why = "" if rows else "no tensor has an axis of rows"
    for mapped in (True, False) if rows else ():
        way = replace(batch, rows=rows, mapped=mapped)
        try:
            apart = [values(each, few, way) for each in codes]
        except (NanhuntError, RuntimeError, ValueError) as error:  # vmap raises either for what it cannot map
            why = str(error).split("\n")[0]
            continue
        reductions = {_joined(one, two) for one, two in zip(together, apart, strict=True)}
        if len(reductions) == 1 and (reduction := reductions.pop()):
            return replace(way, reduction=reduction)
        why = "its rows depend on each other"
    return replace(batch, why=why)


def _tame(t: Tensors) -> dict[str, torch.Tensor]:
    """The same with moderate numbers, on which every way of running it gives finite values."""
    return {
        name: each.nan_to_num(0.5, 1.0, -1.0).clamp(-8, 8) if each.is_floating_point() else each
        for name, each in t.items()
    }


def _unchanged(code: Code, t: Tensors, way: Way) -> torch.Tensor:
    """Its value. Raises NanhuntError where it changes what it is given, or cuts the gradient off."""
    import torch

    copies = {name: each.clone() for name, each in t.items()}
    value = called(code, copies, way)
    for name, each in copies.items():
        if each._version or not torch.equal(each, t[name]):  # .data escapes the count of versions
            raise NanhuntError(
                f"{code.name} changes its input {name} in place.",
                f"Let it work on a copy ({name} = {name}.clone()): rows are run several times, in several formats.",
            )
    leaves = {name: each.clone().requires_grad_(each.is_floating_point()) for name, each in t.items()}
    if not called(code, leaves, way).requires_grad:
        raise NanhuntError(
            f"{code.name} returns a tensor that no gradient reaches.",
            "Something in it cuts it off: detach(), torch.no_grad(), .item(), a new tensor made of numbers.",
        )
    return value


def _joined(together: torch.Tensor, apart: torch.Tensor) -> str:
    """How the rows' values apart make up the value together: "none" (row by row), "mean", "sum"; "" for neither."""
    import torch

    def agree(one: torch.Tensor, two: torch.Tensor) -> bool:
        return one.shape == two.shape and torch.allclose(one, two, TOLERANCE, TOLERANCE, equal_nan=True)

    if together.dim():
        per_row = apart.squeeze(1) if apart.dim() == together.dim() + 1 and apart.shape[1] == 1 else apart
        return "none" if agree(together, per_row) else ""
    if apart.dim() != 1:
        return ""
    if agree(together, apart.mean()):
        return "mean"
    return "sum" if agree(together, apart.sum()) else ""
