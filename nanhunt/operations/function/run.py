"""How the user's function is run on rows: mapped by torch.func.vmap, else one by one, else on the batch as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    constant: frozenset[str] = frozenset()
    """Parameters that the function takes no gradient for: class weights of F.cross_entropy."""
    repeats: bool = True
    """Whether a second call gives the same value; one that draws random numbers is compared with nothing."""


def called(code: Code, t: Tensors, way: Way) -> torch.Tensor:
    """The function on tensors as they are. Raises NanhuntError where it raises, or returns no single tensor."""
    import torch

    given = {name: t[name] for name in code.parameters if name in t} | {
        name: value for name, value in way.plain.items() if name in code.parameters
    }
    try:
        with _same_draws(way):
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
        kind = f"{len(value)} value{'s' * (len(value) != 1)} in a {type(value).__name__}"
    elif isinstance(value, torch.Tensor):
        kind = f"a tensor of {str(value.dtype)[6:]}"
    else:
        kind = "None" if value is None else f"a value of type {type(value).__name__}"
    raise NanhuntError(
        f"{code.name} returns {kind}.", "Let it return one floating-point tensor: the loss, or the output."
    )


@contextmanager
def _same_draws(way: Way) -> Iterator[None]:
    """For code that draws random numbers: the same ones in every call, so that a report can be made again."""
    import torch

    if way.repeats:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


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


def wide_values(code: Code, t: Tensors, way: Way) -> torch.Tensor:
    """The same of float tensors in float64, which also holds what the code itself casts to a narrower format."""
    from nanhunt.operations.function.widened import widened

    with widened():
        return values(code, t, way)


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
    from nanhunt.operations.function.widened import widened

    codes = [each for each in (code, stable) if each is not None]
    few = _tame(doubled(t))
    batch = Way(code=code, stable=stable, rows=frozenset(), plain=plain, mapped=False, reduction="none")
    with widened():
        tried = [_tried(each, few, batch) for each in codes]
    together = [each.value for each in tried]
    batch = replace(batch, constant=frozenset[str]().union(*(each.constant for each in tried)))
    if not all(each.repeats for each in tried):
        why = "it draws random numbers, or gives another value when it is called again"
        return replace(batch, repeats=False, why=why)
    why = "" if rows else "no tensor has an axis of rows"
    for mapped in (True, False) if rows else ():
        way = replace(batch, rows=rows, mapped=mapped)
        try:
            apart = [wide_values(each, few, way) for each in codes]
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


@dataclass(frozen=True)
class _Tried:
    """What two calls of a function showed."""

    value: torch.Tensor
    repeats: bool
    constant: frozenset[str]
    """Parameters that it takes no gradient for."""


def _tried(code: Code, t: Tensors, way: Way) -> _Tried:
    """Runs it twice. Raises NanhuntError where it changes what it is given, or cuts the gradient off."""
    import torch

    copies = {name: each.clone() for name, each in t.items()}
    generator = torch.get_rng_state()
    value = called(code, copies, way)
    draws = not torch.equal(generator, torch.get_rng_state())
    for name, each in copies.items():
        if each._version or not torch.equal(each, t[name]):  # .data escapes the count of versions
            raise NanhuntError(
                f"{code.name} changes its input {name} in place.",
                f"Let it work on a copy ({name} = {name}.clone()): rows are run several times, in several formats.",
            )
    again, constant = _trained(code, t, way)
    if not again.requires_grad:
        raise NanhuntError(
            f"{code.name} returns a tensor that no gradient reaches.",
            "Something in it cuts it off: detach(), torch.no_grad(), .item(), a new tensor made of numbers.",
        )
    return _Tried(value, not draws and _agree(value, again), constant)


def _trained(code: Code, t: Tensors, way: Way) -> tuple[torch.Tensor, frozenset[str]]:
    """(its value with a gradient for all floats, or for all but one, which that is).

    Raises NanhuntError where it raises with each of them left out.
    """
    floating = [name for name, each in t.items() if each.is_floating_point()]
    refused = None
    for constant in (frozenset[str](), *(frozenset([name]) for name in floating[1:])):
        leaves = {
            name: each.clone().requires_grad_(name in floating and name not in constant)
            for name, each in t.items()
        }
        try:
            return called(code, leaves, way), constant
        except NanhuntError as error:
            refused = refused or error
    assert refused is not None  # there was a first attempt
    raise refused


def _agree(one: torch.Tensor, two: torch.Tensor) -> bool:
    import torch

    return one.shape == two.shape and torch.allclose(one, two, TOLERANCE, TOLERANCE, equal_nan=True)


def _joined(together: torch.Tensor, apart: torch.Tensor) -> str:
    """How the rows' values apart make up the value together: "none" (row by row), "mean", "sum"; "" for neither."""
    if together.dim():
        per_row = apart.squeeze(1) if apart.dim() == together.dim() + 1 and apart.shape[1] == 1 else apart
        return "none" if _agree(together, per_row) else ""
    if apart.dim() != 1:
        return ""
    if _agree(together, apart.mean()):
        return "mean"
    return "sum" if _agree(together, apart.sum()) else ""
