"""The health of tensors that no loss is known for, one judgement a dtype."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from nanhunt.load.tensor import Tensor
from nanhunt.operations.run import Failed, Outcome, Run
from nanhunt.operations.values.check import check_values


def judge_values(
    tensors: Sequence[Tensor], notes: Mapping[str, tuple[str, ...]], run: Run
) -> Iterator[Outcome]:
    """All of them, in order; ``notes``: what is to be said of a tensor, by its label."""
    codes = run.codes("values")
    for tensor, found in check_values(tensors, run.dtypes, run.options, codes, run.advance, run.executor):
        if isinstance(found, Exception):
            yield Failed(tensor.label, found)
            continue
        said = notes.get(tensor.label, ())
        yield from (replace(each, notes=(*said, *each.notes)) for each in found)
