"""Any operation, judged on torch tensors in memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nanhunt.load.memory import tensor_of
from nanhunt.operations.findings import judged as judge_all
from nanhunt.operations.operation import Operation
from nanhunt.operations.problem import problem_of
from nanhunt.parallel import Fastest
from nanhunt.results.tensor import TensorReport


def judged(
    operation: Operation, options: Any, dtype: str | None = None, **tensors: torch.Tensor
) -> TensorReport:
    """The report on tensors given by role."""
    given = {name: tensor_of(tensor, name) for name, tensor in tensors.items()}
    dtype = dtype or operation.main(given).dtype
    codes = frozenset(rule.code for rule in operation.rules)
    problem = problem_of(operation, given, dtype, options, codes, max_rows=10_000)
    return judge_all(problem, Fastest(), lambda _: None, compares=True)


@pytest.fixture(name="judged", scope="session")
def judged_fixture():
    return judged
