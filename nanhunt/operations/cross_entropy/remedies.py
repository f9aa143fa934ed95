"""For each rule the fixes that exist and the tempting ones that do not work: code that is run on the failing rows.

A remedy is one way of writing the row losses. Whether it works is never stored, always measured: afterwards every
loss and gradient must be finite, the loss must be the true one, and what the rule complains of must be gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from nanhunt.dtypes.convert import to_torch
from nanhunt.dtypes.formats import FORMATS, compute_format
from nanhunt.operations.cross_entropy.confirm import cast, gradient_of, heated, labels_of
from nanhunt.operations.cross_entropy.forms import Labels, LossOptions, cross_entropy, naive
from nanhunt.operations.cross_entropy.job import Job
from nanhunt.operations.cross_entropy.snippets import for_job
from nanhunt.operations.cross_entropy.truth import truth
from nanhunt.operations.rules import RULES
from nanhunt.results.report import RemedyResult, Severity

MOST_VALUES = 1 << 22
"""Remedies are run on at most 1,000 failing rows, and on no more values than this."""
BLOCK_VALUES = 1 << 18
WRONG_LOSS = 0.01
"""A loss further than this from the truth (relative; absolute below 1) is a wrong loss, beyond any rounding."""


@dataclass(frozen=True)
class Case:
    """Failing rows, in blocks that stay in cache."""

    job: Job
    x: torch.Tensor
    """(rows, classes): the logits that require a gradient."""
    labels: Labels
    options: LossOptions
    divisor: float
    """Of the reduction over the whole tensor."""


@dataclass(frozen=True)
class Remedy:
    """One way out, or one that looks like it."""

    title: str
    snippet: str
    losses: Callable[[Case], torch.Tensor]
    """Row losses (rows,), differentiable in ``Case.x``, in any dtype."""
    uncast: bool = False
    """Runs on the logits as stored (float32 at least), not on the cast ones."""
    scale: float = 1.0
    """Multiplies the loss before the backward pass, as GradScaler does."""
    guards: bool = False
    """Replaces a divisor of 0 by 1."""
    clips: bool = False
    """Clips the norm of the gradient afterwards."""
    tempting: bool = False
    """Hides the fault where it seems to work: never recommended, only shown where it does not help."""


def prove(job: Job, code: str, numbers: tuple[int, ...]) -> tuple[RemedyResult, ...]:
    """Runs the remedies of that rule on the rows with those numbers; those that work come first."""
    most = max(1, MOST_VALUES // max(1, job.rows.classes))
    rows = np.array(numbers[:most], dtype=np.intp)
    if len(rows) and RULES[code].severity is not Severity.ERROR:
        rows = rows[_sound(job, rows)]
    tried = [(remedy, _try(job, code, remedy, rows)) for remedy in _remedies(job, code)] if len(rows) else []
    told = [result for remedy, result in tried if not (remedy.tempting and result.works)]
    return tuple(sorted(told, key=lambda result: not result.works))


def _sound(job: Job, rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Rows whose input is not at fault: no way of writing the loss mends the others, so they would disprove all."""
    x = cast(to_torch(job.rows.take(rows), job.tensor.dtype), job.dtype)
    labels, _ = labels_of(x, job.row_targets(rows))
    sound = x.amax(-1).isfinite()
    if labels.classes is not None:
        sound &= ~labels.kept | (x.gather(-1, labels.classes[:, None])[:, 0] != -math.inf)
    return sound.numpy()


def _try(
    job: Job, code: str, remedy: Remedy, rows: np.ndarray[tuple[int], np.dtype[np.intp]]
) -> RemedyResult:
    step = max(1, BLOCK_VALUES // max(1, job.rows.classes))
    bad, worst = 0, None
    for start in range(0, len(rows), step):
        still_bad, error = _try_block(job, code, remedy, rows[start : start + step])
        bad += still_bad
        worst = error if worst is None or (error is not None and error > worst) else worst
    return RemedyResult(remedy.title, for_job(job, remedy.snippet), bad == 0, len(rows), bad, worst)


def _try_block(
    job: Job, code: str, remedy: Remedy, rows: np.ndarray[tuple[int], np.dtype[np.intp]]
) -> tuple[int, float | None]:
    """(rows still bad, largest loss error over the rows with a finite truth)."""
    stored = to_torch(job.rows.take(rows), job.tensor.dtype)
    wide = stored.float() if stored.dtype.itemsize < 4 else stored
    x = (wide if remedy.uncast else cast(stored, job.dtype)).detach().requires_grad_()
    labels, _ = labels_of(x.detach(), job.row_targets(rows))
    options = job.batch.options
    if options.weights is not None:
        options = _with_weights(options, options.weights.to(x.dtype))
    case = Case(job, x, labels, options, job.divisor)
    losses = remedy.losses(case)
    share = 1.0 / job.divisor if job.divisor else 1.0 if remedy.guards else math.inf
    upstream = torch.tensor(remedy.scale * share, dtype=torch.float64).to(losses.dtype).expand_as(losses)
    gradient = gradient_of(losses, x, upstream)
    if remedy.clips:
        gradient = _clipped(gradient)
    true = truth(x.detach(), labels, options)
    return _judge(code, losses.detach().double(), gradient, true, labels)


def _judge(
    code: str, losses: torch.Tensor, gradient: torch.Tensor, true: torch.Tensor, labels: Labels
) -> tuple[int, float | None]:
    error = (losses - true).abs()
    comparable = losses.isfinite() & true.isfinite()
    wrong = comparable & (error > WRONG_LOSS * true.abs().clamp_min(1.0))
    fine = losses.isfinite() & gradient.amax(-1).isfinite() & gradient.amin(-1).isfinite() & ~wrong
    if code in _ALSO and labels.classes is not None:
        fine &= _ALSO[code](losses, gradient, labels.classes[:, None])
    return int((~fine).sum()), float(error[comparable].max()) if bool(comparable.any()) else None


def _still_trains(losses: torch.Tensor, gradient: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return (losses != 0) & (gradient.gather(-1, label)[:, 0] != 0)


def _reaches_others(_: torch.Tensor, gradient: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return (gradient.scatter(-1, label, 0.0) != 0).any(-1)


def _has_gradient(_: torch.Tensor, gradient: torch.Tensor, __: torch.Tensor) -> torch.Tensor:
    return (gradient != 0).any(-1)


_ALSO = {"NH202": _still_trains, "NH302": _reaches_others, "NH010": _has_gradient}
"""What must be gone beside infinities and wrong losses."""


def _clipped(gradient: torch.Tensor) -> torch.Tensor:
    parameter = torch.zeros_like(gradient, requires_grad=True)
    parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_([parameter], 1.0)
    return parameter.grad


def _with_weights(options: LossOptions, weights: torch.Tensor | None) -> LossOptions:
    return LossOptions(
        options.temperature, options.label_smoothing, weights, options.ignore_index, options.last_axis
    )


# The ways of writing the loss.


def _fused(case: Case) -> torch.Tensor:
    return cross_entropy(heated(case.x, case.options), case.labels, case.options)


def _softmax(case: Case) -> torch.Tensor:
    """-log p of the label, from log_softmax; softmax is run beside it, and what is not finite in it is seen."""
    z = heated(case.x, case.options)
    assert case.labels.classes is not None
    log_p = F.log_softmax(z, -1).gather(-1, case.labels.classes[:, None])[:, 0]
    return 0.0 * torch.softmax(z, -1).sum(-1) - log_p


def _softmax_in(dtype: torch.dtype) -> Callable[[Case], torch.Tensor]:
    return lambda case: _softmax(replace(case, x=case.x.to(dtype)))


def _softmax_of_finite_mask(case: Case) -> torch.Tensor:
    return _softmax(replace(case, x=_finite(case.x)))


def _in(dtype: torch.dtype) -> Callable[[Case], torch.Tensor]:
    def losses(case: Case) -> torch.Tensor:
        x, labels, options = case.x.to(dtype), case.labels, case.options
        if labels.probabilities is not None:
            labels = Labels(None, labels.kept, labels.probabilities.to(dtype))
        if options.weights is not None:
            options = _with_weights(options, options.weights.to(dtype))
        return cross_entropy(heated(x, options), labels, options)

    return losses


def _none_then_float(case: Case) -> torch.Tensor:
    return _fused(case).float()


def _finite(x: torch.Tensor) -> torch.Tensor:
    return x.masked_fill(x == -math.inf, -1e4 if x.dtype == torch.float16 else -1e9)


def _finite_mask(case: Case) -> torch.Tensor:
    return cross_entropy(heated(_finite(case.x), case.options), case.labels, case.options)


def _where(case: Case, keep: torch.Tensor) -> torch.Tensor:
    """Row losses of the kept rows only; rows that were dropped have loss 0 and no gradient."""
    labels = case.labels
    if labels.classes is None:
        assert labels.probabilities is not None
        part = Labels(None, labels.kept[keep], labels.probabilities[keep])
    else:
        part = Labels(labels.classes[keep], labels.kept[keep])
    losses = cross_entropy(heated(case.x[keep], case.options), part, case.options)
    return torch.zeros(len(case.x), dtype=losses.dtype).index_put((keep.nonzero()[:, 0],), losses)


def _drop_masked(case: Case) -> torch.Tensor:
    return _where(case, case.x.amax(-1) > -math.inf)


def _select_kept(case: Case) -> torch.Tensor:
    return _where(case, case.labels.kept)


def _ignore_masked_label(case: Case) -> torch.Tensor:
    labels = case.labels
    if labels.classes is None:
        return _fused(case)
    contradicts = case.x.gather(-1, labels.classes[:, None])[:, 0] == -math.inf
    return cross_entropy(
        heated(case.x, case.options), Labels(labels.classes, labels.kept & ~contradicts), case.options
    )


def _shift_first(case: Case) -> torch.Tensor:
    z = (case.x - case.x.amax(-1, keepdim=True)) / case.options.temperature
    return cross_entropy(z, case.labels, case.options)


def _skip_zero_targets(case: Case) -> torch.Tensor:
    y = case.labels.probabilities
    if y is None:
        return _fused(case)
    log_p = F.log_softmax(heated(case.x, case.options), -1)
    return -torch.where(y > 0, y * torch.where(y > 0, log_p, 0.0), 0.0).sum(-1)


def _softplus(case: Case) -> torch.Tensor:
    """-log p = log(1 + r) with r = sum over the others of exp(x_j - x_t): neither loss nor gradient cancels."""
    z = heated(case.x, case.options)
    if case.labels.classes is None:
        return _fused(case)
    label = case.labels.classes[:, None]
    others = z.scatter(-1, label, -math.inf).logsumexp(-1)
    return torch.where(case.labels.kept, F.softplus(others - z.gather(-1, label)[:, 0]), 0.0)


def _subtract_first(case: Case) -> torch.Tensor:
    z = heated(case.x, case.options)
    if case.labels.classes is None:
        return _fused(case)
    shifted = z - z.amax(-1, keepdim=True)
    log_s = torch.log(torch.exp(shifted).sum(-1, keepdim=True))
    losses = -(shifted.gather(-1, case.labels.classes[:, None]) - log_s)[:, 0]
    return torch.where(case.labels.kept, losses, 0.0)


def _plain_naive(case: Case) -> torch.Tensor:
    return naive(case.x, case.labels, case.options).losses


def _nan_to_num(case: Case) -> torch.Tensor:
    return torch.nan_to_num(_plain_naive(case), nan=0.0, posinf=0.0)


def _nan_to_num_fused(case: Case) -> torch.Tensor:
    return torch.nan_to_num(_fused(case), nan=0.0, posinf=0.0)


def _log_p_eps(case: Case) -> torch.Tensor:
    e = torch.exp(heated(case.x, case.options))
    p = e / e.sum(-1, keepdim=True)
    if case.labels.classes is None:
        assert case.labels.probabilities is not None
        return -(case.labels.probabilities * torch.log(p + 1e-8)).sum(-1)
    losses = -torch.log(p.gather(-1, case.labels.classes[:, None])[:, 0] + 1e-8)
    return torch.where(case.labels.kept, losses, 0.0)


def _clamped(case: Case) -> torch.Tensor:
    limit = 10.0 if case.x.dtype == torch.float16 else 50.0
    return naive(case.x.clamp(-limit, limit), case.labels, case.options).losses


# The remedies.

_CALL = "loss = F.cross_entropy(logits, targets)"
_FUSED = Remedy("call F.cross_entropy on the raw logits", _CALL, _fused)
_FLOAT32 = Remedy(
    "compute the loss in float32", "loss = F.cross_entropy(logits.float(), targets)", _in(torch.float32)
)
_FLOAT64 = Remedy(
    "compute the loss in float64", "loss = F.cross_entropy(logits.double(), targets)", _in(torch.float64)
)
_UNCAST = Remedy(
    "do not cast: keep the logits as stored for the loss",
    "with torch.autocast(device, enabled=False):\n    loss = F.cross_entropy(logits.float(), targets)",
    _fused, uncast=True,
)  # fmt: skip
_NONE_MEAN = Remedy(
    'reduction="none", then the mean in float32',
    'loss = F.cross_entropy(logits, targets, reduction="none").float().mean()',
    _none_then_float,
)
_MASK = Remedy(
    "mask with a finite value instead of -inf",
    "logits = logits.masked_fill(~allowed, -1e4)  # -1e9 outside float16\n" + _CALL,
    _finite_mask,
)
_DROP = Remedy(
    "drop fully masked rows before the loss",
    'keep = logits.amax(-1) > -float("inf")\nloss = F.cross_entropy(logits[keep], targets[keep])',
    _drop_masked,
)
_SELECT = Remedy(
    "select the kept rows before the loss",
    "keep = targets != ignore_index\nloss = F.cross_entropy(logits[keep], targets[keep])",
    _select_kept,
)
_VALIDATE = Remedy(
    "give labels that are out of range the ignored index",
    "bad = (targets < 0) | (targets >= logits.shape[-1])\n"
    "loss = F.cross_entropy(logits, targets.masked_fill(bad, -100))",
    _fused,
)
_IGNORE_MASKED = Remedy(
    "ignore rows whose label is masked",
    'masked = logits.gather(-1, targets[:, None])[:, 0] == -float("inf")\n'
    "loss = F.cross_entropy(logits, targets.masked_fill(masked, -100))",
    _ignore_masked_label,
)
_GUARD = Remedy(
    "divide by at least 1",
    'loss = F.cross_entropy(logits, targets, reduction="sum") / (targets != -100).sum().clamp(min=1)',
    _fused, guards=True,
)  # fmt: skip
_GUARD_WEIGHTS = Remedy(
    "divide by the weights' sum only where it is above 0",
    'total = weight[targets].sum()\n'
    'loss = F.cross_entropy(logits, targets, weight, reduction="sum") / torch.where(total > 0, total, 1)',
    _fused, guards=True,
)  # fmt: skip
_SHIFT = Remedy(
    "subtract the row maximum before dividing by the temperature",
    "z = (logits - logits.amax(-1, keepdim=True)) / temperature\nloss = F.cross_entropy(z, targets)",
    _shift_first,
)
_SKIP_ZERO = Remedy(
    "leave classes of probability 0 out of the product",
    "log_p = F.log_softmax(logits, -1)\n"
    "loss = -(targets * log_p.masked_fill(targets == 0, 0)).sum(-1).mean()",
    _skip_zero_targets,
)
_SOFTPLUS = Remedy(
    "the log1p form: softplus of the other classes' logsumexp less the label's logit",
    "label = targets[:, None]\n"
    'others = logits.scatter(-1, label, -float("inf")).logsumexp(-1)\n'
    "loss = F.softplus(others - logits.gather(-1, label)[:, 0]).mean()",
    _softplus,
)
_SUBTRACT = Remedy(
    "subtract first: (x_t - m) - log(s)",
    "shifted = logits - logits.amax(-1, keepdim=True)\n"
    "log_s = shifted.exp().sum(-1, keepdim=True).log()\n"
    "loss = -(shifted.gather(-1, targets[:, None]) - log_s).mean()",
    _subtract_first,
)
_SCALE = Remedy(
    "scale the loss before backward, as GradScaler does",
    'scaler = torch.amp.GradScaler("cuda")\nscaler.scale(loss).backward()\nscaler.step(optimizer)\nscaler.update()',
    _fused, scale=2.0**16,
)  # fmt: skip
_CLAMP = Remedy("clamping the logits", "logits = logits.clamp(-50, 50)", _clamped, tempting=True)
_EPS = Remedy("log(p + 1e-8)", "loss = -torch.log(p + 1e-8)", _log_p_eps, tempting=True)
_NUM = Remedy("nan_to_num on the loss", "loss = torch.nan_to_num(loss)", _nan_to_num, tempting=True)
_NUM_FUSED = Remedy(
    "nan_to_num on the loss", "loss = torch.nan_to_num(F.cross_entropy(logits, targets))", _nan_to_num_fused,
    tempting=True,
)  # fmt: skip
_CLIP = Remedy(
    "gradient clipping",
    "torch.nn.utils.clip_grad_norm_(parameters, 1.0)",
    _plain_naive,
    clips=True,
    tempting=True,
)
_CLIP_FUSED = Remedy(
    "gradient clipping", "torch.nn.utils.clip_grad_norm_(parameters, 1.0)", _fused, clips=True, tempting=True
)

_SOFTMAX = "p = torch.softmax(logits, -1)\nlog_p = torch.log_softmax(logits, -1)"
_WITHOUT_TARGETS = {
    _FUSED: Remedy("call torch.softmax or torch.log_softmax on the raw logits", _SOFTMAX, _softmax),
    _FLOAT32: Remedy(
        "compute the softmax in float32", _SOFTMAX.replace("logits", "logits.float()"),
        _softmax_in(torch.float32),
    ),
    _FLOAT64: Remedy(
        "compute the softmax in float64", _SOFTMAX.replace("logits", "logits.double()"),
        _softmax_in(torch.float64),
    ),
    _UNCAST: Remedy(
        "do not cast: keep the logits as stored for the softmax",
        "with torch.autocast(device, enabled=False):\n    p = torch.softmax(logits.float(), -1)",
        _softmax, uncast=True,
    ),
    _MASK: Remedy(
        _MASK.title, f"{_MASK.snippet.partition(_CALL)[0]}{_SOFTMAX}", _softmax_of_finite_mask,
    ),
    _CLAMP: _CLAMP,
    _EPS: _EPS,
}  # fmt: skip
"""The same where no loss is known: the logits may be an attention's scores. What needs a loss is left out."""

_NAIVE_BREAKS = (_FUSED, _CLIP, _CLAMP, _EPS, _NUM)
_DATA_ONLY = (_NUM_FUSED, _CLIP_FUSED)
_BY_CODE: dict[str, tuple[Remedy, ...]] = {
    "NH001": _DATA_ONLY,
    "NH002": _DATA_ONLY,
    "NH003": (_DROP, _MASK, _NUM_FUSED, _CLIP_FUSED),
    "NH004": (_UNCAST, _NUM_FUSED),
    "NH005": (_VALIDATE,),
    "NH006": (_IGNORE_MASKED, _FUSED),
    "NH007": (_GUARD,),
    "NH008": (_SELECT, _NUM_FUSED, _CLIP_FUSED),
    "NH009": (),
    "NH010": (_FLOAT32, _NONE_MEAN),
    "NH011": (),
    "NH101": _NAIVE_BREAKS,
    "NH102": _NAIVE_BREAKS,
    "NH103": _NAIVE_BREAKS,
    "NH104": (_FUSED,),
    "NH201": _NAIVE_BREAKS,
    "NH202": (_SOFTPLUS,),
    "NH203": (_FUSED, _SUBTRACT),
    "NH301": _NAIVE_BREAKS,
    "NH302": (_SCALE,),
    "NH401": (_FUSED,),
}


def _remedies(job: Job, code: str) -> tuple[Remedy, ...]:
    """The remedies that make sense for these tensors, this dtype and these options."""
    found = _by_code(job, code)
    if job.targets is not None:
        return found
    return tuple(_WITHOUT_TARGETS[remedy] for remedy in found if remedy in _WITHOUT_TARGETS)


def _by_code(job: Job, code: str) -> tuple[Remedy, ...]:
    bits = compute_format(job.dtype).bits
    wider = (_FLOAT32,) if bits < 32 else (_FLOAT64,) if bits < 64 else ()
    uncast = (_UNCAST,) if job.dtype != job.tensor.dtype else ()
    if code == "NH009":
        return _for_options(job)
    if code == "NH302":
        return (*_BY_CODE[code], *uncast, *wider)
    # A float16 sum over that many classes may overflow in F.cross_entropy too.
    crowded = job.half and job.rows.classes > FORMATS["float16"].max / 2
    if code in ("NH011", "NH202", "NH301", "NH203", "NH401") or (crowded and _BY_CODE[code] is _NAIVE_BREAKS):
        return (*_BY_CODE[code], *wider)
    return _BY_CODE[code]


def _for_options(job: Job) -> tuple[Remedy, ...]:
    remedies: list[Remedy] = []
    if job.options.temperature != 1:
        remedies += [_SHIFT, _UNCAST] if job.dtype != job.tensor.dtype else [_SHIFT]
    if job.targets is not None and job.targets.probabilities is not None:
        remedies.append(_SKIP_ZERO)
    if job.weights is not None:
        remedies += [_GUARD_WEIGHTS, _IGNORE_MASKED]
    return (*remedies, _MASK, _NUM_FUSED)
