"""What the cast to a dtype has destroyed is one finding: nothing that follows from it is told beside it."""

from __future__ import annotations

from math import inf

import pytest
import torch

import nanhunt

CODES = {"softmax": ("NH941", "NH942"), "logsumexp": ("NH831", "NH832")}
"""By operation: the rule of input that is not finite, and that of input that the cast makes infinite."""


@pytest.mark.parametrize("judge", [nanhunt.check, nanhunt.compare])
@pytest.mark.parametrize("op", CODES)
def test_a_row_has_the_gravest_finding_about_its_input_alone(op, judge):
    logits = torch.tensor([[1e5, 0.0, 1.0], [inf, 1e5, 0.0], [0.0, 1.0, 2.0]])
    findings = judge(logits, op=op, dtype="float16").findings
    not_finite, lost = CODES[op]
    assert {finding.code: finding.rows for finding in findings} == {not_finite: (1,), lost: (0,)}
