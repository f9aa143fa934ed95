"""What the rows' losses are reduced to is what F.cross_entropy returns for all of them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import nanhunt


@pytest.mark.parametrize("judge", [nanhunt.check, nanhunt.compare])
@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_losses_that_add_up_to_an_infinity_of_either_sign_are_an_error(judge, weight: float) -> None:
    logits = torch.tensor([[60_000.0, 0.0], [60_000.0, 0.0], [0.0, 1.0]], dtype=torch.float16)
    labels, weights = torch.tensor([1, 1, 1]), torch.tensor([1.0, weight])
    assert F.cross_entropy(logits, labels, weights.half(), reduction="sum") == math.copysign(math.inf, weight)
    report = judge(logits, labels, class_weights=weights, reduction="sum")
    (found,) = [finding for finding in report.findings if finding.severity.value == "error"]
    assert (found.code, found.rows) == ("NH010", (0, 1, 2))


def test_weights_that_the_dtype_makes_0_leave_a_mean_over_nothing() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float16)
    labels, weights = torch.tensor([0, 0]), torch.tensor([1e-30, 1.0])
    assert F.cross_entropy(logits, labels, weights.half()).isnan()
    (tensor,) = nanhunt.compare(logits, labels, class_weights=weights).tensors
    assert math.isnan(tensor.implementations["fused"].loss)
    assert tensor.findings[0].severity.value == "error"
