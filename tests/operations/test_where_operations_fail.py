"""Where each operation fails, at the very number: plain PyTorch beside what is said of it."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
import torch.nn.functional as F

import nanhunt
from nanhunt.errors import NanhuntError
from nanhunt.load.memory import tensor_of
from nanhunt.operations.problem import problem_of, read_block
from nanhunt.operations.registry import OPERATIONS

INF, NAN = math.inf, math.nan
HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32


def told(judged, op: str, dtype: torch.dtype, options=None, **tensors) -> dict[str, tuple[int, ...]]:
    """Rows by rule."""
    operation = OPERATIONS[op]
    given = {
        name: each if isinstance(each, torch.Tensor) else torch.tensor(each) for name, each in tensors.items()
    }
    report = judged(operation, operation.options(**(options or {})), str(dtype)[6:], **given)
    return {finding.name: finding.rows for finding in report.findings}


SQUARES = {"hidden_states": [[255.0] * 4, [256.0] * 4]}
ZERO = {"hidden_states": [[0.0] * 4]}
CASES = (
    # (operation, dtype, options, tensors, what is said)
    ("entropy", SINGLE, {}, {"logits": [[1.0, 2.0, -INF], [1.0, 2.0, 3.0]]}, {"masked-entropy": (0,)}),
    ("entropy", SINGLE, {}, {"logits": [[200.0, 0.0, 0.0]]}, {"underflowed-entropy": (0,)}),
    ("entropy", SINGLE, {}, {"logits": [[-INF, -INF]]}, {"entropy-of-nothing": (0,)}),
    (
        "softmax",
        SINGLE,
        {},
        {"logits": [[89.0, 80.0], [88.0, 80.0], [-120.0, -121.0]]},
        {"softmax-exp-overflow": (0, 2)},
    ),
    (
        "softmax",
        SINGLE,
        {},
        {"logits": [[0.0, -87.0], [0.0, -104.0], [1.0, -INF]]},
        {"log-of-zero-probability": (1, 2)},
    ),
    ("softmax", HALF, {}, {"logits": [[-INF, -INF]]}, {"softmax-of-nothing": (0,)}),
    ("logsumexp", SINGLE, {}, {"logits": [[89.0, 0.0], [88.0, 0.0]]}, {"exp-sum-overflow": (0,)}),
    ("logsumexp", HALF, {}, {"logits": torch.zeros(1, 65504)}, {}),
    (
        "logsumexp",
        HALF,
        {},
        {"logits": torch.zeros(1, 65536)},
        {"logsumexp-not-finite": (0,), "exp-sum-overflow": (0,)},
    ),
    ("logsumexp", BRAIN, {}, {"logits": torch.zeros(1, 65536)}, {}),
    ("logsumexp", SINGLE, {}, {"logits": [[-INF, -INF], [0.0, -INF]]}, {"logsumexp-of-nothing": (0,)}),
    ("norm", HALF, {"eps": 1e-6}, SQUARES, {"norm-square-overflow": (1,)}),
    ("norm", SINGLE, {"eps": 1e-6}, SQUARES, {}),
    (
        "norm",
        HALF,
        {"norm": "l2"},
        {"hidden_states": torch.full((1, 4096), 256.0)},
        {"norm-square-overflow": (0,)},
    ),
    (
        "norm",
        HALF,
        {},
        {"hidden_states": [[300.0, 1.0]], "weight": [0.01, 0.01]},
        {"norm-square-overflow": (0,)},
    ),
    (
        "norm",
        HALF,
        {"norm": "cosine"},
        {
            "hidden_states": [[300.0, 0.0], [1.0, 0.0], [3.0, 0.0]],
            "weight": [[1.0, 40.0], [2.0, 300.0], [2.0, 100.0]],
        },
        {"norm-square-overflow": (0, 1)},
    ),
    ("norm", HALF, {"eps": 1e-3}, ZERO, {}),
    ("norm", HALF, {"eps": 1e-5}, ZERO, {"naive-norm-not-finite": (0,)}),
    ("norm", HALF, {"eps": 1e-8}, ZERO, {"naive-norm-not-finite": (0,)}),
    ("norm", HALF, {"norm": "l2"}, ZERO, {"norm-eps-is-zero": (0,)}),
    ("norm", HALF, {"norm": "cosine"}, ZERO, {"norm-eps-is-zero": (0,)}),
    ("norm", SINGLE, {"eps": 0.0}, ZERO, {"norm-eps-is-zero": (0,)}),
    (
        "masked-mean",
        SINGLE,
        {"eps": 0.0},
        {"values": [1.0, 1.0, 3.0, 2.0], "groups": [0, 0, 1, 1]},
        {"masked-mean-not-finite": (0, 1)},
    ),
    ("attention", SINGLE, {}, {"scores": [[0.0, -3e38], [-3e38, -3e38]]}, {"query-without-keys": (1,)}),
    ("attention", HALF, {}, {"scores": [[0.0, -1e9], [-1e4, -1e4]]}, {"query-without-keys": (1,)}),
    (
        "attention",
        SINGLE,
        {},
        {"scores": [[89.0, 0.0], [-104.5, -105.0], [-50.0, -INF]]},
        {"exp-of-scores-overflow": (0, 1)},
    ),
    ("bce", SINGLE, {}, {"logits": [NAN, 2.0], "targets": [1.0, 1.0]}, {"bce-input-not-finite": (0,)}),
    ("bce", SINGLE, {}, {"logits": [1.0, 2.0], "targets": [1.0, -100.0]}, {"bce-target-out-of-range": (1,)}),
    (
        "gaussian-kl",
        SINGLE,
        {},
        {"mu": [0.0, 0.0], "logvar": [88.72, 88.73]},
        {"variance-overflow": (1,), "clamped-logvar": (0, 1)},
    ),
    ("gaussian-kl", HALF, {}, {"mu": [0.0, 0.0], "logvar": [11.08, 11.1]}, {"variance-overflow": (1,)}),
    ("kl", SINGLE, {}, {"log_probs": [[-1.0, -0.5]], "target": [[0.0, 1.0]]}, {"naive-kl-not-finite": (0,)}),
    ("kl", SINGLE, {}, {"log_probs": [[-INF, -0.5]], "target": [[0.0, 1.0]]}, {"kl-masked-in-both": (0,)}),
    ("kl", SINGLE, {}, {"log_probs": [[-INF, -0.5]], "target": [[0.5, 0.5]]}, {"kl-infinite": (0,)}),
    (
        "kl",
        SINGLE,
        {"log_target": True},
        {"log_probs": [[-1.0, -0.5]], "target": [[-INF, 0.0]]},
        {"kl-not-finite": (0,)},
    ),
    ("masked-mean", SINGLE, {}, {"values": [[1.0, NAN]], "mask": [[True, False]]}, {"masked-nan": (0,)}),
    ("masked-mean", SINGLE, {}, {"values": [[1.0, 2.0]], "mask": [[0, 0]]}, {"empty-mask": (0,)}),
    ("masked-mean", SINGLE, {}, {"values": [1.0, 0.0, 3.0], "groups": [7, 7, 9]}, {"deviation-of-one": (2,)}),
    (
        "distance",
        SINGLE,
        {},
        {"a": [[1.0, 2.0], [1.0, 2.0]], "b": [[1.0, 2.0], [0.0, 0.0]]},
        {"zero-distance": (0,)},
    ),
    ("distance", HALF, {}, {"a": [[255.0, 0.0], [256.0, 0.0]]}, {"distance-overflow": (1,)}),
    (
        "log1mexp",
        SINGLE,
        {},
        {"log_probs": [-1e-9, -1e-3]},
        {"log1mexp-cancellation": (0,), "log1mexp-half-gradient": (0,)},
    ),
    ("log1mexp", SINGLE, {}, {"log_probs": [0.0]}, {"certain-event": (0,)}),
    (
        "contrastive",
        HALF,
        {"temperature": 0.07},
        {"sim": [[1.0, 0.0], [0.0, 0.5]]},
        {"temperature-overflow": (0,)},
    ),
    ("contrastive", SINGLE, {"temperature": 0.07}, {"sim": [[1.0, 0.0], [0.0, 0.5]]}, {}),
    (
        "contrastive",
        SINGLE,
        {"temperature": 0.01},
        {"sim": [[1.0, 0.0], [0.0, 0.5]]},
        {"temperature-overflow": (0,)},
    ),
    (
        "contrastive",
        BRAIN,
        {"temperature": 0.01},
        {"sim": [[1.0, 0.0], [0.0, 0.5]]},
        {"temperature-overflow": (0,)},
    ),
    ("gumbel-softmax", SINGLE, {}, {"logits": [[0.0, 1.0]], "noise": [[0.5, 1.0]]}, {"uniform-one": (0,)}),
    ("gumbel-softmax", SINGLE, {}, {"logits": [[0.0, 1.0]], "noise": [[0.5, 0.0]]}, {"uniform-zero": (0,)}),
    (
        "gumbel-softmax",
        HALF,
        {},
        {"logits": [[0.0, 1.0]], "noise": [[0.5, 0.99999]]},
        {"uniform-one": (0,), "eps-inside-gumbel": (0,)},
    ),
    (
        "gumbel-softmax",
        HALF,
        {"tau": 0.01},
        {"logits": [[700.0, 1.0]], "noise": [[0.5, 0.5]]},
        {"scaled-score-overflow": (0,), "eps-inside-gumbel": (0,)},
    ),
    (
        "gumbel-softmax",
        HALF,
        {},
        {"logits": [[8000.0, 8000.0]], "noise": [[0.8611, 0.8847]]},
        {"gumbel-softmax-silently-wrong": (0,)},
    ),
    (
        "gumbel-softmax",
        HALF,
        {"tau": 0.003},
        {"logits": [[4.0, 4.0]], "noise": [[0.3, 0.301]]},
        {"gumbel-softmax-imprecise": (0,)},
    ),
    ("gumbel-softmax", HALF, {"hard": True}, {"logits": [[8000.0, 8000.0]], "noise": [[0.8611, 0.8847]]}, {}),
)


@pytest.mark.parametrize(("op", "dtype", "options", "tensors", "said"), CASES)
def test_what_is_said(judged, op, dtype, options, tensors, said):
    assert told(judged, op, dtype, options, **tensors) == said


def test_legal_use_is_never_flagged(judged):
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    for dtype in (SINGLE, BRAIN, HALF):
        assert not told(judged, "logsumexp", dtype, logits=x.masked_fill(x > 1, -INF))
        assert not told(judged, "entropy", dtype, logits=x)
        assert not told(judged, "softmax", dtype, logits=x)
        assert not told(judged, "norm", dtype, hidden_states=x, weight=torch.ones(8))
        assert not told(judged, "norm", dtype, {"norm": "layer"}, hidden_states=x * 100)
        assert not told(judged, "gaussian-kl", dtype, mu=x, logvar=-x.abs())
        assert not told(judged, "kl", dtype, log_probs=x.log_softmax(-1), target=x.flip(0).softmax(-1))
        assert not told(judged, "masked-mean", dtype, values=x, mask=x.abs() < 5)
        assert not told(
            judged, "masked-mean", dtype, values=x[0], groups=torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])
        )
        assert not told(judged, "distance", dtype, a=x, b=x.flip(0))
        assert not told(judged, "log1mexp", dtype, log_probs=-x.abs() - 0.1)
        assert not told(judged, "contrastive", dtype, {"temperature": 0.5}, features=F.normalize(x, dim=-1))


def random(*shape: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, KEPT, LOWER = random(6, 9), random(6, 9) > -0.5, torch.ones(6, 6).tril() > 0
HEADS = {
    "query": random(2, 4, 6, 16),
    "key": random(2, 2, 6, 16, seed=1),
    "value": random(2, 2, 6, 16, seed=2),
}
TOKENS = {
    "log_probs": -X.abs(), "old_log_probs": -X.abs() + random(6, 9, seed=3) * 0.1, "advantages": random(6, seed=4),
    "mask": KEPT | (torch.arange(9) == 0),
}  # fmt: skip
SIDES = {
    "chosen": X[:, 0] - 300,
    "rejected": X[:, 1] - 320,
    "ref_chosen": X[:, 2] - 301,
    "ref_rejected": X[:, 3] - 319,
}
LEGAL: tuple[tuple[str, dict[str, object], dict[str, torch.Tensor]], ...] = (
    ("attention", {}, {**HEADS, "attn_mask": LOWER}),
    ("attention", {"softcap": 50.0}, {**HEADS, "attn_mask": torch.zeros(6, 6).masked_fill(~LOWER, -INF)}),
    ("attention", {}, {"scores": random(2, 4, 6, 6).masked_fill(~LOWER, -INF)}),
    ("bce", {"gamma": 2.0}, {"logits": X, "targets": KEPT.float()}),
    ("bce", {}, {"logits": X, "targets": KEPT.float() * 0.9}),
    ("bce", {}, SIDES),
    ("ppo", {}, TOKENS),
    ("ppo", {}, {**TOKENS, "old_log_probs": TOKENS["old_log_probs"].where(TOKENS["mask"], 0.0)}),
    ("ppo", {"level": "sequence"}, TOKENS),
    ("ppo", {"clip_dual": 3.0, "aggregation": "seq-mean-token-sum-norm"}, TOKENS),
    ("ppo", {"kl": "k3"}, {**TOKENS, "ref_log_probs": TOKENS["old_log_probs"]}),
    ("norm", {}, {"hidden_states": random(4, 4096), "weight": random(4096) * 0.02}),
    ("norm", {"norm": "l2"}, {"hidden_states": random(4, 4096)}),
    ("norm", {"norm": "cosine"}, {"hidden_states": X, "weight": random(6, 9, seed=6)}),
    ("kl", {"log_target": True}, {"log_probs": X.log_softmax(-1), "target": random(6, 9).log_softmax(-1)}),
    ("contrastive", {"temperature": 0.1}, {"sim": F.normalize(X, dim=-1) @ F.normalize(X, dim=-1).T * 0.5}),
    ("gumbel-softmax", {}, {"logits": X, "noise": torch.linspace(0.05, 0.95, 54).reshape(6, 9)}),
)


@pytest.mark.parametrize("dtype", [SINGLE, BRAIN, HALF], ids=str)
@pytest.mark.parametrize(("op", "options", "tensors"), LEGAL)
def test_masks_padding_and_ordinary_numbers_are_no_finding(judged, dtype, op, options, tensors):
    assert not told(judged, op, dtype, options, **tensors)


def test_what_pytorch_does_as_this_house_relies_on():
    """Facts that forms, fixes and texts build on; a PyTorch that changes one of them is noticed here."""
    zero = torch.zeros(2, requires_grad=True)
    for right in (zero.norm(), torch.cdist(zero[None], torch.zeros(1, 2)).sum(), zero.std()):
        assert bool(torch.autograd.grad(right, zero)[0].isfinite().all())
    assert bool(torch.autograd.grad(zero.pow(2).sum().sqrt(), zero)[0].isnan().any())
    target = torch.tensor([0.0, 1.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(F.kl_div(torch.tensor([-1.0, -1.0]), target, reduction="sum"), target)
    assert bool(gradient.isnan().any())
    with pytest.warns(UserWarning, match="degrees of freedom"):
        assert bool(torch.tensor([1.0]).std().isnan())
    draws = torch.rand(1 << 20, generator=torch.Generator().manual_seed(0), dtype=HALF)
    assert bool((draws == 0).any())
    assert bool((draws + 1e-20 == 0).any())  # eps is 0 in half precision


def lse(x):
    return mpmath.log(sum(mpmath.exp(each) for each in x))


def entropy(x):
    total = lse(x)
    return -sum(mpmath.exp(each - total) * (each - total) for each in x)


def root_mean(x):
    return mpmath.sqrt(sum(each**2 for each in x) / len(x) + mpmath.mpf(1e-6))


def sample(x, u, tau):
    """The first class's part."""
    y = [(each - mpmath.log(-mpmath.log(p))) / tau for each, p in zip(x, u, strict=True)]
    return mpmath.exp(y[0] - lse(y))


TRUTHS = (
    ("entropy", {"logits": [700.0, -3.0, 12.5, 699.0]}, {}, lambda t: entropy(t["logits"])),
    ("entropy", {"logits": [40.0, 0.0, 0.0, 0.0]}, {}, lambda t: entropy(t["logits"])),
    ("softmax", {"logits": [40.0, 0.0, -3.0]}, {}, lambda t: t["logits"][0] - lse(t["logits"])),
    ("softmax", {"logits": [-700.0, 800.0, -INF]}, {}, lambda t: t["logits"][0] - lse(t["logits"])),
    ("logsumexp", {"logits": [40.0, 0.0, 0.0, -2.0]}, {}, lambda t: lse(t["logits"])),
    ("logsumexp", {"logits": [-800.0, 800.0, -INF]}, {}, lambda t: lse(t["logits"])),
    ("log1mexp", {"log_probs": -1e-12}, {}, lambda t: mpmath.log(-mpmath.expm1(t["log_probs"]))),
    ("log1mexp", {"log_probs": -40.0}, {}, lambda t: mpmath.log1p(-mpmath.exp(t["log_probs"]))),
    ("gaussian-kl", {"mu": 0.0, "logvar": 1e-6}, {}, lambda t: (mpmath.expm1(t["logvar"]) - t["logvar"]) / 2),
    (
        "gaussian-kl",
        {"mu": 0.0, "logvar": 9.9e-3},
        {},
        lambda t: (mpmath.expm1(t["logvar"]) - t["logvar"]) / 2,
    ),
    (
        "gaussian-kl",
        {"mu": 1e-9, "logvar": -0.02},
        {},
        lambda t: (t["mu"] ** 2 + mpmath.expm1(t["logvar"]) - t["logvar"]) / 2,
    ),
    ("distance", {"a": [3e-200, 4e-200]}, {}, lambda t: mpmath.sqrt(sum(each**2 for each in t["a"]))),
    (
        "distance",
        {"a": [3e200, 4e200]},
        {"p": 3.0},
        lambda t: sum(each**3 for each in t["a"]) ** (mpmath.mpf(1) / 3),
    ),
    (
        "kl",
        {"log_probs": [-1.5, -0.3, -40.0], "target": [0.25, 0.75, 0.0]},
        {},
        lambda t: sum(p * (mpmath.log(p) - q) for p, q in zip(t["target"], t["log_probs"], strict=True) if p),
    ),
    (
        "contrastive",
        {"sim": [1.0, -0.9, 0.4], "labels": 0},
        {"temperature": 0.01},
        lambda t: lse([100 * (x - t["sim"][0]) for x in t["sim"]]),
    ),
    ("masked-mean", {"values": [1e15, 1.5, -1e15], "mask": [1, 1, 1]}, {}, lambda t: sum(t["values"]) / 3),
    ("masked-mean", {"values": [2.5, NAN, 1.0], "mask": [1, 0, 1]}, {}, lambda t: mpmath.mpf("1.75")),
    (
        "norm",
        {"hidden_states": [3e-9, 4e-9, 5e-9]},
        {},
        lambda t: t["hidden_states"][0] / root_mean(t["hidden_states"]),
    ),
    (
        "norm",
        {"hidden_states": [1e150, 2e150], "weight": [0.5, 2.0]},
        {},
        lambda t: t["weight"][0] * t["hidden_states"][0] / root_mean(t["hidden_states"]),
    ),
    (
        "norm",
        {"hidden_states": [1e6 + 1, 1e6, 1e6 - 3]},
        {"norm": "layer"},
        lambda t: mpmath.mpf(5) / 3 / mpmath.sqrt(mpmath.mpf(78) / 27 + mpmath.mpf(1e-5)),
    ),
    ("norm", {"hidden_states": [3e-200, 4e-200]}, {"norm": "l2", "eps": 1e-250}, lambda t: mpmath.mpf("0.6")),
    ("norm", {"hidden_states": [3e200, 4e200]}, {"norm": "l2"}, lambda t: mpmath.mpf("0.6")),
    (
        "norm",
        {"hidden_states": [3e-13, 4e-13]},
        {"norm": "l2"},
        lambda t: t["hidden_states"][0] / mpmath.mpf(1e-12),
    ),
    (
        "norm",
        {"hidden_states": [1.0, 1e-9], "weight": [1e-9, 1.0]},
        {"norm": "cosine"},
        lambda t: 2 * t["weight"][0] / (1 + t["weight"][0] ** 2),
    ),
    (
        "gumbel-softmax",
        {"logits": [1.0, -3.0, 0.25], "noise": [0.3, 0.999999, 1e-12]},
        {"tau": 0.1},
        lambda t: sample(t["logits"], t["noise"], mpmath.mpf(0.1)),
    ),
    (  # u = 1 is no uniform number: the float32 before it
        "gumbel-softmax",
        {"logits": [0.5, -0.5], "noise": [1.0, 0.5]},
        {"tau": 20.0},
        lambda t: sample(t["logits"], [1 - mpmath.mpf(2) ** -24, 0.5], 20),
    ),
    (
        "gumbel-softmax",
        {"logits": [1000.0, -INF, 1001.0], "noise": [0.5, 0.5, 0.25]},
        {},
        lambda t: sample(t["logits"], t["noise"], 1),
    ),
)


@pytest.mark.parametrize(("op", "numbers", "options", "exact"), TRUTHS)
def test_the_truth_is_what_mpmath_says(op, numbers, options, exact):
    tensors = {
        name: torch.tensor([each], dtype=None if name in ("mask", "labels") else torch.float64)
        for name, each in numbers.items()
    }
    operation = OPERATIONS[op]
    given = {name: tensor_of(each, name) for name, each in tensors.items()}
    problem = problem_of(operation, given, "float64", operation.options(**options), frozenset())
    block = read_block(problem, 0, 1)
    found = float(operation.truth(block.cast, problem.options).reshape(-1)[0])
    with mpmath.workdps(60):
        high = {
            name: [mpmath.mpf(x) for x in each] if isinstance(each, list) else mpmath.mpf(each)
            for name, each in numbers.items()
        }
        true = exact(high)
        assert abs(found - true) <= 1e-11 * max(abs(true), mpmath.mpf("1e-250"))


@pytest.mark.parametrize(
    ("op", "tensors", "said"),
    [
        ("entropy", {"logits": torch.zeros(2, 0)}, "have no classes"),
        ("logsumexp", {"logits": torch.zeros(2, 0)}, "nothing to add up"),
        ("norm", {"hidden_states": torch.zeros(2, 3), "weight": torch.zeros(4)}, "do not fit"),
        ("gaussian-kl", {"mu": torch.zeros(2), "logvar": torch.zeros(3)}, "do not fit"),
        ("kl", {"log_probs": torch.zeros(2, 3), "target": torch.zeros(2)}, "do not fit"),
        (
            "masked-mean",
            {"values": torch.zeros(2, 3), "groups": torch.zeros(2, dtype=torch.long)},
            "do not fit",
        ),
        ("distance", {"a": torch.zeros(2, 3), "b": torch.zeros(4)}, "do not fit"),
        ("contrastive", {"features": torch.zeros(3, 2)}, "two views"),
        ("gumbel-softmax", {"logits": torch.zeros(2, 3), "noise": torch.zeros(2)}, "do not fit"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(judged, op, tensors, said):
    with pytest.raises(NanhuntError) as raised:
        told(judged, op, SINGLE, **tensors)
    assert said in raised.value.message + raised.value.hint


def test_noise_is_drawn_where_no_file_holds_it_and_is_the_same_each_time(judged):
    logits = torch.zeros(1, 4)
    found = told(judged, "gumbel-softmax", HALF, {"draws": 4000}, logits=logits)
    assert found == told(judged, "gumbel-softmax", HALF, {"draws": 4000}, logits=logits)
    assert found == {"uniform-zero": (0,)}  # torch.rand in float16 gives 0, once in 2,048 draws
    assert not told(judged, "gumbel-softmax", SINGLE, {"draws": 4000, "seed": 3}, logits=logits)


def test_features_are_compared_with_each_other_and_never_with_themselves(judged):
    found = told(judged, "contrastive", SINGLE, {"temperature": 0.005}, features=torch.eye(4))
    assert found == {"maximum-of-self": (0, 1, 2, 3)}
    labels = torch.tensor([1, 0, 3, 9])
    assert told(judged, "contrastive", SINGLE, sim=torch.eye(4), labels=labels) == {
        "contrastive-without-positive": (3,)
    }


def supcon(features, labels, temperature):
    """Khosla et al. 2020, eq. 2, row by row."""
    losses = []
    for row, x in enumerate(features):
        others = [at for at in range(len(features)) if at != row]
        scores = torch.stack([x @ features[at] for at in others]) / temperature
        log_p = scores - scores.logsumexp(0)
        mine = [log_p[place] for place, at in enumerate(others) if labels[at] == labels[row]]
        losses.append(-sum(mine) / len(mine) if mine else torch.tensor(NAN))
    return torch.stack(losses)


@pytest.mark.parametrize("temperature", [0.1, 0.01])
def test_labels_of_features_are_classes(judged, temperature):
    features = F.normalize(random(7, 5), dim=-1)
    labels = torch.tensor([3, 0, 3, 0, 3, 1, 1])
    operation = OPERATIONS["contrastive"]
    report = judged(operation, operation.options(temperature=temperature), features=features, labels=labels)
    true = supcon(features.double(), labels, temperature)
    assert report.truth.loss == pytest.approx(true.mean().item(), rel=1e-6)
    exps = (features @ features.T / temperature).fill_diagonal_(-INF).exp()
    bad = (
        ~(exps / exps.sum(-1, keepdim=True))
        .log()[(labels[:, None] == labels).fill_diagonal_(False)]
        .isfinite()
    )
    assert (report.implementations["naive"].bad_value_rows > 0) == bool(bad.any())
    assert report.implementations["fused"].bad_value_rows == 0
    for finding in report.findings:
        for fix in (each for each in finding.remedies if each.works):
            scope = {"torch": torch, "F": F, "features": features, "labels": labels}
            exec(fix.snippet, scope)
            assert scope["loss"].item() == pytest.approx(true.mean().item(), rel=1e-4)


def test_a_class_of_its_own_has_no_positive(judged):
    labels = torch.tensor([5, 5, 2, 5])
    assert told(judged, "contrastive", SINGLE, features=torch.eye(4), labels=labels) == {
        "contrastive-without-positive": (2,)
    }


def test_a_deviation_of_two_moments_is_told_from_that_of_torch(judged):
    values, mask = torch.tensor([[4096.0, 4097.0, 4098.0]]), torch.ones(1, 3)
    assert told(judged, "masked-mean", SINGLE, {"std": True}, values=values, mask=mask) == {
        "two-moment-deviation": (0,)
    }
    assert told(
        judged, "masked-mean", SINGLE, {"std": True}, values=values, mask=torch.tensor([[1, 0, 0]])
    ) == {"deviation-of-one": (0,)}


def test_a_form_of_another_objective_is_a_column_that_says_so():
    latents = {"mu": torch.tensor([0.0, 1.0]), "logvar": torch.tensor([0.5, 95.0])}
    (compared,) = nanhunt.compare(latents, op="gaussian-kl").tensors
    variance = F.softplus(latents["logvar"]) + 1e-6
    loss = (0.5 * (latents["mu"] ** 2 + variance - 1 - variance.log())).mean().item()
    assert compared.implementations["softplus"].loss == pytest.approx(loss, rel=1e-6)
    told = [note.split(":")[0] for note in compared.notes]
    assert told == ["clamped is another objective", "softplus is another objective"]
    (checked,) = nanhunt.check(latents, op="gaussian-kl").tensors
    assert checked.findings == compared.findings and not checked.notes


def test_a_clamp_within_its_bounds_is_no_other_objective():
    tokens = {
        "log_probs": torch.zeros(2, 3),
        "old_log_probs": torch.ones(2, 3),
        "advantages": torch.ones(2, 3),
    }
    assert nanhunt.compare(tokens, op="ppo").tensors[0].notes == ()
    far = {**tokens, "log_probs": torch.full((2, 3), 31.0), "advantages": -torch.ones(2, 3)}
    (note,) = nanhunt.compare(far, op="ppo").tensors[0].notes
    assert note.startswith("clamped is another objective: beyond 20")
