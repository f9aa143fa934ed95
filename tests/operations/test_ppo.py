"""--op ppo against plain PyTorch on both sides of every cliff; its fixes run from their printed text."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import nanhunt
from nanhunt.errors import NanhuntError
from nanhunt.operations.ppo.operation import PPO
from nanhunt.operations.ppo.options import PpoOptions

INF, NAN = math.inf, math.nan
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
CLIFFS = (0.0, 0.25, -0.25, -9.0, -120.0, 9.0, 11.0, 11.125, 19.5, 21.0, 88.5, 89.0, 100.0, 700.0, 710.0)


def naive(new, old, advantages, mask, ref=None):
    """As GRPO trainers have it, mask last."""
    ratio = (new - old).exp()
    losses = -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
    if ref is not None:
        losses = losses + 0.1 * ((ref - new).exp() - (ref - new) - 1)
    return losses * mask


def seen(t: dict[str, torch.Tensor], scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(losses of tokens, gradients) as PyTorch computes them."""
    new = t["log_probs"].detach().clone().requires_grad_()
    losses = naive(new, t["old_log_probs"], t["advantages"], t["mask"].to(new.dtype), t.get("ref_log_probs"))
    (losses * torch.tensor(scale).to(losses.dtype)).sum().backward()
    return losses.detach(), new.grad


def found(report, code: str):
    """The finding of that rule."""
    (finding,) = [each for each in report.findings if each.code == code]
    return finding


def token(ratio: float, advantage: float, mask: bool = True, **more) -> dict[str, torch.Tensor]:
    """One token whose log-ratio is ``ratio``, beside one that is healthy."""
    old = torch.tensor([[-1.0 - ratio, -1.0]])
    return {
        "log_probs": torch.full((1, 2), -1.0), "old_log_probs": old,
        "advantages": torch.tensor([[advantage, 1.0]]), "mask": torch.tensor([[mask, True]]), **more,
    }  # fmt: skip


@st.composite
def batches(draw):
    count = draw(st.integers(1, 8))
    ratios = torch.tensor([draw(st.sampled_from(CLIFFS)) for _ in range(count)], dtype=torch.float64)
    new = torch.tensor(
        [draw(st.sampled_from((-1.0,) * 5 + (-INF, NAN))) for _ in range(count)], dtype=torch.float64
    )
    old = torch.where(new.isfinite(), new, -1.0) - ratios
    old[torch.tensor([draw(st.integers(0, 9)) == 0 for _ in range(count)])] = -INF
    t = {
        "log_probs": new, "old_log_probs": old,
        "advantages": torch.tensor([draw(st.sampled_from((1.0, -0.5, 0.0))) for _ in range(count)]),
        "mask": torch.tensor([draw(st.integers(0, 2)) > 0 for _ in range(count)]),
    }  # fmt: skip
    if draw(st.booleans()):
        t["ref_log_probs"] = torch.tensor(
            [draw(st.sampled_from((-1.0, 8.0, 12.0, 95.0))) for _ in range(count)]
        )
    return {name: each[None] for name, each in t.items()}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(t=batches())
@settings(max_examples=12, deadline=None)
def test_a_verdict_is_what_pytorch_does(judged, dtype, t):
    report = judged(PPO, PpoOptions(), str(dtype)[6:], **t)
    cast = {name: each if name == "mask" else each.to(dtype) for name, each in t.items()}
    losses, gradients = seen(cast, 1 / max(1, int(t["mask"].sum())))
    bad_value, bad_gradient = ~losses.isfinite(), ~gradients.isfinite()
    assert report.implementations["naive"].bad_value_rows == int(bad_value.sum())
    assert report.implementations["naive"].bad_gradient_rows == int(bad_gradient.sum())
    bad = {row for each in report.findings if each.severity != "note" for row in each.rows}
    # An input that is not finite is told even where the clip hides it: A > 0 at an old log-probability of -inf.
    told = {row for each in report.findings if each.code in ("NH801", "NH802", "NH803") for row in each.rows}
    assert bad == {int(at) for at in (bad_value | bad_gradient)[0].nonzero()} | told
    kept = t["mask"][0]
    for at in told:
        assert kept[at]
    for finding in report.findings:
        assert all(bool(kept[row]) == (finding.code != "NH805") for row in finding.rows)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_both_sides_of_the_cliff_of_exp(judged, dtype):
    limit = math.log(torch.finfo(dtype).max)
    step = 4 * torch.finfo(dtype).eps * limit
    for ratio, fails in ((limit - step, False), (limit + step, True)):
        old = torch.tensor([[-ratio]], dtype=torch.float64).to(dtype)
        t = {"log_probs": torch.zeros_like(old), "old_log_probs": old, "advantages": torch.ones_like(old)}
        report = judged(PPO, PpoOptions(), **t)
        assert ("NH807" in [each.code for each in report.findings]) == fails


def test_a_positive_advantage_has_a_finite_loss_and_a_nan_gradient(judged):
    report = judged(PPO, PpoOptions(), **token(100.0, 1.0))
    finding = found(report, "NH807")
    assert finding.message == (
        "token (0, 0): log-ratio 100 (log_probs -1, old -101), A = 1: the loss is -1.2 and right; "
        "exp(100) = inf, and 0 * inf in the backward pass is NaN"
    )
    works = {remedy.title: remedy.works for remedy in finding.remedies}
    assert works["bound the log-ratio where the clip makes it irrelevant, before exp"]
    for title in ("clamping the ratio after exp", "gradient clipping", "nan_to_num on the losses"):
        (remedy,) = [each for each in finding.remedies if each.title == title]
        assert (remedy.works, remedy.outcome) == (False, "right loss, gradient still NaN")


def test_the_clamp_of_the_log_ratio_is_another_objective(judged):
    finding = found(judged(PPO, PpoOptions(), **token(100.0, -0.5)), "NH804")
    clamp = next(each for each in finding.remedies if "clamp the log-ratio" in each.title)
    assert not clamp.works
    assert clamp.outcome == (
        "finite, but another objective (beyond 20 the ratio is exp(20) and the gradient 0): "
        "loss 2.43e+08, largest gradient 0, the true loss 1.34e+43"
    )
    note = found(judged(PPO, PpoOptions(), **token(30.0, -1.0)), "NH808")
    assert "clamped gives 4.85165e+08; the true loss is 1.06865e+13" in note.message


def test_an_advantage_of_zero_is_nan_and_need_not_be(judged):
    report = judged(PPO, PpoOptions(), **token(100.0, 0.0))
    assert report.implementations["naive"].bad_value_rows == 1
    assert "the true loss is 0" in found(report, "NH806").message


def test_a_masked_token_poisons_the_gradient(judged):
    report = judged(PPO, PpoOptions(), **token(100.0, 1.0, mask=False))
    by = report.implementations
    assert (by["naive"].bad_value_rows, by["naive"].bad_gradient_rows) == (0, 1)
    assert by["masked-first"].bad_gradient_rows == by["fused"].bad_gradient_rows == 0
    first = found(report, "NH805").remedies[0]
    assert (first.title, first.works) == ("mask the log-ratio before exp", True)


def test_both_impossible_is_nan_in_every_form(judged):
    t = token(0.0, 1.0)
    t["log_probs"][0, 0] = t["old_log_probs"][0, 0] = -INF
    report = judged(PPO, PpoOptions(), **t)
    assert "cannot have had probability 0" in found(report, "NH803").message
    assert report.implementations["naive"].bad_value_rows == 1
    t["mask"] = torch.tensor([[False, True]])
    healed = judged(PPO, PpoOptions(), **t)
    assert [each.code for each in healed.findings] == ["NH805"]


def test_k3_overflows_and_masks_first(judged):
    ref = torch.tensor([[99.0, -1.0]])
    kept = judged(PPO, PpoOptions(), **token(0.0, 1.0, ref_log_probs=ref))
    assert "exp(100) = inf" in found(kept, "NH804").message
    dropped = judged(PPO, PpoOptions(), **token(0.0, 1.0, mask=False, ref_log_probs=ref))
    assert (
        "k = torch.where(mask, ref_log_probs - log_probs, 0.0)" in found(dropped, "NH805").remedies[0].snippet
    )
    assert not judged(PPO, PpoOptions(kl="none"), **token(0.0, 1.0, ref_log_probs=ref)).findings


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("per_sequence", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        PpoOptions(), PpoOptions(reduction="sum"), PpoOptions(aggregation="seq-mean-token-mean"),
        PpoOptions(aggregation="seq-mean-token-sum", mask_drops=True), PpoOptions(level="sequence"),
        PpoOptions(aggregation="seq-mean-token-sum-norm", clip_dual=3.0),
    ],
    ids=["token-mean", "sum", "seq-mean", "seq-sum-drops", "sequence", "dual"],
)  # fmt: skip
def test_a_printed_fix_does_what_is_said_of_it(judged, dtype, per_sequence, options):
    """Each snippet on the whole batch, where all failing tokens but those of its own rule are taken out."""
    generator = torch.Generator().manual_seed(5)
    new = -torch.rand(4, 6, generator=generator).to(dtype)
    old = (new - torch.randn(4, 6, generator=generator) * 60).to(dtype)
    advantages = torch.randn((4,) if per_sequence else (4, 6), generator=generator).to(dtype)
    mask = torch.rand(4, 6, generator=generator) < 0.6
    t = {"log_probs": new, "old_log_probs": old, "advantages": advantages, "mask": mask}
    report = judged(PPO, options, **t)
    assert report.findings
    for finding in report.findings:
        keep = torch.zeros(report.rows, dtype=torch.bool)
        keep[list(finding.rows)] = True
        alone = {**t, "old_log_probs": old.clone()}
        spared = keep[:, None] if options.level == "sequence" else keep.reshape(4, 6)
        alone["old_log_probs"] = torch.where(spared, old, new)
        for remedy in finding.remedies:
            scope = {"torch": torch, "F": F} | {name: each.clone() for name, each in alone.items()}
            scope["log_probs"].requires_grad_()
            exec(remedy.snippet, scope)
            if scope["log_probs"].grad is None:
                scope["loss"].backward()
            finite = bool(scope["loss"].isfinite()) and bool(scope["log_probs"].grad.isfinite().all())
            if remedy.works:
                assert finite, remedy
            elif "NaN" in remedy.outcome or "infinite" in remedy.outcome:
                assert not finite, remedy


@pytest.mark.parametrize(
    "names",
    [
        ("per_token_logps", "old_per_token_logps", "advantages", "completion_mask", "ref_per_token_logps"),
        ("log_prob", "old_log_probs", "advantages", "response_mask", "ref_log_prob"),
        ("action_log_probs", "old_action_log_probs", "advantages", "action_mask", "base_action_log_probs"),
        ("new_logprobs", "old_logprobs", "advantages", "loss_mask", "ref_logprobs"),
    ],
    ids=["trl", "verl", "openrlhf", "trl-ppo"],
)
def test_the_names_of_trainers_are_known(tmp_path, names):
    t = token(100.0, 1.0, mask=False)
    values = [*t.values(), torch.full((1, 2), -1.0)]
    path = tmp_path / "batch.pt"
    torch.save({"step": {3: dict(zip(names, values, strict=True))}}, path)
    (tensor,) = nanhunt.check(path, op="ppo").tensors
    assert {role: label.split(".")[-1] for role, label in tensor.roles.items()} == dict(
        zip(("log_probs", "old_log_probs", "advantages", "mask", "ref_log_probs"), names, strict=True)
    )
    assert [finding.code for finding in tensor.findings] == ["NH805"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"advantages": torch.ones(3)}, "these shapes do not fit"),
        ({"mask": torch.tensor([[1, -100]])}, "is no mask: it holds values from -100 to 1"),
        ({"log_probs": torch.zeros(1, 2, dtype=torch.int64)}, "log_probs of --op ppo is"),
    ],
)
def test_what_does_not_fit_is_said(judged, change, said):
    with pytest.raises(NanhuntError, match=said):
        judged(PPO, PpoOptions(), **{**token(0.0, 1.0), **change})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mask_of_weights_is_refused_where_nothing_else_is_wrong_too(dtype):
    calm = {name: torch.zeros(2, 3) for name in ("log_probs", "old_log_probs", "advantages")}
    mask = torch.ones(2, 3, dtype=dtype)
    assert nanhunt.check({**calm, "mask": mask}, op="ppo").ok
    mask[0], mask[1, 2] = 0, 3
    for wrong, largest in ((mask, 3), ((mask * 2).long(), 6)):
        with pytest.raises(NanhuntError, match=f"is no mask: it holds values from 0 to {largest}"):
            nanhunt.check({**calm, "mask": wrong}, op="ppo")


def test_sequences_need_tokens(judged):
    flat = {name: each[0] for name, each in token(0.0, 1.0).items()}
    assert not judged(PPO, PpoOptions(), **flat).findings
    with pytest.raises(NanhuntError, match="no axis of sequences"):
        judged(PPO, PpoOptions(level="sequence"), **flat)


def test_a_sane_batch_is_healthy_and_says_how_it_read_the_mask(judged):
    new = -torch.rand(8, 5, generator=torch.Generator().manual_seed(1))
    old = new + torch.randn(8, 5, generator=torch.Generator().manual_seed(2)) * 0.1
    mask = torch.ones(8, 5)
    mask[:, 3:] = 0
    old[:, 3:] = 0.0  # padding
    mask[7] = 0  # a truncated completion that is left out as a whole
    for options in (
        PpoOptions(),
        PpoOptions(level="sequence"),
        PpoOptions(aggregation="seq-mean-token-mean"),
    ):
        report = judged(
            PPO, options, log_probs=new, old_log_probs=old, advantages=torch.randn(8), mask=mask,
            ref_log_probs=old,
        )  # fmt: skip
        assert not report.findings
        assert "1 (True) keeps a token" in report.notes[0]
