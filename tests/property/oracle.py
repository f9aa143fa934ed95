"""What PyTorch does with every row, written out plainly: whole tensors, one autograd per implementation.

Nothing of nanhunt's is imported. The rules are the table of the README, put down once more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

LIMITS = {  # (largest x whose exp is finite, largest number, smallest normal)
    torch.float64: (709.782712893384, torch.finfo(torch.float64).max, 2.0**-1022),
    torch.float32: (88.72283172607422, torch.finfo(torch.float32).max, 2.0**-126),
    torch.bfloat16: (88.5, torch.finfo(torch.bfloat16).max, 2.0**-126),
    torch.float16: (11.0859375, 65504.0, 2.0**-14),
    torch.float8_e4m3fn: (6.0, 448.0, 2.0**-6),
    torch.float8_e5m2: (10.0, 57344.0, 2.0**-14),
}
ORDER = (
    "NH001", "NH002", "NH003", "NH004", "NH005", "NH006", "NH007", "NH008", "NH009", "NH010", "NH011", "NH012",
    "NH101", "NH102", "NH103", "NH104", "NH201", "NH202", "NH203", "NH301", "NH302", "NH401",
    "NH402",
)  # fmt: skip
NEED_TARGETS = {"NH005", "NH006", "NH007", "NH008", "NH011", "NH202", "NH203", "NH301", "NH302"}

HAND_WRITTEN = {"NH101", "NH102", "NH103", "NH201", "NH203", "NH301", "NH401"}


@dataclass
class Problem:
    """Logits as stored, and the loss that is asked for."""

    stored: torch.Tensor
    """(rows, classes), or (N, classes, d) with ``axis`` 1."""
    dtype: torch.dtype
    labels: torch.Tensor | None = None
    """int64, the shape without the classes."""
    probabilities: torch.Tensor | None = None
    """The shape of ``stored``."""
    axis: int = -1
    temperature: float = 1.0
    smoothing: float = 0.0
    weights: torch.Tensor | None = None
    reduction: str = "mean"
    ignore: int = -100


@dataclass
class Seen:
    """What happened to each row; every tensor (rows,)."""

    nan_probability: dict[str, torch.Tensor] = field(default_factory=dict)
    zero_target: dict[str, torch.Tensor] = field(default_factory=dict)
    losses: dict[str, torch.Tensor] = field(default_factory=dict)
    """0 for ignored rows; rows with a bad label count as ignored."""
    bad_gradient: dict[str, torch.Tensor] = field(default_factory=dict)
    probabilities: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    """(rows, classes), those of the naive form."""
    error: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    """What ``fused`` computes is not finite, nor what the file says: these rows have errors, no others."""
    warning: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    """Those, and rows for which what ``naive`` computes is not finite: these have a warning at least, no others."""
    rules: dict[str, torch.Tensor] = field(default_factory=dict)
    divisor: float = 1.0
    bad_label: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    undecided: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    """A loss lies so near the bound of NH203 that the rounding of the truth, which is float64 too, decides."""
    whole_loss: torch.Tensor | None = None
    """0-d: F.cross_entropy with the reduction, over all rows at once."""

    def causes(self) -> list[str]:
        """Of every row, the first rule that holds, or ""."""
        causes = np.full(len(self.bad_label), "", dtype="<U5")
        for code in reversed([code for code in ORDER if code in self.rules]):
            causes[self.rules[code].numpy()] = code
        return [str(cause) for cause in causes]


def as_rows(values: torch.Tensor, axis: int) -> torch.Tensor:
    """(rows, classes)."""
    return values.movedim(axis, -1).reshape(-1, values.shape[axis])


def observe(problem: Problem) -> Seen:
    """Runs everything."""
    stored = problem.stored.float() if problem.stored.dtype.itemsize == 1 else problem.stored
    compute = torch.float32 if problem.dtype.itemsize == 1 else problem.dtype
    cast = stored.to(problem.dtype).to(compute)
    base, x = as_rows(stored, problem.axis), as_rows(cast, problem.axis)
    labels, kept, bad, ignored = _labels(problem, x)
    y = None if problem.probabilities is None else as_rows(problem.probabilities, problem.axis).to(compute)
    weights = None if problem.weights is None else problem.weights.to(compute)
    seen = Seen(bad_label=bad)
    seen.divisor = _divisor(problem, labels, kept)
    for name in ("naive", "log-of-softmax", "logsumexp"):
        _by_hand(name, seen, cast, labels, kept, y, weights, problem)
    fused_gradient = _fused(seen, cast, labels, kept, y, weights, problem)
    true = _true_losses(x, labels, kept, y, problem)
    _judge_input(seen, base, x, labels, kept, ignored, y, problem)
    _judge_options(seen, cast, x, labels, kept, bad, y, problem)
    _judge_naive(seen, cast, y, problem)
    if problem.labels is not None or y is not None:
        _judge_loss(seen, x, labels, kept, y, weights, problem, fused_gradient, true)
    else:
        seen.rules = {code: rows for code, rows in seen.rules.items() if code not in NEED_TARGETS}
    for code in (
        HAND_WRITTEN & seen.rules.keys()
    ):  # nothing that is made of a row of one number far from 0 mends it
        seen.rules[code] = seen.rules[code] & ~seen.rules["NH012"]
    return seen


def _labels(problem: Problem, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """(class to gather, counted, out of range, ignored), each (rows,)."""
    rows, classes = x.shape
    no = torch.zeros(rows, dtype=torch.bool)
    if problem.labels is not None:
        t = problem.labels.reshape(-1)
        ignored = t == problem.ignore
        bad = ((t < 0) | (t >= classes)) & ~ignored
        kept = ~bad & ~ignored
        return torch.where(kept, t, 0), kept, bad, ignored
    # The least likely class among those that are not masked; +inf is not masked.
    rank = (
        x.double().nan_to_num(nan=math.nan, posinf=1e308, neginf=-1e308).masked_fill(x == -math.inf, math.inf)
    )
    worst = rank.argmin(-1)
    return worst, ~no, no, no


def _divisor(problem: Problem, labels: torch.Tensor, kept: torch.Tensor) -> float:
    if problem.reduction == "sum":
        return 1.0
    if problem.weights is not None and problem.labels is not None:
        compute = torch.float32 if problem.dtype.itemsize == 1 else problem.dtype
        return float(problem.weights.to(compute).double()[labels[kept]].sum())
    return float(kept.sum())


def _heat(x: torch.Tensor, problem: Problem) -> torch.Tensor:
    return x / problem.temperature if problem.temperature != 1.0 else x


def _by_hand(
    name: str, seen: Seen, cast: torch.Tensor, labels: torch.Tensor, kept: torch.Tensor,
    y: torch.Tensor | None, weights: torch.Tensor | None, problem: Problem,
) -> None:  # fmt: skip
    """In the layout as stored, whose classes are dimension 1: (rows, classes) or (N, classes, d)."""
    leaf = cast.clone().requires_grad_()
    z = _heat(leaf, problem)
    shape = cast.shape[:1] + cast.shape[2:]
    t, counted = labels.reshape(shape).unsqueeze(1), kept.reshape(shape)
    w = None if weights is None else weights.reshape(-1, *[1] * (cast.ndim - 2))
    every = problem.smoothing != 0 or y is not None
    if name == "logsumexp":
        m = z.amax(1, keepdim=True)
        lse = m + torch.log(torch.exp(z - m).sum(1, keepdim=True))
        p = torch.exp(z - lse).detach()
        at_label = (lse - z.gather(1, t)).squeeze(1)
        everywhere = lse - z if every else None
    else:
        if name == "naive":
            e = torch.exp(z)
            q = e / e.sum(1, keepdim=True)
        else:
            q = torch.softmax(z, 1)
        p = q.detach()
        at_label = -torch.log(q.gather(1, t)).squeeze(1)
        everywhere = -torch.log(q) if every else None
    classes = cast.shape[1]
    eps = problem.smoothing
    if y is not None:
        assert everywhere is not None
        assert problem.probabilities is not None
        target = problem.probabilities.to(cast.dtype)
        share = target * (1 - eps) + eps / classes if eps else target
        losses = ((share if w is None else share * w) * everywhere).sum(1)
    else:
        losses = at_label if weights is None else at_label * weights[t.squeeze(1)]
        if eps:
            assert everywhere is not None
            weighted = everywhere if w is None else everywhere * w
            losses = (1 - eps) * losses + eps / classes * weighted.sum(1)
        losses = torch.where(counted, losses, torch.zeros_like(losses))
    total = losses.sum()
    if problem.reduction == "mean":
        weighted_mean = weights is not None and problem.labels is not None
        divisor = weights[labels[kept]].sum() if weighted_mean and weights is not None else float(kept.sum())
        total = total / divisor
    (gradient,) = torch.autograd.grad(total, leaf)
    rows = as_rows(gradient, problem.axis)
    _note(seen, name, as_rows(p, problem.axis), losses.detach().reshape(-1), rows, labels, kept, y)


def _fused(
    seen: Seen, cast: torch.Tensor, labels: torch.Tensor, kept: torch.Tensor, y: torch.Tensor | None,
    weights: torch.Tensor | None, problem: Problem,
) -> torch.Tensor:  # fmt: skip
    """Notes F.cross_entropy, in the layout as stored; the gradient (rows, classes)."""
    leaf = cast.clone().requires_grad_()
    z = _heat(leaf, problem)
    target = _targets_of_torch(cast, labels, kept, y, problem)
    if z.ndim == 3 or problem.axis == -1:
        shaped = z
    else:
        raise AssertionError("layouts are (rows, classes) and (N, classes, d)")
    options = {"weight": weights, "ignore_index": problem.ignore, "label_smoothing": problem.smoothing}
    rows = F.cross_entropy(shaped, target, reduction="none", **options).detach().reshape(-1)
    whole = F.cross_entropy(shaped, target, reduction=problem.reduction, **options)
    (gradient,) = torch.autograd.grad(whole, leaf)
    gradient = as_rows(gradient, problem.axis)
    seen.whole_loss = whole.detach()
    p = as_rows(torch.softmax(_heat(cast, problem), 1), problem.axis)
    _note(seen, "fused", p, rows, gradient, labels, kept, y)
    return gradient


def _targets_of_torch(
    cast: torch.Tensor, labels: torch.Tensor, kept: torch.Tensor, y: torch.Tensor | None, problem: Problem
) -> torch.Tensor:
    if y is not None:
        assert problem.probabilities is not None
        return problem.probabilities.to(cast.dtype)
    shape = [size for index, size in enumerate(cast.shape) if index != problem.axis % cast.ndim]
    return torch.where(kept, labels, problem.ignore).reshape(shape)


def _note(
    seen: Seen, name: str, p: torch.Tensor, losses: torch.Tensor, gradient: torch.Tensor,
    labels: torch.Tensor, kept: torch.Tensor, y: torch.Tensor | None,
) -> None:  # fmt: skip
    seen.nan_probability[name] = p.isnan().any(-1)
    if name == "naive":
        seen.probabilities = p
    at_label = p.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    seen.zero_target[name] = (at_label == 0) & kept if y is None else ((p == 0) & (y > 0)).any(-1)
    seen.losses[name] = losses
    seen.bad_gradient[name] = ~gradient.isfinite().all(-1) & ~seen.bad_label


def _true_losses(
    x: torch.Tensor, labels: torch.Tensor, kept: torch.Tensor, y: torch.Tensor | None, problem: Problem
) -> torch.Tensor:
    """float64 row losses as F.cross_entropy defines them."""
    z = x.double() / problem.temperature
    at = z.argmax(-1, keepdim=True)
    top = z.gather(-1, at)
    rest = torch.exp(z - top).scatter(-1, at, 0.0).sum(-1, keepdim=True)
    each = (top - z) + torch.log1p(rest)
    classes, eps = x.shape[-1], problem.smoothing
    # Weights are what the dtype holds of them.
    compute = x.dtype
    w = torch.ones(classes).double() if problem.weights is None else problem.weights.to(compute).double()
    if y is not None:
        share = (y.double() * (1 - eps) + eps / classes) * w
        return torch.where(share == 0, 0.0, share * each).sum(-1)
    picked = each.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    losses = picked * w[labels]
    if eps:
        losses = (1 - eps) * losses + eps / classes * (each * w).sum(-1)
    return torch.where(kept, losses, 0.0)


def _judge_input(
    seen: Seen, base: torch.Tensor, x: torch.Tensor, labels: torch.Tensor, kept: torch.Tensor,
    ignored: torch.Tensor, y: torch.Tensor | None, problem: Problem,
) -> None:  # fmt: skip
    rules = seen.rules
    rules["NH001"] = base.isnan().any(-1)
    rules["NH002"] = (base == math.inf).any(-1)
    rules["NH003"] = (base == -math.inf).all(-1)
    if problem.dtype == problem.stored.dtype:
        lost = torch.zeros_like(base, dtype=torch.bool)
    elif problem.dtype == torch.float8_e4m3fn:
        lost = base.isfinite() & (base.abs() > 464)
    else:
        lost = base.isfinite() & x.isinf()
    rules["NH004"] = lost.any(-1)
    rules["NH005"] = seen.bad_label
    masked = base == -math.inf
    if y is not None:
        rules["NH006"] = (masked & (y > 0)).any(-1)
    else:
        rules["NH006"] = masked.gather(-1, labels.unsqueeze(-1)).squeeze(-1) & kept
    all_ignored = bool(ignored.all()) and problem.reduction == "mean" and problem.labels is not None
    rules["NH007"] = torch.full_like(kept, all_ignored)
    rules["NH008"] = ignored & seen.bad_gradient["fused"]
    limit, largest, _ = LIMITS[x.dtype]
    largest = LIMITS[problem.dtype][1]
    top = _heat(x, problem).double().amax(-1)
    size = torch.where(x == -math.inf, 0.0, x.double().abs()).amax(-1)
    near = ((top >= 0.9 * limit) & (top <= limit)) | ((size >= 0.9 * largest) & (size <= largest))
    rules["NH401"] = near
    even = (base == base[:, :1]).all(-1) & base.isfinite().all(-1) & (base.shape[-1] > 1) & ~ignored
    rules["NH012"] = even & (base.abs().amax(-1) >= 1000)
    rules["NH402"] = even & ~rules["NH012"]


def _judge_options(
    seen: Seen, cast: torch.Tensor, x: torch.Tensor, labels: torch.Tensor, kept: torch.Tensor,
    bad: torch.Tensor, y: torch.Tensor | None, problem: Problem,
) -> None:  # fmt: skip
    given = problem.labels is not None or y is not None
    now, t = seen, labels
    if y is not None or not given:
        t = x.argmax(-1)
    if not given:  # no label: what fails with the likeliest one fails with every one
        now = Seen(bad_label=bad)
        w = None if problem.weights is None else problem.weights.to(x.dtype)
        _fused(now, cast, t, kept, None, w, problem)
    losses = now.losses["fused"]
    fails = (~losses.isfinite() | now.bad_gradient["fused"]) & ~bad
    asked = problem.temperature != 1 or problem.smoothing or problem.weights is not None or y is not None
    if asked:
        plain = Problem(problem.stored, problem.dtype, axis=problem.axis, reduction=problem.reduction)
        without = Seen(bad_label=bad)
        _fused(without, cast, t, kept, None, None, plain)
        sound = without.losses["fused"].isfinite() & ~without.bad_gradient["fused"]
        worse = losses.isnan() & ~without.losses["fused"].isnan()
        seen.rules["NH009"] = fails & (sound | worse)
    half = x.dtype == torch.float16
    z = _heat(x, problem)
    sums = torch.zeros_like(bad)
    if half and problem.axis == -1:
        sums = F.log_softmax(z, -1).amax(-1).isinf() & z.amax(-1).isfinite()
    # Where rows are finite and their sum is not, the reduction is at fault: the divisor of the mean aside.
    past = given and _adds_up_to_inf(seen, z, labels, kept, y, problem)
    seen.rules["NH010"] = sums | (kept & past & half)
    explained = seen.rules["NH010"] | seen.rules["NH008"]
    for code in ("NH001", "NH002", "NH003", "NH004", "NH006", *(("NH009",) if asked else ())):
        explained = explained | seen.rules[code]
    seen.rules["NH011"] = (fails & ~explained) | (kept & past & (not half))
    if given:
        seen.error, seen.warning = _bad(seen, "fused"), _bad(seen, "naive")
    else:
        seen.error = fails
        p = seen.probabilities.gather(-1, t.unsqueeze(-1)).squeeze(-1)
        seen.warning = ~(p > 0)
    seen.error = seen.error | bad | sums | (kept & past) | seen.rules["NH004"] | seen.rules["NH007"]
    # float8_e4m3fn has no infinity: its cast makes finite numbers of them.
    lost = seen.rules["NH002"] | seen.rules["NH003"] | (seen.rules["NH006"] & given)
    seen.error = seen.error | (lost if problem.dtype == torch.float8_e4m3fn else False)
    seen.error = seen.error | seen.rules["NH012"]
    seen.warning = seen.warning | seen.error


def _adds_up_to_inf(
    seen: Seen,
    z: torch.Tensor,
    labels: torch.Tensor,
    kept: torch.Tensor,
    y: torch.Tensor | None,
    problem: Problem,
) -> bool:
    """Whether F.cross_entropy makes inf of the rows whose own loss is finite, by the sum before any division."""
    rows = kept & seen.losses["fused"].isfinite()
    if not bool(rows.any()):
        return False
    log_p = F.log_softmax(z if problem.axis == -1 else z.T[None], 1)
    log_p = log_p if problem.axis == -1 else log_p[0].T
    weights = None if problem.weights is None else problem.weights.to(z.dtype)
    weighted = log_p if weights is None else log_p * weights
    if y is not None:
        share = y * (1 - problem.smoothing) + problem.smoothing / z.shape[-1]
        terms = (
            log_p * share if weights is None else log_p * share * weights
        )  # PyTorch's order: the product overflows
        return bool(terms[rows].sum().isinf())
    inf = bool(F.nll_loss(log_p[rows], labels[rows], weights, reduction="sum").isinf())
    everywhere = -weighted.sum(-1)[rows]
    means = problem.reduction == "mean" and weights is None
    return inf or bool(problem.smoothing and (everywhere.mean() if means else everywhere.sum()).isinf())


def _bad(seen: Seen, name: str) -> torch.Tensor:
    """Rows whose loss or gradient is not finite."""
    return (~seen.losses[name].isfinite() | seen.bad_gradient[name]) & ~seen.bad_label


def _judge_naive(seen: Seen, cast: torch.Tensor, y: torch.Tensor | None, problem: Problem) -> None:
    exps = torch.exp(_heat(cast, problem))
    total = exps.sum(1).reshape(-1)
    x, e = as_rows(cast, problem.axis), as_rows(exps, problem.axis)
    normal = LIMITS[x.dtype][2]
    seen.rules["NH101"] = e.isinf().any(-1)
    seen.rules["NH102"] = total.isinf() & ~e.isinf().any(-1)
    seen.rules["NH103"] = total == 0
    seen.rules["NH104"] = (total > 0) & (total < normal)
    seen.rules["NH201"] = seen.zero_target["naive"]
    if problem.labels is None and y is None:
        seen.rules["NH201"] = ((e / total.unsqueeze(-1) == 0) & (x != -math.inf)).any(-1)
    # The logarithm of another class's probability: only smoothing and probability targets take it.
    elsewhere = ~(seen.losses["naive"].isfinite() | seen.bad_label) & seen.losses["fused"].isfinite()
    seen.rules["NH201"] = seen.rules["NH201"] | (elsewhere & total.isfinite() & (total != 0))


def _judge_loss(
    seen: Seen, x: torch.Tensor, labels: torch.Tensor, kept: torch.Tensor, y: torch.Tensor | None,
    weights: torch.Tensor | None, problem: Problem, gradient: torch.Tensor,
    true: torch.Tensor,
) -> None:  # fmt: skip
    rules, fused = seen.rules, seen.losses["fused"]
    rules["NH203"] = _off(seen.losses["logsumexp"], true, x) & ~_off(fused, true, x)
    seen.undecided = _at_the_bound(seen.losses["logsumexp"], true, x) | _at_the_bound(fused, true, x)
    naive = seen.losses["naive"]
    rules["NH301"] = naive.isfinite() & seen.bad_gradient["naive"] & ~seen.bad_gradient["fused"]
    if y is not None:
        return
    at = labels.unsqueeze(-1)
    at_label = gradient.gather(-1, at).squeeze(-1)
    rules["NH202"] = kept & (fused == 0) & (at_label == 0) & (true != 0)
    others = torch.ones_like(x, dtype=torch.bool).scatter(-1, at, False)
    silent = ~((gradient != 0) & others).any(-1)
    p = torch.softmax(x.double() / problem.temperature, -1)
    classes, eps = x.shape[-1], problem.smoothing
    w = torch.ones(classes).double() if weights is None else weights.double()
    # d/dx_j of sum_k y_k w_k (-log p_k), y smoothed: p_j sum_k y_k w_k - y_j w_j
    mass = (1 - eps) * w[labels] + (eps / classes * w.sum() if eps else 0.0)
    pull = torch.where(p == 0, 0.0, p * mass.unsqueeze(-1))
    exact = pull - eps / classes * w if eps else pull
    rules["NH302"] = kept & silent & ((exact != 0) & others).any(-1)


def _bound(true: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """64 units of roundoff of max(1, |loss|, ln classes)."""
    return 32 * torch.finfo(x.dtype).eps * true.abs().clamp(min=max(1.0, math.log(x.shape[-1])))


def _off(losses: torch.Tensor, true: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Further from the truth than the bound."""
    losses = losses.double()
    return ~((losses - true).abs() <= _bound(true, x)) & (losses != true)


def _at_the_bound(losses: torch.Tensor, true: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """As far from it as the bound, within a few roundings of the truth."""
    few = 4 * torch.finfo(torch.float64).eps * true.abs().clamp(min=1.0)
    return ((losses.double() - true).abs() - _bound(true, x)).abs() <= few
