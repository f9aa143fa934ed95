"""check and compare for notebooks and tests: the same survey as the command line, on values in memory too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from nanhunt.errors import NanhuntError
from nanhunt.load import Role, tensor_at
from nanhunt.load.tensor import BITS, FLOATING, Tensor
from nanhunt.operations.cross_entropy.roles import CLASS_WEIGHTS, TARGETS, Chosen, Problem
from nanhunt.options import Options, validate
from nanhunt.results.report import Report, merge
from nanhunt.scan.survey import Survey

if TYPE_CHECKING:
    import torch

Path_: TypeAlias = str | os.PathLike[str]
Values: TypeAlias = "np.ndarray[Any, Any] | torch.Tensor | Sequence[Any]"


def check(
    x: Path_ | Sequence[Path_] | Values,
    targets: Path_ | Values | None = None,
    dtype: str | Sequence[str] | None = None,
    *,
    class_weights: Path_ | Values | None = None,
    **options: Any,
) -> Report:
    """Judges logits; ``assert nanhunt.check(logits, targets).ok`` fails when there are findings.

    ``x``: a path, a list of paths, or values of shape (..., classes). ``targets``: integer labels (...), or
    probabilities of the logits' shape, or what --targets takes. Other keywords are fields of ``Options``.
    Raises NanhuntError for values that are not logits and targets that do not fit; for paths such errors
    are in ``Report.errors``.
    """
    return _survey(x, targets, dtype, class_weights, options, compares=False)


def compare(
    x: Path_ | Sequence[Path_] | Values,
    targets: Path_ | Values | None = None,
    dtype: str | Sequence[str] | None = None,
    *,
    class_weights: Path_ | Values | None = None,
    **options: Any,
) -> Report:
    """Runs all implementations over every row. Arguments and errors as in ``check``."""
    return _survey(x, targets, dtype, class_weights, options, compares=True)


def _survey(
    x: Any, targets: Any, dtype: Any, class_weights: Any, given: dict[str, Any], *, compares: bool
) -> Report:
    dtypes = (
        ()
        if dtype is None
        else (_dtype_name(dtype),)
        if not isinstance(dtype, list | tuple)
        else tuple(map(_dtype_name, dtype))
    )
    named = {"targets": targets, "class_weights": class_weights}
    paths = {name: os.fspath(value) for name, value in named.items() if isinstance(value, str | os.PathLike)}
    for name in ("logits", "select", "ignore"):
        if isinstance(given.get(name), str):
            given[name] = (given[name],)
    fields: dict[str, Any] = paths | {
        name: tuple(v) if isinstance(v, list) else v for name, v in given.items()
    }
    try:
        options = Options(dtype=dtypes, **fields)
    except TypeError as error:
        raise NanhuntError(
            f"Unknown option: {error}.", "Keywords are the fields of nanhunt.options.Options."
        ) from None
    validate(options)
    survey = Survey(options, compares)
    if _are_paths(x):
        if len(paths) < sum(value is not None for value in named.values()):
            raise NanhuntError(
                "Targets in memory do not go with logits in a file.", "Load the logits first, or name a file."
            )
        return merge(
            survey.paths(
                [os.fspath(x)] if isinstance(x, str | Path | os.PathLike) else [os.fspath(path) for path in x]
            )
        )
    report = survey.chosen(_chosen(x, targets, class_weights, options))
    if report.errors:
        raise NanhuntError(report.errors[0].message, report.errors[0].hint)
    return report


def _are_paths(x: Any) -> bool:
    return isinstance(x, str | os.PathLike) or (
        isinstance(x, list | tuple) and len(x) > 0 and all(isinstance(each, str | os.PathLike) for each in x)
    )


def _chosen(x: Any, targets: Any, class_weights: Any, options: Options) -> Chosen:
    logits = _tensor(x, "logits")
    if logits.dtype not in FLOATING:
        raise NanhuntError(f"The logits are {logits.dtype}.", "Logits are floating-point numbers.")
    problem = Problem(logits)
    if targets is not None:
        problem = Problem(logits, _other(targets, TARGETS, options), "argument")
    weights = None if class_weights is None else _other(class_weights, CLASS_WEIGHTS, options)
    return Chosen((problem,), class_weights=weights)


def _other(value: Any, role: Role, options: Options) -> Tensor:
    if isinstance(value, str | os.PathLike):
        return tensor_at(os.fspath(value), role, options.stored_dtype)
    return _tensor(value, role.name)


def _tensor(value: Any, name: str) -> Tensor:
    """Values in memory as a Tensor; torch's are shared, not copied, where they are contiguous on the CPU."""
    if type(value).__module__.split(".")[0] == "torch":
        dtype, array = _from_torch(value)
    else:
        array = np.asarray(value)
        dtype = array.dtype.name
        if dtype in BITS:
            array = array.view(BITS[dtype])
    return Tensor("<memory>", name, dtype, array.shape, lambda: array)


def _from_torch(value: torch.Tensor) -> tuple[str, np.ndarray[Any, Any]]:
    import torch

    value = value.detach().cpu().contiguous()
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype in BITS:
        value = value.view(torch.int16 if BITS[dtype] == "uint16" else torch.uint8)
        return dtype, value.numpy().view(BITS[dtype])
    return dtype, value.numpy()


def _dtype_name(dtype: Any) -> str:
    """The name of a torch or NumPy dtype, or the name itself."""
    from nanhunt.options import DTYPES

    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", str(dtype))
    name = name.removeprefix("torch.")
    if name not in DTYPES:
        raise NanhuntError(f"Unknown dtype {name}.", f"Choose from {', '.join(DTYPES)}.")
    return name
