"""--op ppo gives the losses and gradients of the formulas that TRL (grpo_trainer) and verl (core_algos) document."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from nanhunt.errors import NanhuntError
from nanhunt.operations.ppo.operation import PPO
from nanhunt.operations.ppo.options import PpoOptions

GENERATOR = torch.Generator().manual_seed(11)
NEW = -torch.rand(6, 5, generator=GENERATOR, dtype=torch.float64) * 3
OLD = NEW + torch.randn(6, 5, generator=GENERATOR, dtype=torch.float64) * 0.7
REF = NEW + torch.randn(6, 5, generator=GENERATOR, dtype=torch.float64) * 0.7
ADVANTAGES = torch.randn(6, generator=GENERATOR, dtype=torch.float64)
MASK = torch.rand(6, 5, generator=GENERATOR) < 0.7
MASK[:, 0] = True
MEANS = {
    "token-mean": lambda losses, m: (losses * m).sum() / m.sum(),
    "seq-mean-token-mean": lambda losses, m: ((losses * m).sum(-1) / m.sum(-1)).mean(),
    "seq-mean-token-sum": lambda losses, m: (losses * m).sum(-1).mean(),
    "seq-mean-token-sum-norm": lambda losses, m: ((losses * m).sum(-1) / m.shape[-1]).mean(),
}
"""verl's names; TRL calls them bnpo, grpo, -, dr_grpo."""
ESTIMATORS = {
    "k1": lambda new: new - REF,
    "k2": lambda new: (new - REF) ** 2 / 2,
    "k3": lambda new: (REF - new).exp() - (REF - new) - 1,
}


def surrogate(ratio: torch.Tensor, dual: float = 0.0) -> torch.Tensor:
    """max(-A r, -A clip(r)); for A < 0 never above -A c."""
    a = ADVANTAGES[:, None]
    losses = torch.maximum(-a * ratio, -a * ratio.clamp(0.8, 1.28))
    return torch.where(a < 0, torch.minimum(-a * dual, losses), losses) if dual else losses


def outcome(judged, options: PpoOptions, **more: torch.Tensor):
    """(report, the form's losses and gradients as a function of its name)."""
    t = {"log_probs": NEW, "old_log_probs": OLD, "advantages": ADVANTAGES, "mask": MASK, **more}
    cut = {**t, "advantages": ADVANTAGES[:, None]}

    def gradient(form: str) -> torch.Tensor:
        leaf = NEW.clone().requires_grad_()
        write = PPO.truth if form == "truth" else PPO.forms[form]
        write({**cut, "log_probs": leaf}, options).sum().backward()
        return leaf.grad

    return judged(PPO, options, **t), gradient


FORMS = ("naive", "masked-first", "clamped", "fused", "truth")


@pytest.mark.parametrize("dual", [0.0, 1.5, 3.0])
@pytest.mark.parametrize("aggregation", MEANS)
def test_a_loss_of_tokens_is_that_of_verl(judged, aggregation, dual):
    options = PpoOptions(clip_high=0.28, clip_dual=dual, aggregation=aggregation)
    leaf = NEW.clone().requires_grad_()
    losses = surrogate((leaf - OLD).exp(), dual)
    loss = MEANS[aggregation](losses, MASK.double())
    loss.backward()
    report, gradient = outcome(judged, options)
    assert not report.findings
    for form in FORMS:
        told = report.truth if form == "truth" else report.implementations[form]
        assert told.loss == pytest.approx(float(loss.detach()), rel=1e-12)
    scale = MASK.sum() if aggregation == "token-mean" else len(NEW)
    for form in FORMS:
        torch.testing.assert_close(gradient(form) / scale, leaf.grad)


@pytest.mark.parametrize("kl", ESTIMATORS)
def test_the_penalty_is_that_of_trl(judged, kl):
    options = PpoOptions(clip_high=0.28, beta=0.04, kl=kl)
    leaf = NEW.clone().requires_grad_()
    losses = surrogate((leaf - OLD).exp()) + 0.04 * ESTIMATORS[kl](leaf)
    loss = MEANS["token-mean"](losses, MASK.double())
    loss.backward()
    report, gradient = outcome(judged, options, ref_log_probs=REF)
    assert report.implementations["naive"].loss == pytest.approx(float(loss.detach()), rel=1e-12)
    torch.testing.assert_close(gradient("fused") / MASK.sum(), leaf.grad)


def test_the_ratio_of_a_sequence_is_that_of_gspo(judged):
    m, options = MASK.double(), PpoOptions(clip_high=0.28, level="sequence")
    leaf = NEW.clone().requires_grad_()
    mean = ((leaf - OLD) * m).sum(-1, keepdim=True) / m.sum(-1, keepdim=True)
    loss = MEANS["seq-mean-token-mean"](surrogate(mean.exp()).expand_as(m), m)
    loss.backward()
    report, gradient = outcome(judged, options)
    assert report.rows == len(NEW)
    for form in FORMS:
        torch.testing.assert_close(gradient(form) / len(NEW), leaf.grad)
    assert report.implementations["naive"].loss == pytest.approx(float(loss.detach()), rel=1e-12)
    # verl lets the gradient reach each token by exp(log p - sg(log p)), which is the same gradient.
    other = NEW.clone().requires_grad_()
    ratio = (other - other.detach() + mean.detach()).exp()
    MEANS["seq-mean-token-mean"](surrogate(ratio), m).backward()
    torch.testing.assert_close(other.grad, leaf.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_dual_clip_bounds_the_loss_and_not_the_gradient_of_exp(judged, dtype):
    t = {
        "log_probs": torch.zeros(1, 2), "old_log_probs": torch.tensor([[-100.0, -1.0]]),
        "advantages": torch.tensor([-1.0]),
    }  # fmt: skip
    t = {name: each.to(dtype) for name, each in t.items()}
    report = judged(PPO, PpoOptions(clip_dual=3.0), **t)
    (finding,) = [each for each in report.findings if each.severity != "note"]
    assert (finding.code, finding.rows) == ("NH807", (0,))
    assert report.implementations["fused"].bad_gradient_rows == 0
    fix = finding.remedies[0]
    assert fix.works
    scope = {"torch": torch, "F": F, **t, "log_probs": t["log_probs"].clone().requires_grad_()}
    exec(fix.snippet, scope)
    scope["loss"].backward()
    assert float(scope["loss"].detach()) == pytest.approx((3 + math.e) / 2, rel=8 * torch.finfo(dtype).eps)
    assert scope["log_probs"].grad[0, 0] == 0


def test_a_dual_clip_below_one_is_refused(judged):
    with pytest.raises(NanhuntError, match=r"--clip-dual 0\.5 would clip"):
        outcome(judged, PpoOptions(clip_dual=0.5))
