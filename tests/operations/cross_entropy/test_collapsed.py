"""NH202 by rows against the float64 truth, on both sides of its edge."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import nanhunt

ROWS = 400
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def leading(dtype: torch.dtype, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits whose first class leads by about -log u, float64 losses of label 0 in units of roundoff u)."""
    u = torch.finfo(dtype).eps / 2
    rng = np.random.default_rng(classes)
    gap = rng.uniform(-2, 2, ROWS) - math.log(u) + math.log(classes) * rng.choice([0.0, 0.5, 1.0], ROWS)
    x = torch.from_numpy(
        rng.standard_normal((ROWS, classes)) * rng.choice([0.0, 1.0], (ROWS, 1)) - gap[:, None]
    )
    x[:, 0] = 0.0
    x = x.to(dtype)
    return x, torch.log1p(torch.exp(x[:, 1:].double()).sum(-1)) / u


@pytest.mark.parametrize("last", [True, False], ids=["N C", "N C d"])
@pytest.mark.parametrize("classes", [2, 17, 300])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_collapsed_loss_lies_within_its_bound_of_0(dtype: torch.dtype, classes: int, last: bool) -> None:
    """Each of the other classes' exps is rounded away if it is below u, all of them together if they are: a row
    collapses only where its loss is at most (classes - 1) u, and always where it is below u, less a rounding. Where
    classes are not last, half precision is added up in float32, and collapses at none of these."""
    x, losses = leading(dtype, classes)
    labels = torch.zeros(ROWS, dtype=torch.int64)
    logits, targets = (x, labels) if last else (x.T[None].contiguous(), labels[None])
    options = {"class_axis": 1, "select": "NH202", "max_rows": ROWS, "fail_on": "never", "reduction": "sum"}
    found = nanhunt.compare(logits, targets, **options).findings
    collapsed = torch.zeros(ROWS, dtype=torch.bool)
    collapsed[[row for finding in found for row in finding.rows]] = True
    if not last and dtype in (torch.bfloat16, torch.float16):
        assert not collapsed.any()
        return
    assert collapsed.any()
    assert losses[collapsed].max() <= (classes - 1) * 1.01
    assert losses[~collapsed].min() >= 0.95
