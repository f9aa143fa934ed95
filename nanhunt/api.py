"""check and compare for notebooks and tests: judged as on the command line, values in memory too."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import numpy as np

from nanhunt.difference.comparison import Comparison
from nanhunt.difference.options import DiffOptions
from nanhunt.difference.pairing import renaming
from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container
from nanhunt.load.memory import FILE, container_of, holds_names, tensor_of
from nanhunt.load.tensor import Tensor
from nanhunt.operations.caller import defaults_of_libraries
from nanhunt.operations.choosing import asked, check_options, of_code
from nanhunt.operations.operation import Described
from nanhunt.options import again, declared, explained, make, one_of, option
from nanhunt.parallel import Fastest
from nanhunt.results.difference import Difference
from nanhunt.results.report import Report, merge
from nanhunt.scan.inputs import Scan
from nanhunt.scan.options import Options

if TYPE_CHECKING:
    import torch

Path_: TypeAlias = str | os.PathLike[str]
Values: TypeAlias = "np.ndarray[Any, Any] | torch.Tensor | Sequence[Any]"
Named: TypeAlias = "Mapping[str, Any] | torch.nn.Module"
Input: TypeAlias = "Path_ | Sequence[Path_] | Values | Named"
Dtype: TypeAlias = "str | torch.dtype | np.dtype[Any] | type[np.generic]"
P = ParamSpec("P")
K = TypeVar("K")
R = TypeVar("R")


@dataclass(frozen=True)
class Keywords(Options):
    """The keywords of check and compare: all options, some of which take more in Python than text.

    ``targets`` and ``dtype`` may also follow the first argument without their names.
    """

    # Wider types than the fields they replace, on purpose: _options() narrows them before anybody else sees them.
    targets: Path_ | Values | None = again(Options, "targets", "An array or tensor too.")  # type: ignore[assignment]
    dtype: Dtype | Sequence[Dtype] | None = again(Options, "dtype", "A dtype of torch or NumPy too.")  # type: ignore[assignment]
    _: KW_ONLY
    class_weights: Path_ | Values | None = again(Options, "class_weights", "An array or tensor too.")  # type: ignore[assignment]
    function: Callable[..., Any] | str | None = again(Options, "function", "A function too.")  # type: ignore[assignment]
    stable: Callable[..., Any] | str | None = again(Options, "stable", "A function too.")  # type: ignore[assignment]
    executor: Executor | None = option(
        None,
        help="Who judges blocks of rows: any concurrent.futures.Executor, of threads, processes or machines. "
        "Work is pickled; files are opened where it is done. Default: threads.",
    )


MEANT = {
    "labels": "targets", "label": "targets", "target": "targets", "y": "targets", "weight": "class_weights",
    "dtypes": "dtype", "rules": "select", "operation": "op",
}  # fmt: skip
"""What people call some of the keywords, torch's own names among them."""


@dataclass(frozen=True, kw_only=True)
class DiffKeywords(DiffOptions):
    """The keywords of diff."""

    executor: Executor | None = again(Keywords, "executor")


def _with_keywords(
    keywords: Callable[P, K],
) -> Callable[[Callable[[Input, K], R]], Callable[Concatenate[Input, P], R]]:
    """Turns ``f(x, keywords)`` into ``f(x, /, targets=None, ..., fail_on="warning")``.

    Type checkers and editors read the keywords from the constructor of their class; help() shows them with
    what they mean.
    """

    def decorate(function: Callable[[Input, K], R]) -> Callable[Concatenate[Input, P], R]:
        @functools.wraps(function)
        def judge(x: Input, /, *args: P.args, **kwargs: P.kwargs) -> R:
            _check_keywords(keywords, kwargs)
            return function(x, keywords(*args, **kwargs))

        _tell(judge, function, keywords)
        return judge

    return decorate


def _of_two_with_keywords(
    keywords: Callable[P, K],
) -> Callable[[Callable[[Input, Input, K], R]], Callable[Concatenate[Input, Input, P], R]]:
    """As ``_with_keywords``, of a function that takes two inputs."""

    def decorate(function: Callable[[Input, Input, K], R]) -> Callable[Concatenate[Input, Input, P], R]:
        @functools.wraps(function)
        def judge(a: Input, b: Input, /, *args: P.args, **kwargs: P.kwargs) -> R:
            _check_keywords(keywords, kwargs)
            return function(a, b, keywords(*args, **kwargs))

        _tell(judge, function, keywords)
        return judge

    return decorate


def _check_keywords(keywords: Any, given: Mapping[str, Any]) -> None:
    for name in given:
        one_of("The keyword", name, tuple(declared(keywords)), MEANT)


def _tell(judge: Any, function: Callable[..., Any], keywords: Any) -> None:
    """What help() and editors show of ``judge``: the inputs of ``function``, then every keyword with its meaning."""
    *inputs, _ = inspect.signature(function).parameters.values()
    first = [each.replace(kind=each.POSITIONAL_ONLY) for each in inputs]
    rest = inspect.signature(keywords).parameters.values()
    answer = inspect.signature(function).return_annotation
    judge.__signature__ = inspect.Signature([*first, *rest], return_annotation=answer)
    judge.__annotations__ = {each.name: each.annotation for each in (*first, *rest)} | {"return": answer}
    judge.__doc__ = f"{function.__doc__}\n    Keywords:\n{explained(keywords)}"


@_with_keywords(Keywords)
def check(x: Input, keywords: Keywords) -> Report:
    """Judges logits; ``assert nanhunt.check(logits, targets).ok`` fails when there are findings.

    ``x``: a path, a list of paths, values of shape (..., classes), or a dict of tensors, a state_dict or a module,
    which are judged like a file with the same tensors. ``targets``: integer labels (...), or
    probabilities of the logits' shape, or what --targets takes. Raises NanhuntError for an unknown keyword, values
    that are not logits and targets that do not fit; for paths such errors are in ``Report.errors``.
    """
    return _in_default_state(x, keywords, compares=False)


@_with_keywords(Keywords)
def compare(x: Input, keywords: Keywords) -> Report:
    """Runs all implementations over every row. Arguments and errors as in ``check``."""
    return _in_default_state(x, keywords, compares=True)


@_of_two_with_keywords(DiffKeywords)
def diff(a: Input, b: Input, keywords: DiffKeywords) -> Difference:
    """What differs between two dumps; ``assert nanhunt.diff(a, b).ok`` fails where it is more than rounding.

    ``a``, ``b``: each a path, values, or a dict of tensors, a state_dict or a module. Tensors are paired by name and
    compared value by value. Raises NanhuntError for an unknown keyword and for values that are no tensors; for paths
    that cannot be read the errors are in ``Difference.errors``.
    """
    given = {name: getattr(keywords, name) for name in declared(DiffOptions)}
    chosen = make(DiffOptions, given, lambda option: f"{option.name} =")
    comparison = Comparison(chosen, keywords.executor or Fastest())
    (one, name), (other, name_b) = _contents(a, "a"), _contents(b, "b")
    return comparison.sides(
        comparison.side(one, name, renaming(chosen.rename)), comparison.side(other, name_b, str)
    )


def _contents(value: Any, name: str) -> tuple[str | Container, str]:
    """One side of a comparison, a path or values with or without names, and what reports call it."""
    if _is_path(value):
        path = str(os.fspath(value))
        return path, path
    if holds_names(value):
        return container_of(value), name
    return Container(FILE, {"": replace(tensor_of(value, name), name="")}, "memory"), name


def _in_default_state(x: Any, keywords: Keywords, *, compares: bool) -> Report:
    with defaults_of_libraries():
        return _judged(x, keywords, compares)


def _judged(x: Any, keywords: Keywords, compares: bool) -> Report:
    options = _options(keywords)
    check_options(
        [name for name, each in declared(Options).items() if getattr(options, name) != each.default], options
    )
    scan = Scan(options, compares, executor=keywords.executor or Fastest(), operation=_own(keywords))
    targets, class_weights = keywords.targets, keywords.class_weights
    if _are_paths(x):
        if any(value is not None and not _is_path(value) for value in (targets, class_weights)):
            raise NanhuntError(
                "Targets in memory do not go with logits in a file.", "Load the logits first, or name a file."
            )
        return merge(scan.paths([os.fspath(x)] if _is_path(x) else [os.fspath(path) for path in x]))
    operation = scan.operation or asked(options)
    given = _given(operation, {"targets": targets, "class_weights": class_weights})
    if holds_names(x):
        told = keywords.op is not None or keywords.function is not None
        return scan.container(container_of(x, lists=told), operation, given)
    main = operation.roles[0].name
    report = scan.container(container_of({}), operation, {main: tensor_of(x, main), **given})
    if report.errors:
        raise NanhuntError(report.errors[0].message, report.errors[0].hint)
    return report


def _own(keywords: Keywords) -> Described | None:
    """The operation of judging a function that is given itself, or by name beside another that is."""
    if keywords.function is None or all(
        isinstance(f, str | None) for f in (keywords.function, keywords.stable)
    ):
        return None
    return of_code(keywords.function, keywords.stable)


def _given(operation: Described, keywords: Mapping[str, Any]) -> dict[str, Tensor]:
    """Values in memory by role; those that are in files are named in the options.

    Raises NanhuntError where the operation has no such role.
    """
    roles = {role.option: role.name for role in operation.roles}
    found = {}
    for keyword, value in keywords.items():
        if value is None or _is_path(value):
            continue
        option = f"--{keyword.replace('_', '-')}"
        if option not in roles:
            hint = f"It has {', '.join(roles.values())}: put them into one dict."
            raise NanhuntError(f"{operation.name} takes no {keyword}.", hint)
        found[roles[option]] = tensor_of(value, roles[option])
    return found


def _options(keywords: Keywords) -> Options:
    """The keywords as options: dtypes by name, values in memory left out. Raises NanhuntError for wrong ones."""
    values = {name: getattr(keywords, name) for name in declared(Options)}
    dtypes: Any = () if keywords.dtype is None else keywords.dtype
    values["dtype"] = [
        _dtype_name(each) for each in (dtypes if isinstance(dtypes, list | tuple) else [dtypes])
    ]
    for name in ("function", "stable"):
        if callable(values[name]):
            values[name] = getattr(values[name], "__qualname__", type(values[name]).__name__)
    for name in ("targets", "class_weights"):
        values[name] = os.fspath(values[name]) if _is_path(values[name]) else None
    return make(Options, values, lambda option: f"{option.name} =")


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike)


def _are_paths(x: Any) -> bool:
    return _is_path(x) or (isinstance(x, list | tuple) and len(x) > 0 and all(map(_is_path, x)))


def _dtype_name(dtype: Any) -> str:
    """The name of a torch or NumPy dtype, or the name itself."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", str(dtype))
    return name.removeprefix("torch.")


def _report_html(report: Report) -> str:
    from nanhunt.render import notebook  # rich and all: not before a notebook shows something

    return notebook.report_html(report)


def _difference_html(found: Difference) -> str:
    from nanhunt.render import notebook

    return notebook.difference_html(found)


def _report_text(report: Report) -> str:
    from nanhunt.render import render

    return render(report, "text")


def _difference_text(found: Difference) -> str:
    from nanhunt.render.difference import render_difference

    return render_difference(found, "text")


Report.as_html, Difference.as_html = _report_html, _difference_html
Report.as_text, Difference.as_text = _report_text, _difference_text
