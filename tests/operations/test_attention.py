"""--op attention against plain PyTorch; its fixes run from their printed text in the user's own layout."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import nanhunt
from nanhunt.errors import NanhuntError
from nanhunt.operations.attention.operation import ATTENTION
from nanhunt.operations.attention.options import AttentionOptions
from nanhunt.results.finding import Severity

INF = math.inf
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def masks(kind: str, batch: int, length: int, keys: int, generator: torch.Generator) -> torch.Tensor | None:
    """A mask as models make it; some rows of some are empty."""
    keep = torch.rand(batch, 1, length, keys, generator=generator) < 0.6
    keep[..., 0] = True
    keep[0, 0, 1] = False  # left padding
    lowest = {"-inf": -INF, "-1e9": -1e9, "finfo": torch.finfo(torch.float32).min}.get(kind, 0.0)
    return {
        "none": None, "bool": keep, "bool 2d": keep[0, 0], "key padding": keep[:, :, :1],
    }.get(kind, torch.zeros(keep.shape).masked_fill(~keep, lowest))  # fmt: skip


def plain(q, k, v, mask, causal: bool, softcap: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(bad value, bad gradient of the query) per row of the naive spelling, run on the user's own layout."""
    q = q.detach().clone().requires_grad_()
    k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], 1) for each in (k, v))
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if softcap:
        scores = (scores / softcap).tanh() * softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, -INF) if mask.dtype == torch.bool else scores + mask
    if causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -INF)
    output = scores.softmax(-1) @ v
    output.sum().backward()
    return (~output.isfinite()).any(-1).numpy(), (~q.grad.isfinite()).any(-1).numpy()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["none", "bool", "bool 2d", "key padding", "-inf", "-1e9", "finfo"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("size", "softcap"), [(1.0, 0.0), (40.0, 0.0), (40.0, 50.0)])
def test_a_verdict_is_what_pytorch_does(judged, dtype, kind, causal, size, softcap):
    generator = torch.Generator().manual_seed(7)
    q = torch.randn(2, 4, 6, 16, generator=generator) * size
    k, v = (torch.randn(2, 2, 6, 16, generator=generator) * size for _ in range(2))
    if size > 1:
        q[1, 2, 3, 0] = math.nan
    mask = masks(kind, 2, 6, 6, generator)
    tensors = {"query": q, "key": k, "value": v} | ({} if mask is None else {"attn_mask": mask})
    report = judged(
        ATTENTION, AttentionOptions(causal=causal, softcap=softcap), str(dtype)[6:], **tensors
    )  # fmt: skip
    q, k, v = (each.to(dtype) for each in (q, k, v))
    mask = mask if mask is None or mask.dtype == torch.bool else mask.to(dtype)
    bad_value, bad_gradient = plain(q, k, v, mask, causal, softcap)
    found = report.implementations["naive"]
    assert found.bad_value_rows == bad_value.sum()
    assert found.bad_gradient_rows >= bad_gradient.sum()
    broken = {row for each in report.findings if each.severity is Severity.ERROR for row in each.rows}
    breaks = {
        row for each in report.findings if each.severity is Severity.WARNING for row in each.rows
    } | broken
    assert breaks == {int(row) for row in np.flatnonzero(bad_value | bad_gradient)}
    assert broken == ({int(row) for row in np.flatnonzero((~q.isfinite()).any(-1))})
    for finding in report.findings:
        for remedy in finding.remedies:
            follows(remedy, tensors, dtype)


def follows(remedy, tensors, dtype) -> None:
    """The printed text runs on the user's tensors; where it works, what it gives is finite beside NaN input."""
    scope = {name: each.to(dtype) if each.is_floating_point() else each for name, each in tensors.items()}
    if "query" in scope:
        scope["query"] = scope["query"].nan_to_num()  # of a row that has a finding of its own
    exec(remedy.snippet, scope | {"torch": torch, "F": F}, scope)
    assert not remedy.works or bool(scope["output"].isfinite().all()), remedy


def test_a_product_that_overflows_half_precision_is_told_with_its_numbers(judged):
    q = torch.full((1, 1, 2, 64), 60.0, dtype=torch.float16)
    report = judged(ATTENTION, AttentionOptions(), query=q, key=q, value=q)
    finding = next(each for each in report.findings if each.severity is Severity.WARNING)
    assert finding.name == "score-overflow"
    assert (
        finding.message == "row (0, 0, 0, 0): q @ k.mT reaches 230400 > 65504 in float16, before it is scaled"
    )
    assert [(remedy.title, remedy.works) for remedy in finding.remedies] == [
        ("call F.scaled_dot_product_attention", True),
        ("scale the query before the product", True),
        ("compute the attention in float32", True),
        ("nan_to_num on the output", False),
    ]


def test_a_bool_mask_that_drops_is_turned_round_on_request(judged):
    q = torch.zeros(1, 1, 2, 4)
    drops = torch.tensor([[True, True], [True, False]])
    kept = judged(ATTENTION, AttentionOptions(), query=q, key=q, attn_mask=drops)
    dropped = judged(ATTENTION, AttentionOptions(mask_drops=True), query=q, key=q, attn_mask=drops)
    assert [each.rows for each in kept.findings if each.name == "fully-masked-query"] == []
    assert [each.rows for each in dropped.findings if each.name == "fully-masked-query"] == [(0,)]


def test_a_causal_or_padding_mask_is_no_finding(judged):
    q = torch.randn(2, 2, 5, 8)
    assert not judged(ATTENTION, AttentionOptions(causal=True), query=q, key=q, value=q).findings
    padding = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    padding[1, ..., 3:] = False
    assert not judged(ATTENTION, AttentionOptions(), query=q, key=q, value=q, attn_mask=padding).findings


@pytest.mark.parametrize(
    "shapes",
    [((2, 3, 4), (2, 3, 5)), ((2, 4, 3, 8), (2, 3, 3, 8)), ((2, 4, 3, 8), (1, 4, 3, 8)), ((8,), (8,))],
)
def test_shapes_that_do_not_fit_are_refused(judged, shapes):
    query, key = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(NanhuntError, match="do not fit"):
        judged(ATTENTION, AttentionOptions(), query=query, key=key)


def by_hand(scores, v, mask, causal: bool) -> tuple[np.ndarray, np.ndarray]:
    """(bad value, bad gradient of the scores) per row of softmax(scores + mask) @ v in the user's own layout."""
    leaf = scores.detach().clone().requires_grad_()
    scores = leaf
    if mask is not None:
        scores = scores.masked_fill(~mask, -INF) if mask.dtype == torch.bool else scores + mask
    if causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -INF)
    output = scores.softmax(-1)
    output = output if v is None else output @ v.repeat_interleave(scores.shape[1] // v.shape[1], 1)
    output.sum().backward()
    return (~output.isfinite()).any(-1).numpy(), (~leaf.grad.isfinite()).any(-1).numpy()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["none", "bool", "bool 2d", "-inf", "-1e9", "baked in"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [None, 4, 2])
def test_scores_alone_are_judged_as_pytorch_does(judged, dtype, kind, causal, heads):
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(2, 4, 6, 5, generator=generator) * 30
    mask = masks(kind, 2, 6, 5, generator)
    if kind == "baked in":
        keep = masks("bool", 2, 6, 5, generator)
        scores, mask = scores.masked_fill(~keep, -INF), None
        scores[1, 2, 3, 0] = math.nan
    tensors = {"scores": scores} | ({} if mask is None else {"attn_mask": mask})
    v = None
    if heads is not None:
        tensors["value"] = v = torch.randn(2, heads, 5, 3, generator=generator)
    report = judged(ATTENTION, AttentionOptions(causal=causal), str(dtype)[6:], **tensors)
    mask = mask if mask is None or mask.dtype == torch.bool else mask.to(dtype)
    bad_value, bad_gradient = by_hand(scores.to(dtype), None if v is None else v.to(dtype), mask, causal)
    found = report.implementations["naive"]
    assert found.bad_value_rows == bad_value.sum()
    assert found.bad_gradient_rows >= bad_gradient.sum()
    assert v is not None or found.bad_gradient_rows == bad_gradient.sum()
    told = {row for each in report.findings if each.severity is not Severity.NOTE for row in each.rows}
    assert told == {int(row) for row in np.flatnonzero(bad_value | bad_gradient)}
    nan_rows = {int(row) for row in np.flatnonzero(scores.isnan().any(-1))}
    assert {
        row for each in report.findings if each.severity is Severity.ERROR for row in each.rows
    } == nan_rows
    for finding in report.findings:
        for remedy in finding.remedies:
            follows(remedy, {**tensors, "scores": scores.masked_fill(scores.isnan(), 0.0)}, dtype)


def test_a_row_of_scores_that_are_all_masked_has_a_way_out_that_was_run(judged):
    scores = torch.zeros(1, 2, 3)
    scores[0, 1] = -INF
    report = judged(ATTENTION, AttentionOptions(), scores=scores)
    finding = next(each for each in report.findings if each.name == "fully-masked-query")
    assert finding.rows == (1,)
    remedy = finding.remedies[0]
    assert remedy.works
    scope = {"scores": scores}
    exec(remedy.snippet, {"torch": torch, "F": F, **scope}, scope)
    assert scope["output"].tolist() == [[[pytest.approx(1 / 3)] * 3, [0.0] * 3]]


def test_scores_whose_mask_is_finite_become_minus_infinity_in_half_precision(judged):
    scores = torch.full((1, 1, 4), -1e9)
    report = judged(ATTENTION, AttentionOptions(), "float16", scores=scores)
    told = {each.name: each.message for each in report.findings}
    assert told["mask-becomes-infinite"].endswith("4 scores of -1e+09 become -inf in float16")
    assert "fully-masked-query" in told


def test_scores_that_overflow_in_the_cast_or_are_infinite_are_input_at_fault(judged):
    scores = torch.tensor([[[1e6, 0.0], [INF, 0.0], [1.0, 0.0]]])
    report = judged(ATTENTION, AttentionOptions(), "float16", scores=scores)
    assert {each.name: each.rows for each in report.findings if each.severity is Severity.ERROR} == {
        "attention-input-not-finite": (1,), "attention-cast-overflow": (0,)
    }  # fmt: skip


def test_scores_beside_a_query_and_its_key_are_left_aside(judged):
    q = torch.randn(1, 2, 3, 4)
    lost = torch.full((1, 2, 3, 3), math.nan)
    assert not judged(ATTENTION, AttentionOptions(), query=q, key=q, scores=lost).findings
    assert not judged(ATTENTION, AttentionOptions(), query=q, key=q, scores=lost.flatten()[None]).findings


@pytest.mark.parametrize(
    "shapes",
    [
        {"scores": (2, 3, 4), "value": (2, 5, 4)},
        {"scores": (4, 3, 4), "value": (3, 4, 4)},
        {"scores": (2, 3, 4), "attn_mask": (3, 5)},
        {"scores": (2, 3, 4), "query": (2, 3, 8)},
        {"scores": (2, 3, 4), "value": (4, 8)},
    ],
)
def test_scores_that_do_not_fit_are_refused(judged, shapes):
    with pytest.raises(NanhuntError, match="do not fit"):
        judged(ATTENTION, AttentionOptions(), **{name: torch.zeros(shape) for name, shape in shapes.items()})


def test_scores_have_no_scale_any_more(judged):
    with pytest.raises(NanhuntError, match=r"--scale 0\.5 applies"):
        judged(ATTENTION, AttentionOptions(scale=0.5), scores=torch.zeros(2, 3, 4))


def test_what_scores_are_taken_for_is_told(judged):
    scores, q = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 4)
    assert "as they enter the softmax" in str(judged(ATTENTION, AttentionOptions(), scores=scores))
    both = str(judged(ATTENTION, AttentionOptions(), query=q, key=q, scores=scores))
    assert "left aside" in both
    assert "softmax: scaled" not in str(judged(ATTENTION, AttentionOptions(), query=q, key=q))


def test_a_dump_of_scores_under_their_usual_name_is_found():
    scores = torch.zeros(1, 2, 3, 3)
    scores[0, 1, 2] = -INF
    report = nanhunt.check({"layer.0.attn_scores": scores, "layer.1.attn_scores": scores + 1}, op="attention")
    assert [each.rows for each in report.findings if each.name == "fully-masked-query"] == [(5,), (5,)]


def test_a_softcap_spelled_with_exp_is_nan_where_tanh_is_not(judged):
    q = torch.full((1, 1, 2, 4), 70.0)
    report = judged(ATTENTION, AttentionOptions(softcap=50.0), query=q, key=q, value=q)  # scores of 9,800
    by = report.implementations
    assert (by["naive"].bad_value_rows, by["fused"].wrong_rows, by["softcap-by-exp"].bad_value_rows) == (
        0,
        0,
        2,
    )
    (finding,) = [each for each in report.findings if each.name == "softcap-by-exp-overflow"]
    assert "exp(196) = inf" in finding.message
    (remedy,) = finding.remedies
    assert remedy.works
    follows(remedy, {"query": q, "key": q, "value": q}, torch.float32)
    assert "softcap-by-exp" not in judged(ATTENTION, AttentionOptions(), query=q, key=q).implementations


def test_a_softcap_comes_after_the_scale_and_before_the_mask(judged):
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 2, 5, 8, generator=generator, dtype=torch.float64) * 4 for _ in range(3))
    mask = torch.zeros(5, 5, dtype=torch.float64).masked_fill(torch.ones(5, 5).triu(1) > 0, -INF)
    scores = (q @ k.mT * 0.5 / 2.0).tanh() * 2.0 + mask
    t = {"query": q[0], "key": k[0], "value": v[0], "attn_mask": mask[None]}
    for name in ("naive", "scale-first", "exp-by-hand", "softcap-by-exp", "fused"):
        output = ATTENTION.forms[name](t, AttentionOptions(scale=0.5, softcap=2.0))
        torch.testing.assert_close(output, (scores.softmax(-1) @ v)[0])
    torch.testing.assert_close(
        ATTENTION.truth(t, AttentionOptions(scale=0.5, softcap=2.0)), (scores.softmax(-1) @ v)[0]
    )
    with pytest.raises(NanhuntError, match="--softcap 2 applies"):
        judged(ATTENTION, AttentionOptions(softcap=2.0), scores=scores)


def test_where_a_keys_gradient_overflows_by_its_sum_alone_every_query_is_to_blame() -> None:
    """Each query's own gradient is finite; what 64 of them add up to in the key's is not."""
    query = torch.full((1, 1, 64, 4), 200.0, dtype=torch.float16)
    key, value = torch.zeros(1, 1, 2, 4).half(), torch.tensor([[100.0] * 4, [-100.0] * 4])[None, None].half()
    leaves = [each.clone().requires_grad_() for each in (query, key, value)]
    F.scaled_dot_product_attention(*leaves).sum().backward()
    assert [bool(leaf.grad.isfinite().all()) for leaf in leaves] == [True, False, True]
    report = nanhunt.check({"query": query, "key": key, "value": value}, op="attention")
    assert [finding.count for finding in report.findings if finding.severity.value == "error"] == [64]


def nearly_tied(gap: float) -> dict[str, torch.Tensor]:
    """One query whose scores 2,048 and 2,048 + gap / 2 float16 rounds to one: their products are 4 apart there."""
    query = torch.tensor([128.0, 1.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
    key = torch.tensor([[32.0, 0.0, 0.0, 0.0], [32.0, gap, 0.0, 0.0]]).reshape(1, 1, 2, 4)
    return {"query": query, "key": key, "value": torch.tensor([[-1.0], [1.0]]).reshape(1, 1, 2, 1)}


@pytest.mark.parametrize(("gap", "name"), [(1.9, "attention-silently-wrong"), (0.5, "attention-imprecise")])
def test_scores_rounded_to_one_give_an_output_that_is_told_wrong_by_how_much(judged, gap, name):
    tensors = {each: one.half() for each, one in nearly_tied(gap).items()}
    q, k, v = (tensors[each].double() for each in ("query", "key", "value"))
    true = float(F.scaled_dot_product_attention(q, k, v))
    naive = float((tensors["query"] @ tensors["key"].mT * 0.5).softmax(-1).double() @ v)
    assert abs(naive - true) > (0.25 if gap > 1 else 1 / 32)
    report = judged(ATTENTION, AttentionOptions(), "float16", **tensors)
    finding = next(each for each in report.findings if each.name == name)
    assert finding.severity == (Severity.WARNING if gap > 1 else Severity.NOTE)
    assert f"naive gives {naive:.6g}, the truth is {true:.6g}" in finding.message
    assert "where float16 goes in steps of 2" in finding.message
    assert finding.remedies[0].works
    assert report.implementations["naive"].wrong_rows == 1
    assert report.implementations["fused"].wrong_rows == 0


def test_scores_of_a_trained_size_are_no_finding_in_any_dtype(judged):
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, 4, 32, 16, generator=generator) for _ in range(3))
    q *= 25 / float((q @ k.mT / 4).abs().max())
    for dtype in ("float32", "bfloat16", "float16"):
        found = judged(ATTENTION, AttentionOptions(), dtype, query=q, key=k, value=v).findings
        assert {each.name for each in found} <= {"exp-of-scores-overflow"}


def test_scores_that_even_sdpa_rounds_away_are_told(judged):
    tensors = nearly_tied(1.9)
    tensors["query"][..., 0] = 2.0**24
    true = float(F.scaled_dot_product_attention(*(each.double() for each in tensors.values())))
    fused = float(F.scaled_dot_product_attention(*tensors.values()))
    assert abs(fused - true) > 0.25
    found = judged(ATTENTION, AttentionOptions(), "float32", **tensors).findings
    assert [each.severity for each in found if each.name == "fused-attention-wrong"] == [Severity.WARNING]
    assert not any(each.name == "attention-silently-wrong" for each in found)


@pytest.mark.parametrize("entry", [0.5, 1.0, -3.0])
def test_a_mask_of_floats_is_added_whatever_it_holds(entry):
    """PyTorch reads no float as "keep", not even 0 and 1: what is added is legal, and the report says so."""
    heads = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(3, 3).masked_fill(torch.ones(3, 3, dtype=torch.bool).tril(-1), entry)
    added = (heads @ heads.mT / 2 + mask).softmax(-1) @ heads
    assert torch.allclose(F.scaled_dot_product_attention(heads, heads, heads, mask), added, atol=1e-6)
    (report,) = nanhunt.compare(
        {"query": heads, "key": heads, "value": heads, "attn_mask": mask}, op="attention"
    ).tensors
    assert not report.findings
    assert report.implementations["naive"].max_error < 1e-6
    assert report.notes == (
        "the mask is float32, which PyTorch adds to the scores: 0 keeps a key, -inf leaves it out",
    )


@pytest.mark.parametrize(("drops", "word"), [(None, "keeps a key"), (True, "leaves a key out")])
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_how_a_mask_is_read_is_said(drops, word, dtype):
    mask = torch.tensor([[1, 0, 1]] * 3).to(dtype)
    (report,) = nanhunt.check(
        {"scores": torch.zeros(2, 3, 3), "mask": mask}, op="attention", mask_drops=drops
    ).tensors
    assert f"mask: 1 (True) {word}" in report.notes[0]
