"""The captured call as an operation: quick to import, torch comes when there is one to run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nanhunt.dtypes.formats import FORMATS, compute_format
from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container
from nanhunt.load.tensor import FLOATING, Tensor
from nanhunt.load.wording import listed, printable
from nanhunt.operations.call.rules import GIVEN_BAD, GOES_BAD, RULES
from nanhunt.operations.operation import Described
from nanhunt.operations.options import NoOptions
from nanhunt.operations.run import Outcome, Run
from nanhunt.results.finding import Finding
from nanhunt.results.tensor import Health, TensorReport

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.call.spelling import Call

_UNKNOWN = Health(None, None, None, None, None, None, None)


class CapturedCall(Described):
    """Runs an operation of PyTorch's that the file names and the list allows."""

    def judge(self, container: Container, given: Mapping[str, Tensor], run: Run) -> Iterator[Outcome]:
        """The call, in every dtype asked for.

        Raises NanhuntError for a file that holds no call of an operation on the list, or not its tensors, and for
        compare: there is one way of writing it.
        """
        if run.compares:
            raise NanhuntError("--op call has nothing to compare.", "Use `nanhunt check`.")
        call = _call(container)
        tensors = {**{name: container.tensors.get(name) for name in call.tensors}, **given}
        lost = [name for name in call.tensors if tensors[name] is None]
        if lost:
            raise _no_call(container, f"its tensors {listed(lost)} are not in it")
        known = {name: each for name, each in tensors.items() if each is not None}
        main = next((each for each in known.values() if each.dtype in FLOATING), None)
        if main is None:
            raise _no_call(container, "it is given no floating-point numbers")
        codes = run.codes(self.name)
        for dtype in run.dtypes(main):
            yield _judged(call, container, known, main, dtype, codes, run.options.max_rows)
            run.advance(main.nbytes)


CALL = CapturedCall(
    name="call",
    what="One call of PyTorch as `nanhunt run` captured it, run again: its tensors are named as PyTorch names its "
    "arguments (self, other, weight).",
    roles=(),
    options=NoOptions,
    forms={},
    rules=RULES,
)


def _no_call(container: Container, why: str) -> NanhuntError:
    return NanhuntError(
        f"{printable(container.file)} holds no call that can be run: {why}.",
        "--op call is for captures of `nanhunt run`; `nanhunt op` lists the other operations.",
    )


def _call(container: Container) -> Call:
    from nanhunt.operations.call.allowed import overload
    from nanhunt.operations.call.spelling import BadSpelling, call_of

    try:
        call = call_of(json.loads(container.told.get("call", "null")))
    except (BadSpelling, ValueError, RecursionError) as error:
        raise _no_call(container, str(error)) from None
    if overload(call.name) is None:
        raise _no_call(container, f"{printable(call.name)[:60]} is not an operation that a file may ask for")
    return call


def _judged(
    call: Call, container: Container, tensors: Mapping[str, Tensor], main: Tensor, dtype: str, codes: frozenset[str],
    most: int,
) -> TensorReport:  # fmt: skip
    from nanhunt.operations.call.spelling import BadSpelling, read
    from nanhunt.operations.caller import defaults_of_libraries

    with defaults_of_libraries():
        given = {name: _torch(each, main, dtype) for name, each in tensors.items()}
        before = {
            name: each.clone() for name, each in given.items()
        }  # an operation in place writes to its own
        try:
            made = _floating(call.run(given))
        except (BadSpelling, RuntimeError, TypeError, ValueError, IndexError) as error:
            raise _no_call(container, str(error).splitlines()[0]) from None
        finite = all(bool(each.isfinite().all()) for each in before.values())
        findings = _findings(
            call, [read(each, before) for each in call.args], made, codes, most, finite=finite
        )
    return TensorReport(
        file=main.file, tensor=main.name, role="operands", stored_dtype=main.dtype, dtype=dtype, shape=main.shape,
        rows=sum(each.numel() for each in made), classes=0, targets=None, health=_UNKNOWN, implementations={},
        truth=None, findings=findings, affected_rows=sum(each.count for each in findings),
        notes=_notes(container, call),
        operation="call", roles={name: each.label for name, each in tensors.items()}, unit="value",
        unit_shape=tuple(made[0].shape) if len(made) == 1 else None, fused_call=call.name,
    )  # fmt: skip


def _torch(tensor: Tensor, main: Tensor, dtype: str) -> torch.Tensor:
    """A copy of its own; in another dtype where another one is asked for."""
    import numpy as np
    import torch

    from nanhunt.dtypes.convert import to_torch

    if tensor.dtype not in FLOATING:
        return torch.from_numpy(np.array(tensor.data))
    found = to_torch(np.ascontiguousarray(tensor.data), tensor.dtype).reshape(tensor.shape).clone()
    if dtype == main.dtype:
        return found
    cast: torch.Tensor = found.to(getattr(torch, FORMATS[dtype].name))
    return cast.to(getattr(torch, compute_format(dtype).name))


def _floating(made: Any) -> list[torch.Tensor]:
    import torch

    found = [made] if isinstance(made, torch.Tensor) else list(made) if isinstance(made, list | tuple) else []
    return [
        each
        for each in found
        if isinstance(each, torch.Tensor) and (each.is_floating_point() or each.is_complex())
    ]


def _findings(
    call: Call,
    given: Sequence[Any],
    made: Sequence[torch.Tensor],
    codes: frozenset[str],
    most: int,
    *,
    finite: bool,
) -> tuple[Finding, ...]:
    """At most one: it goes bad, or it was given what was bad; ``finite``: it cannot have been."""
    from nanhunt.operations.trace import explained

    for each in made:
        bad = (~each.isfinite()).reshape(-1).nonzero().reshape(-1).tolist()
        if not bad:
            continue
        said = explained(call.short, given, each)
        rule = next(rule for rule in RULES if rule.code == (GOES_BAD if said or finite else GIVEN_BAD))
        if rule.code not in codes:
            continue
        message = f"value {bad[0]}: {said or f'{call.short} gives {each.reshape(-1)[bad[0]].item():.6g}'}"
        return (Finding(rule.code, rule.name, rule.severity, len(bad), tuple(bad[:most]), message),)
    return ()


def _notes(container: Container, call: Call) -> tuple[str, ...]:
    """What the run had said of this call."""
    said = container.told
    where = f" at {printable(said['where'])}" if said.get("where") else ""
    why = f": {printable(said['why'])}" if said.get("why") else ""
    return (f"{call.name} was called{where}{why}",) if where or why else ()
