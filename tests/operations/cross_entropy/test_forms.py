"""The four implementations against F.cross_entropy, SciPy and the plain formulas, losses and gradients."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as F

from nanhunt.operations.cross_entropy.forms import IMPLEMENTATIONS, Labels, Loss, Outcome, fused

ROWS, CLASSES = 6, 5


def logits(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Harmless rows: every implementation is right on them."""
    generator = torch.Generator().manual_seed(7)
    return (3 * torch.randn(ROWS, CLASSES, generator=generator, dtype=torch.float64)).to(dtype)


def labels(kept: bool = False) -> Labels:
    """Class labels; row 2 is ignored unless ``kept``."""
    keep = torch.ones(ROWS, dtype=torch.bool)
    keep[2] = kept
    return Labels(torch.tensor([0, 4, 0, 3, 1, 1]), keep)


def soft() -> Labels:
    """Probability targets."""
    y = torch.softmax(logits().flip(0), -1)
    return Labels(None, torch.ones(ROWS, dtype=torch.bool), y)


def cross_entropy(x: torch.Tensor, t: Labels, options: Loss) -> torch.Tensor:
    """Row losses by F.cross_entropy, in exact enough arithmetic."""
    target = t.probabilities if t.classes is None else torch.where(t.kept, t.classes, -100)
    assert target is not None
    z = x / options.temperature
    return F.cross_entropy(
        z, target, options.weights, reduction="none", label_smoothing=options.label_smoothing
    )


def run(name: str, x: torch.Tensor, t: Labels, options: Loss) -> tuple[Outcome, torch.Tensor]:
    """Outcome and gradient of the sum."""
    leaf = x.clone().requires_grad_()
    outcome = IMPLEMENTATIONS[name](leaf, t, options)
    (gradient,) = torch.autograd.grad(outcome.losses.sum(), leaf)
    return outcome, gradient


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_probabilities_and_losses_are_scipys(name: str) -> None:
    x, t = logits(), labels(kept=True)
    outcome = IMPLEMENTATIONS[name](x, t, Loss())
    assert t.classes is not None
    expected = -scipy.special.log_softmax(x.numpy(), -1)[np.arange(ROWS), t.classes.numpy()]
    np.testing.assert_allclose(outcome.losses.numpy(), expected, rtol=1e-13)
    np.testing.assert_allclose(
        outcome.probabilities.numpy(), scipy.special.softmax(x.numpy(), -1), rtol=1e-13
    )


WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.0, 3.0], dtype=torch.float64)
CASES = [
    (t, Loss(temperature=temperature, label_smoothing=smoothing, weights=weights))
    for t, temperature, smoothing, weights in itertools.product(
        [labels(), soft()], [1.0, 0.7], [0.0, 0.1], [None, WEIGHTS]
    )
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_losses_and_gradients_are_those_of_cross_entropy(name: str, case: tuple[Labels, Loss]) -> None:
    """One loss, written in four ways, for all options together."""
    t, options = case
    outcome, gradient = run(name, logits(), t, options)
    leaf = logits().requires_grad_()
    expected = cross_entropy(leaf, t, options)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(outcome.losses, expected.detach(), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_weights_go_into_the_smoothed_sum(name: str) -> None:
    """PyTorch's own test values."""
    x = torch.tensor([[0.1735, 0.2191]], dtype=torch.float64)
    t = Labels(torch.tensor([0]), torch.tensor([True]))
    options = Loss(label_smoothing=0.1, weights=torch.tensor([1.0, 16.0], dtype=torch.float64))
    assert float(IMPLEMENTATIONS[name](x, t, options).losses) == pytest.approx(1.21688, abs=5e-6)


def written_out(name: str, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The formulas of the articles, for one row after another."""
    losses = []
    for row, label in zip(x, t.tolist(), strict=True):
        if name == "naive":
            e = torch.exp(row)
            losses.append(-torch.log((e / e.sum(-1, keepdim=True))[label]))
        elif name == "log-of-softmax":
            losses.append(-torch.log(torch.softmax(row, -1)[label]))
        elif name == "logsumexp":
            m = row.max()
            losses.append(m + torch.log(torch.exp(row - m).sum()) - row[label])
        else:
            losses.append(F.cross_entropy(row, torch.tensor(label)))
    return torch.stack(losses)


HARD = [[1000.0, 1.0, -1000.0], [88.5, 88.5, 88.5], [11.0, 11.0, 0.0], [-1000.0, -1001.0, -1002.0], [0.0, -95.0, 1.0],
        [0.0, -104.0, 0.0], [80.0, -25.0, -math.inf], [20.0, 0.0, 0.0], [math.nan, 0.0, 1.0], [math.inf, 0.0, 1.0],
        [-math.inf, -math.inf, -math.inf], [2.0, -math.inf, 0.0]]  # fmt: skip


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_the_hardest_rows_fail_exactly_as_the_formula_written_out(
    name: str, dtype: torch.dtype, label: int
) -> None:
    x = torch.tensor(HARD, dtype=torch.float64).to(dtype)
    t = torch.full((len(x),), label)
    outcome, gradient = run(name, x, Labels(t, torch.ones(len(x), dtype=torch.bool)), Loss())
    leaf = x.clone().requires_grad_()
    expected = written_out(name, leaf, t)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(outcome.losses, expected.detach(), equal_nan=True)
    finite = expected_gradient.isfinite().all(-1)
    assert torch.equal(gradient.isfinite().all(-1), finite)
    torch.testing.assert_close(gradient[finite], expected_gradient[finite])


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_an_ignored_row_has_no_loss_and_a_gradient_of_nothing(name: str) -> None:
    outcome, gradient = run(name, logits(), labels(), Loss())
    assert outcome.losses[2] == 0
    assert (gradient[2] == 0).all()


def test_every_operation_is_executed_in_the_dtype() -> None:
    for name in tuple(IMPLEMENTATIONS):
        outcome = IMPLEMENTATIONS[name](
            logits(torch.float16),
            labels(),
            Loss(temperature=0.7, label_smoothing=0.1, weights=WEIGHTS.half()),
        )
        assert outcome.losses.dtype == outcome.probabilities.dtype == torch.float16


def test_fused_takes_the_kernel_of_the_layout() -> None:
    """Over the last axis float16 log_softmax keeps the row sum in half; in (N, C, d) it does not."""
    x = torch.zeros(1, 65_520, dtype=torch.float16)
    t = Labels(torch.tensor([0]), torch.tensor([True]))
    assert fused(x, t, Loss()).losses.isinf().all()
    assert float(fused(x, t, Loss(last_axis=False)).losses) == pytest.approx(math.log(65_520), rel=1e-3)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("t", [labels(), soft()], ids=["labels", "soft"])
def test_the_layout_does_not_change_harmless_losses(t: Labels, weights: torch.Tensor | None) -> None:
    options = Loss(label_smoothing=0.1, weights=weights, last_axis=False)
    last = Loss(label_smoothing=0.1, weights=weights)
    torch.testing.assert_close(fused(logits(), t, options).losses, fused(logits(), t, last).losses)
