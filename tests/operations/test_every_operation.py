"""Each operation against plain PyTorch on both sides of its cliffs; its fixes run from their printed text."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import nanhunt
from nanhunt.load.memory import tensor_of
from nanhunt.operations.judge import LOSS_BOUND
from nanhunt.operations.problem import problem_of, read_block
from nanhunt.operations.prove import WRONG
from nanhunt.operations.registry import OPERATIONS
from nanhunt.results.finding import Severity

INF, NAN = math.inf, math.nan
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
Tensors = Mapping[str, torch.Tensor]
Plain = Callable[[Tensors], torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One operation as users write it: rows of numbers go in, one value a row comes out."""

    op: str
    naive: Plain
    fused: Plain
    numbers: Mapping[str, tuple[float, ...]]
    """By role: what a row is drawn from, cliffs of every dtype among it."""
    width: int = 4
    """Numbers in a row; 0: a row is one number."""
    options: Mapping[str, Any] = field(default_factory=dict)

    whole: Callable[[int], Tensors] = lambda count: {}
    """Integer tensors of so many rows."""

    def __str__(self) -> str:
        return " ".join((self.op, *map(str, self.options.values())))


def entropy(t: Tensors) -> torch.Tensor:
    p = t["logits"].softmax(-1)
    return -(p * p.log()).sum(-1)


def categorical(t: Tensors) -> torch.Tensor:
    return torch.distributions.Categorical(logits=t["logits"], validate_args=False).entropy()


LOGITS = (
    0.0,
    1.0,
    -3.0,
    8.0,
    17.5,
    90.0,
    -90.0,
    104.5,
    -110.0,
    750.0,
    60000.0,
    -60000.0,
    1e5,
    -INF,
    -INF,
    NAN,
    INF,
)


def rms(t: Tensors) -> torch.Tensor:
    x = t["hidden_states"]
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def layer(t: Tensors) -> torch.Tensor:
    x = t["hidden_states"]
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()


def l2(t: Tensors) -> torch.Tensor:
    x = t["hidden_states"]
    return x / (x.pow(2).sum(-1, keepdim=True).sqrt() + 1e-12)


def cosine(t: Tensors) -> torch.Tensor:
    x, y = t["hidden_states"], t["weight"]
    return (x * y).sum(-1) / (x.pow(2).sum(-1).sqrt() * y.pow(2).sum(-1).sqrt() + 1e-8)


def gaussian_kl(t: Tensors) -> torch.Tensor:
    return 0.5 * (t["mu"] ** 2 + t["logvar"].exp() - 1 - t["logvar"])


def gaussian_kl_expm1(t: Tensors) -> torch.Tensor:
    return 0.5 * (t["mu"] ** 2 + (torch.expm1(t["logvar"]) - t["logvar"]))


def kl(t: Tensors) -> torch.Tensor:
    return (t["target"] * (t["target"] / t["log_probs"].exp()).log()).sum(-1)


def kl_of_logs(t: Tensors) -> torch.Tensor:
    return (t["target"].exp() * (t["target"] - t["log_probs"])).sum(-1)


def kl_div(t: Tensors, log_target: bool = False) -> torch.Tensor:
    return F.kl_div(t["log_probs"], t["target"], reduction="none", log_target=log_target).sum(-1)


def log1mexp(t: Tensors) -> torch.Tensor:
    x = t["log_probs"]
    near = x > -math.log(2.0)
    above = (-torch.expm1(torch.where(near, x, -1.0))).log()
    return torch.where(near, above, torch.log1p(-torch.where(near, -1.0, x).exp()))


def masked_mean(t: Tensors) -> torch.Tensor:
    return (t["values"] * t["mask"]).sum(-1) / t["mask"].sum(-1)


def where_first(t: Tensors) -> torch.Tensor:
    keep, values = t["mask"] != 0, t["values"]
    total = torch.where(keep, values, 0.0).to(torch.promote_types(values.dtype, torch.float32)).sum(-1)
    return (total / keep.sum(-1).clamp(min=1)).to(values.dtype)


def contrastive(t: Tensors) -> torch.Tensor:
    e = (t["sim"] / 0.07).exp()
    return -(e.diagonal() / e.sum(-1)).log()


def info_nce(t: Tensors) -> torch.Tensor:
    return F.cross_entropy(t["sim"] / 0.07, torch.arange(len(t["sim"])), reduction="none")


def gumbel(t: Tensors) -> torch.Tensor:
    return ((t["logits"] - (-t["noise"].log()).log()) / 0.5).softmax(-1)


def gumbel_in_float32(t: Tensors) -> torch.Tensor:
    wide = torch.promote_types(t["logits"].dtype, torch.float32)
    e = -t["noise"].to(wide).clamp(2.0**-126, 1 - 2.0**-24).log()
    return ((t["logits"].to(wide) - e.log()) / 0.5).softmax(-1).to(t["logits"].dtype)


LOG_PROBS = (0.0, -1e-9, -1e-6, -1e-5, -1e-3, -0.5, -0.7, -5.0, -12.0, -20.0, -90.0, -110.0, 1.0, -INF, NAN)
LOG_Q = (-1.0, -0.5, -3.0, -20.0, -90.0, -110.0, -700.0, -INF, NAN)
SILENT = ("norm-square-overflow", "fused-norm-wrong", "normal-kl-not-finite")
"""Warnings of what is finite and wrong, or of a form beside the naive one."""
SIZES = (
    0.0,
    0.0,
    1.0,
    -2.0,
    1e-4,
    1e-5,
    1e-21,
    255.0,
    256.0,
    -300.0,
    20000.0,
    65000.0,
    1e5,
    1e19,
    1e30,
    NAN,
    INF,
)
ROW = {"hidden_states": SIZES}
CASES = (
    Case("entropy", entropy, categorical, {"logits": LOGITS}),
    Case(
        "logsumexp", lambda t: t["logits"].exp().sum(-1).log(), lambda t: t["logits"].logsumexp(-1), {"logits": LOGITS}
    ),
    Case(
        "softmax", lambda t: (t["logits"].exp() / t["logits"].exp().sum(-1, keepdim=True)).log(),
        lambda t: F.log_softmax(t["logits"], -1), {"logits": LOGITS},
    ),
    Case("norm", rms, lambda t: F.rms_norm(t["hidden_states"], (4,), eps=1e-6), ROW),
    Case("norm", layer, lambda t: F.layer_norm(t["hidden_states"], (4,)), ROW, options={"norm": "layer"}),
    Case("norm", l2, lambda t: F.normalize(t["hidden_states"], dim=-1), ROW, options={"norm": "l2"}),
    Case(
        "norm", cosine, lambda t: F.cosine_similarity(t["hidden_states"], t["weight"], dim=-1),
        {"hidden_states": SIZES, "weight": (1.0, 0.5, -3.0)}, options={"norm": "cosine"},
    ),
    Case("kl", kl, kl_div, {"log_probs": LOG_Q, "target": (0.0, 0.25, 1.0, 0.5, 1e-6, 0.0)}),
    Case(
        "kl", kl_of_logs, lambda t: kl_div(t, log_target=True),
        {"log_probs": LOG_Q, "target": (-1.0, -0.2, -9.0, -104.5, -INF)}, options={"log_target": True},
    ),
    Case("log1mexp", lambda t: torch.log(1 - t["log_probs"].exp()), log1mexp, {"log_probs": LOG_PROBS}, width=0),
    Case(
        "distance", lambda t: (t["a"] - t["b"]).pow(2).sum(-1).sqrt(), lambda t: (t["a"] - t["b"]).norm(dim=-1),
        {"a": SIZES, "b": (0.0, 0.0, 1.0)}, width=2,
    ),
    Case(
        "distance", lambda t: t["a"].abs().pow(3.0).sum(-1).pow(1 / 3),
        lambda t: torch.linalg.vector_norm(t["a"], ord=3.0, dim=-1), {"a": SIZES}, width=2, options={"p": 3.0},
    ),
    Case(
        "masked-mean", masked_mean, where_first,
        {"values": (1.0, -2.0, 300.0, 60000.0, 30000.0, NAN, INF), "mask": (0.0, 1.0, 1.0)}, width=3,
    ),
    Case(
        "contrastive", contrastive, info_nce,
        {"sim": (1.0, 0.9, 0.0, -1.0, 7.0, -7.0, 5000.0, 1e38, -INF, NAN)}, width=6, options={"temperature": 0.07},
        whole=lambda count: {"labels": torch.arange(count)},
    ),
    Case(
        "gumbel-softmax", gumbel, gumbel_in_float32,
        {"logits": (0.0, 2.0, -5.0, 40000.0, 1e38, -INF, NAN), "noise": (0.5, 0.25, 1e-7, 0.99999, 0.0, 1.0)},
        options={"tau": 0.5},
    ),
    Case(
        "gaussian-kl", gaussian_kl, gaussian_kl_expm1,
        {"mu": (0.0, 1.0, 255.0, 256.0, 1e5, 1e20, NAN), "logvar": (0.0, -1.0, 11.0, 11.2, 88.7, 88.8, 700.0, INF)},
        width=0,
    ),
)  # fmt: skip


def leaves(case: Case, tensors: Tensors) -> dict[str, torch.Tensor]:
    """The tensors that a gradient reaches."""
    roles = [role.name for role in OPERATIONS[case.op].roles if role.gradient and role.name in tensors]
    return {name: tensors[name].detach().clone().requires_grad_() for name in roles}


def finite_rows(given: Tensors) -> np.ndarray:
    """Rows whose gradients are all finite."""
    each = [x.grad.isfinite().reshape(len(x), -1).all(-1) for x in given.values()]
    return torch.stack(each).all(0).numpy()


def seen(plain: Plain, tensors: Tensors, case: Case, upstream: float) -> tuple[np.ndarray, np.ndarray]:
    """(values, whether a row's gradient is finite) as PyTorch computes them."""
    given = leaves(case, tensors)
    values = plain({**tensors, **given})
    (values * torch.tensor(upstream).to(values.dtype)).sum().backward()
    values = values.detach().double()
    return values.numpy(), finite_rows(given)


def rows(report, *severities):
    return {row for finding in report.findings if finding.severity in severities for row in finding.rows}


def drawn(data, case: Case, count: int) -> dict[str, torch.Tensor]:
    shape = (count, case.width) if case.width else (count,)
    size = math.prod(shape)
    return {
        role: torch.tensor(
            [data.draw(st.sampled_from(numbers)) for _ in range(size)], dtype=torch.float64
        ).reshape(shape)
        for role, numbers in case.numbers.items()
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@given(data=st.data())
@settings(max_examples=3, deadline=None, phases=[Phase.generate])
def test_a_verdict_is_what_pytorch_does(judged, case, dtype, data):
    count = data.draw(st.integers(1, 6))
    stored = {**drawn(data, case, count), **case.whole(count)}
    operation = OPERATIONS[case.op]
    options = operation.options(**case.options)
    upstream = 1 / count if operation.reduces else 1.0
    report = judged(operation, options, str(dtype)[6:], **stored)
    cast = {name: each.to(dtype) if each.is_floating_point() else each for name, each in stored.items()}
    fails = {}
    for name, plain in (("naive", case.naive), ("fused", case.fused)):
        values, finite_gradient = seen(plain, cast, case, upstream)
        legal = np.isinf(values) & (values == truth(case, cast)[0].reshape(values.shape).numpy())
        bad_value = ~np.isfinite(values) & ~legal
        found = report.implementations[name]
        bad_value = bad_value.reshape(count, -1).any(-1)
        assert (found.bad_value_rows, found.bad_gradient_rows) == (bad_value.sum(), (~finite_gradient).sum())
        fails[name] = {int(row) for row in np.flatnonzero(bad_value | ~finite_gradient)}
    errors = rows(report, Severity.ERROR)
    assert errors >= fails["fused"]
    assert rows(report, Severity.WARNING) | errors >= fails["naive"]
    unmendable = {code.code for code in operation.rules if code.input_at_fault}
    at_fault = {row for finding in report.findings if finding.code in unmendable for row in finding.rows}
    assert at_fault >= faulty(cast, case)
    told_of = fails["naive"] | fails["fused"] | at_fault
    silent = {
        row
        for f in report.findings
        if f.name in SILENT or f.name.endswith("-silently-wrong")
        for row in f.rows
    }
    assert rows(report, Severity.WARNING) | errors <= told_of | silent
    for finding in report.findings:
        for remedy in finding.remedies:
            assert remedy.works == really_works(remedy, finding.rows, at_fault, case, cast), (finding, remedy)


def truth(case: Case, cast: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """(true values, what their errors are measured by) of tensors in the user's layout."""
    operation, options = OPERATIONS[case.op], OPERATIONS[case.op].options(**case.options)
    wide = {
        name: tensor_of(each.double() if each.is_floating_point() else each, name)
        for name, each in cast.items()
    }
    problem = problem_of(operation, wide, "float64", options, frozenset())
    block = read_block(problem, 0, problem.plan.group_count)
    true = operation.truth(block.cast, options)
    scale = (
        true.abs().clamp_min(1.0) if operation.scale is None else operation.scale(block.cast, true, options)
    )
    return true, scale


def faulty(cast: Tensors, case: Case) -> set[int]:
    """Rows with a number that no operation survives."""
    legal = {role for role, numbers in case.numbers.items() if -INF in numbers}  # masks
    found = set()
    for role, each in cast.items():
        bad = each.isnan() | (each.isposinf() if role in legal else each.isinf())
        if "mask" in cast:
            bad &= cast["mask"] != 0  # what is dropped may be anything
        found |= {int(row) for row in bad.reshape(len(each), -1).any(-1).nonzero()}
    return found


def really_works(remedy, rows: tuple[int, ...], at_fault: set[int], case: Case, cast: Tensors) -> bool:
    """The printed text, executed on the rows of the finding whose input is sound."""
    at = [row for row in rows if row not in at_fault]
    operation = OPERATIONS[case.op]
    part = {name: each[at] for name, each in cast.items()}
    given = leaves(case, part)
    scope = {"torch": torch, "F": F} | part | given
    try:
        exec(remedy.snippet, scope)
    except RuntimeError:
        return False
    result = scope["loss"] if operation.reduces else scope["output"]
    result.sum().backward()
    finite = bool(finite_rows(given).all())
    if remedy.works and remedy.changes:  # it is another objective, and said to be
        return finite and bool(result.isfinite().all())
    true, scale = truth(case, {name: each[at] for name, each in cast.items()})
    bound = LOSS_BOUND * torch.finfo(result.dtype).eps / 2
    if operation.reduces:
        true = true.mean()
        scale, bound = true.abs().clamp_min(1.0), WRONG
    true, scale = true.reshape(result.shape), scale.reshape(result.shape)
    near = (result.double() - true).abs() <= bound * scale
    return finite and bool((near | (result.isinf() & (result == true))).all())


def test_masked_entropy_is_told_with_every_fix_that_only_hides_it(judged):
    logits = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, -INF]])
    operation = OPERATIONS["entropy"]
    (finding,) = judged(operation, operation.options(), logits=logits).findings
    assert (finding.name, finding.rows) == ("masked-entropy", (1,))
    assert finding.message == (
        "row 1: 3 logits, 1 of them -inf, the rest from 1 to 2: log(0) = -inf; the truth is 0.582203"
    )
    hides = "right value, gradient still NaN"
    assert [(each.title, each.works, each.outcome) for each in finding.remedies] == [
        ("replace log p by 0 where p is 0, before the product", True, ""),
        ("torch.distributions.Categorical", True, ""),
        ("torch.special.entr", False, hides),
        ("torch.xlogy", False, hides),
        ("nan_to_num on p log p", False, hides),
        ("where after the product", False, hides),
    ]


SCREENED = (
    ("bce", {}, {"logits": (-27.0, 5.3, 4.99, 0.0, -1e-30, 15.0, 15.1), "targets": (0.0, 1.0)}, 0),
    (
        "ppo",
        {},
        {"log_probs": (0.0, -1.0, 5.0), "old_log_probs": (-14.0, 18.0), "advantages": (1.0, -1e6, 0.0)},
        0,
    ),
    ("entropy", {}, {"logits": (-6.0, 6.0, 0.0, 5.9999, 6.5)}, 7),
    ("norm", {}, {"hidden_states": (1e-3, 0.0, -1e6, 1.0, 1e-20, 2e6)}, 3),
    ("norm", {"norm": "l2"}, {"hidden_states": (1e-3, 0.0, -1e6, 1.0, 1e-20, 2e6)}, 3),
)


@pytest.mark.parametrize(("op", "options", "numbers", "width"), SCREENED)
@given(data=st.data())
@settings(max_examples=10, deadline=None, phases=[Phase.generate])
def test_what_a_bound_proves_healthy_has_no_finding(judged, op, options, numbers, width, data):
    operation = OPERATIONS[op]
    stored = drawn(data, Case(op, entropy, entropy, numbers, width), data.draw(st.integers(1, 4)))
    stored = {name: each.float() for name, each in stored.items()}
    given = operation.options(**options)
    if operation.screen({name: each.numpy() for name, each in stored.items()}, given):
        assert not judged(operation, given, **stored).findings


EDGES: tuple[tuple[str, dict[str, Any], dict[str, tuple[float, ...]]], ...] = (
    ("bce", {}, {"logits": (-27.0, -20.0, -5.3, -1e-30, 0.0, 1.0, 5.0, 5.3, 9.0, 15.0), "targets": (0.0, 1.0)}),
    ("ppo", {}, {
        "log_probs": (0.0, -1.0, -19.0, -0.1), "old_log_probs": (0.0, -0.2, -19.0, -1.1823215),
        "advantages": (0.0, 1.0, -1.0, 1e6, -1e6, 1e-30), "mask": (0.0, 1.0),
    }),
    ("ppo", {"beta": 1.0}, {
        "log_probs": (0.0, -4.0, -2.0), "old_log_probs": (0.0, -4.0, -0.2), "ref_log_probs": (0.0, -4.0, -2.0, -1e-4),
        "advantages": (0.0, 1.0, -1.0, 1e6),
    }),
)  # fmt: skip
"""Numbers up to where the bounds end."""


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize(("op", "options", "numbers"), EDGES)
def test_no_finding_lies_within_a_bound(judged, op, options, numbers, dtype):
    operation, given = OPERATIONS[op], OPERATIONS[op].options(**options)
    grid = torch.tensor(list(itertools.product(*numbers.values())), dtype=dtype)
    within = torch.tensor([is_proven(operation, dict(zip(numbers, row, strict=True)), given) for row in grid])
    assert int(within.sum()) > len(grid) // 4
    proven = dict(zip(numbers, grid[within].T.contiguous(), strict=True))
    assert is_proven(operation, proven, given)
    assert not judged(operation, given, **proven).findings


def is_proven(operation, tensors: Tensors, options) -> bool:
    return operation.screen({name: each.reshape(-1).numpy() for name, each in tensors.items()}, options)


def test_what_bounds_prove_healthy_needs_no_torch(tmp_path):
    rng = np.random.default_rng(0)
    dumps = {
        "bce": {"logits": rng.standard_normal((50, 4)), "targets": rng.integers(0, 2, (50, 4)) * 1.0},
        "entropy": {"logits": rng.standard_normal((50, 4))},
        "norm": {"hidden_states": rng.standard_normal((50, 4)) + 2},
        "ppo": {name: -rng.random((5, 40)) for name in ("log_probs", "old_log_probs", "advantages")},
    }
    for op, tensors in dumps.items():
        np.savez(tmp_path / f"{op}.npz", **{name: each.astype(np.float32) for name, each in tensors.items()})
    code = (
        "import sys, nanhunt\n"
        "for op in sys.argv[2:]:\n"
        "    assert nanhunt.check(f'{sys.argv[1]}/{op}.npz', op=op).ok, op\n"
        "    assert 'torch' not in sys.modules, op\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), *dumps], check=True)


@pytest.mark.parametrize(
    ("op", "options", "tensors", "call"),
    [
        ("bce", {}, {"logits": (3,), "targets": (3,)}, "F.binary_cross_entropy_with_logits"),
        ("bce", {"gamma": 2.0}, {"logits": (3,), "targets": (3,)}, "F.logsigmoid for both logarithms"),
        ("norm", {"norm": "layer"}, {"hidden_states": (3, 4)}, "F.layer_norm"),
        ("norm", {"norm": "l2"}, {"hidden_states": (3, 4)}, "F.normalize"),
        (
            "attention", {"softcap": 5.0}, {"query": (1, 3, 4), "key": (1, 3, 4)},
            "F.scaled_dot_product_attention with the capped scores as its mask",
        ),
    ],
)  # fmt: skip
def test_the_fused_call_is_that_of_the_options(op, options, tensors, call):
    given = {name: torch.ones(shape) for name, shape in tensors.items()}
    (tensor,) = nanhunt.check(given, op=op, **options).tensors
    assert tensor.fused_call == call
