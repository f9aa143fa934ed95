"""The mean of what a mask keeps, and advantages standardised by it: row by row, or within groups of rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nanhunt.errors import NanhuntError
from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING, INTEGER
from nanhunt.operations.fix import Fix
from nanhunt.operations.masked_mean_options import MaskedMeanOptions
from nanhunt.operations.operation import Block, Facts, Operation, Plan, Sliced, Unit
from nanhunt.operations.rule import Rule
from nanhunt.operations.usual import (
    at_fault,
    compares,
    fails,
    input_rules,
    numpy_of,
    says,
    wrong_rules,
)
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Bools, Tensors

USUAL_EPS = 1e-4
"""TRL's, in GRPO's advantage."""


def plan(shapes: Mapping[str, tuple[int, ...]], options: MaskedMeanOptions) -> Plan:
    """Rows of values (..., T) under a mask of that shape; or rewards (B,) with a group's number each, a unit each.

    Raises NanhuntError for shapes that do not fit.
    """
    values, mask, groups = shapes["values"], shapes.get("mask"), shapes.get("groups")
    if groups is not None and len(values) == 1 and groups == values and mask is None:
        return Plan((), values, {"values": Sliced(values, 1), "groups": Sliced(values, 1)})
    if groups is not None or not values or mask != values:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise NanhuntError(
            f"--op masked-mean: these shapes do not fit: {told}.",
            "values (..., T) with a mask of the same shape, or rewards (B,) with groups (B,) and no mask.",
        )
    return Plan(values[:-1], (), {"values": Sliced(values, 1), "mask": Sliced(values, 1)})


def eps_of(options: MaskedMeanOptions) -> float:
    """The eps in use."""
    return USUAL_EPS if options.eps is None else options.eps


def _kept(t: Tensors) -> torch.Tensor:
    """bool, of the values' shape."""
    import torch

    return t["mask"] != 0 if "mask" in t else torch.ones_like(t["values"], dtype=torch.bool)


def _total(t: Tensors, numbers: torch.Tensor) -> torch.Tensor:
    """The sum over the row, or over the group of each value, as broad as the numbers."""
    import torch

    if "groups" not in t:
        return numbers.sum(-1, keepdim=True).expand(numbers.shape)
    ids = t["groups"].reshape(numbers.shape[-1])
    known, place = torch.unique(ids, return_inverse=True)
    sums = numbers.new_zeros(*numbers.shape[:-1], len(known)).index_add(-1, place, numbers)
    return sums[..., place]


def _mean_of(t: Tensors, numbers: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    return _total(t, numbers) / count


def _root(variance: torch.Tensor) -> torch.Tensor:
    """sqrt as torch.std has it: gradient 0 at 0."""
    import torch

    return torch.where(variance == 0, 0.0, torch.where(variance == 0, 1.0, variance).sqrt())


def _standardised(
    t: Tensors, options: MaskedMeanOptions, values: torch.Tensor, count: torch.Tensor
) -> torch.Tensor:
    """(v - mean) / (std + eps), with the correction of torch.std: of a single value that is 0 / 0."""
    keep = _kept(t)
    centred = (values - _mean_of(t, values, count)) * keep
    variance = _total(t, centred.pow(2)) / (count - 1)
    return centred / (_root(variance) + eps_of(options))


def _has_std(t: Tensors, options: MaskedMeanOptions) -> bool:
    return options.std or "groups" in t


def naive(t: Tensors, options: MaskedMeanOptions) -> torch.Tensor:
    """(v * m).sum(-1) / m.sum(-1); standardised (v - mean) / (torch.std + eps)."""
    keep = _kept(t).to(t["values"].dtype)
    values = t["values"] * keep if "mask" in t else t["values"]
    count = _total(t, keep)
    if _has_std(t, options):
        return _standardised(t, options, values, count)
    return (_total(t, values) / count)[..., 0]


def two_moments(t: Tensors, options: MaskedMeanOptions) -> torch.Tensor:
    """The same with the deviation as sqrt(E[v^2] - E[v]^2), the difference of two large numbers."""
    if not _has_std(t, options):
        return naive(t, options)
    keep = _kept(t).to(t["values"].dtype)
    values = t["values"] * keep if "mask" in t else t["values"]
    count = _total(t, keep)
    mean = _mean_of(t, values, count)
    variance = (_mean_of(t, values.pow(2), count) - mean.pow(2)) * (count / (count - 1))
    return (values - mean) * keep / (variance.sqrt() + eps_of(options))


def _replaced(t: Tensors) -> torch.Tensor:
    """The values with 0 where the mask drops them, in float32 at least."""
    import torch

    values = torch.where(_kept(t), t["values"], 0.0)
    return values if values.dtype.itemsize > 4 else values.float()


def fused(t: Tensors, options: MaskedMeanOptions) -> torch.Tensor:
    """torch.where(m, v, 0) before the sum, the count at least 1, float32; a single value is its own mean."""
    values = _replaced(t)
    count = _total(t, _kept(t).to(values.dtype)).clamp_min(1.0)
    if not _has_std(t, options):
        return (_total(t, values) / count)[..., 0].to(t["values"].dtype)
    centred = (values - _mean_of(t, values, count)) * _kept(t)
    variance = _total(t, centred.pow(2)) / (count - 1).clamp_min(1.0)
    found: torch.Tensor = centred / (_root(variance) + eps_of(options))
    return found.to(t["values"].dtype)


def truth(t: Tensors, options: MaskedMeanOptions) -> torch.Tensor:
    """float64, what is masked replaced first; the mean of nothing is 0, and a single value is its own mean."""
    return fused(t, options)


def scale(t: Tensors, true: torch.Tensor, options: MaskedMeanOptions) -> torch.Tensor:
    """The mean of |v|, or of what is left of it after the division by the deviation."""
    import torch

    values = torch.where(_kept(t), t["values"], 0.0).nan_to_num()
    count = _total(t, _kept(t).to(values.dtype)).clamp_min(1.0)
    mean = _mean_of(t, values.abs(), count)
    if true.dim() < values.dim():
        return mean[..., 0]
    centred = (values - _mean_of(t, values, count)) * _kept(t)
    deviation = (_total(t, centred.pow(2)) / (count - 1).clamp_min(1.0)).sqrt()
    return 1.0 + mean / (deviation + 1e-4)


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, empty, hidden, single, constant: each bool (units,)."""
    t, stored = block.cast, block.stored["values"]
    keep, values = _kept(t), t["values"]
    count = _total(t, keep.double())
    lost = stored.isfinite() & ~values.isfinite()
    found = {
        "not_finite": _any(t, keep & ~stored.isfinite()),
        "cast_overflow": _any(t, keep & lost),
        "empty": count == 0,
        "hidden": _any(t, ~keep & ~values.isfinite()),
        "single": (count == 1) & _has_std(t, block.options),
    }
    rows = {name: each if "groups" in t else each[..., 0] for name, each in found.items()}
    return numpy_of({name: each.contiguous() for name, each in rows.items()})


def _any(t: Tensors, holds: torch.Tensor) -> torch.Tensor:
    return _total(t, holds.double()) > 0


def isolate(t: Tensors, options: MaskedMeanOptions, unit: int) -> tuple[Tensors, MaskedMeanOptions]:
    """The group of one reward, that reward first; a row is alone already."""
    import torch

    if "groups" not in t:
        return t, options
    ids = t["groups"][0]
    others = (ids == ids[unit]).nonzero()[:, 0]
    at = torch.cat([torch.tensor([unit]), others[others != unit]])
    return {name: each[:, at] for name, each in t.items()}, options


def _row(unit: Unit) -> str:
    keep, values = _kept(unit.cast), unit.cast["values"]
    kept = values[keep].double()
    if "groups" in unit.cast:
        group = int(unit.cast["groups"].reshape(-1)[0])
        return f"group {group} of {kept.numel():,} values from {kept.min():.6g} to {kept.max():.6g}"
    return f"the mask keeps {kept.numel():,} of {values.numel():,}"


def _hidden(unit: Unit) -> str:
    dropped = unit.cast["values"][~_kept(unit.cast)]
    bad = dropped[~dropped.isfinite()]
    number = "NaN" if bool(bad[0].isnan()) else f"{float(bad[0]):.6g}"
    says = unit.first_bad("naive") or f"{number} * 0 = NaN"
    verb = "is" if bad.numel() == 1 else "are"
    return f"{_row(unit)}, {bad.numel():,} of those that it drops {verb} {number}: {says}"


def slots(problem: Any) -> Mapping[str, str]:
    """What the templates below hold for the user's tensors and options."""
    if "groups" in problem.tensors:
        code, by_hand = _GROUPED, _GROUPED_BY_HAND
    elif problem.options.std:
        code, by_hand = _STANDARDISED, _STANDARDISED_BY_HAND
    else:
        code, by_hand = _MEAN, _MEAN_BY_HAND
    return {"eps": repr(eps_of(problem.options)), "code": code, "by_hand": by_hand}


_KEEP = "keep = mask != 0\nv = torch.where(keep, values{cast}, 0.0)\ncount = keep.sum(-1, keepdim=True).clamp(min=1)\n"
_MEAN = _KEEP + "output = v.sum(-1) / count[..., 0]"
_STANDARDISED = (
    _KEEP + "centred = torch.where(keep, v - v.sum(-1, keepdim=True) / count, 0.0)\n"
    "variance = centred.pow(2).sum(-1, keepdim=True) / (count - 1).clamp(min=1)\n"
    "std = torch.where(variance > 0, torch.where(variance > 0, variance, 1.0).sqrt(), 0.0)\n"
    "output = centred / (std + {eps})"
)
_MEAN_BY_HAND = "output = (values{cast} * (mask != 0)).sum(-1) / (mask != 0).sum(-1)"
_STANDARDISED_BY_HAND = (
    "keep = mask != 0\nv = values{cast} * keep\ncount = keep.sum(-1, keepdim=True)\n"
    "centred = (v - v.sum(-1, keepdim=True) / count) * keep\n"
    "output = centred / ((centred.pow(2).sum(-1, keepdim=True) / (count - 1)).sqrt() + {eps})"
)
_GROUPED = (
    "member = groups[:, None] == groups\nr = values{cast}\ncount = member.sum(-1)\n"
    "mean = torch.where(member, r, 0.0).sum(-1) / count\n"
    "variance = torch.where(member, (r - mean[:, None]).pow(2), 0.0).sum(-1) / (count - 1).clamp(min=1)\n"
    "std = torch.where(variance > 0, torch.where(variance > 0, variance, 1.0).sqrt(), 0.0)\n"
    "output = (r - mean) / (std + {eps})"
)
_GROUPED_BY_HAND = (
    "parts = [values[groups == group]{cast} for group in groups]\n"
    "mean = torch.stack([part.mean() for part in parts])\n"
    "std = torch.stack([part.std() for part in parts])\n"
    "output = (values - mean) / (std + {eps})"
)
_WHERE: Fix[Any] = Fix("where before the sum, a count of at least 1", "{code}")
_FLOAT32: Fix[Any] = Fix("the same in float32", "{code}", slots={"cast": ".float()"}, when=lambda p: p.narrow)
_NAN_TO_NUM: Fix[Any] = Fix(
    "nan_to_num on the result", "{by_hand}\noutput = torch.nan_to_num(output)", tempting=True
)
_ANY_EPS: Fix[Any] = Fix(
    "add an eps to the deviation", "{code}", slots={"eps": "1e-4"}, when=lambda p: p.options.eps == 0, redefines=True,
    changes="every value is divided by a little more; values that are all alike become 0",
)  # fmt: skip
_EPS: Fix[Any] = Fix(
    "an eps in the denominator", "output = (values * (mask != 0)).sum(-1) / ((mask != 0).sum(-1) + 1e-8)",
    when=lambda p: "mask" in p.tensors and not p.options.std, tempting=True,
)  # fmt: skip
_WAYS_OUT = (_WHERE, _FLOAT32, _EPS, _NAN_TO_NUM)


def _unexplained(f: Facts) -> Bools:
    return ~f.own["empty"] & ~f.own["hidden"] & ~f.own["single"] & ~at_fault(f)


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
RULES: tuple[Rule[Facts, Any, Any], ...] = (
    *input_rules("masked-mean", "NH88"),
    Rule(
        "NH883", "masked-mean-not-finite", _E,
        "The mean is not finite even where what is masked is replaced and it is computed in float32.",
        "The result itself leaves the dtype; or values that are all alike are divided by a deviation and an eps of 0.",
        "Keep the result in float32; add an eps to the deviation.",
        operation="masked-mean", holds=lambda f: fails(f.fused) & ~at_fault(f), arithmetic=says("fused", _row),
        fixes=(_FLOAT32, _ANY_EPS),
    ),
    Rule(
        "NH884", "empty-mask", _W,
        "The mask keeps nothing of this row: its mean is 0 / 0 = NaN.",
        "A sequence that is all padding, or a response that was cut to nothing.",
        "Divide by a count of at least 1; the mean of nothing is then 0 and has no gradient.",
        operation="masked-mean", holds=lambda f: f.own["empty"] & fails(f.naive) & ~at_fault(f),
        arithmetic=says("naive", _row), fixes=_WAYS_OUT,
    ),
    Rule(
        "NH885", "masked-nan", _W,
        "A value that the mask drops is NaN or infinite, and makes the mean NaN.",
        "NaN * 0 is NaN: a product does not drop anything.",
        "torch.where(mask, values, 0) before the sum; where the values are computed, before that.",
        operation="masked-mean", holds=lambda f: f.own["hidden"] & fails(f.naive) & ~at_fault(f),
        arithmetic=_hidden, fixes=_WAYS_OUT,
    ),
    Rule(
        "NH886", "deviation-of-one", _W,
        "The standard deviation of a single value is NaN.",
        "torch.std divides by n - 1, and 0 / 0 is NaN: a group of one answer, or one token left by the mask.",
        "Take a deviation of 0 there (n - 1 of at least 1), or correction=0.",
        operation="masked-mean", holds=lambda f: f.own["single"] & fails(f.naive) & ~at_fault(f),
        arithmetic=says("naive", _row), fixes=(_WHERE, _FLOAT32, _NAN_TO_NUM),
    ),
    Rule(
        "NH887", "naive-masked-mean-not-finite", _W,
        "The handwritten mean, or its gradient, is not finite.",
        "The sum leaves the dtype before it is divided, or the deviation and eps are both 0 in it.",
        "Compute it in float32.",
        operation="masked-mean", holds=lambda f: fails(f.naive) & ~fails(f.fused) & _unexplained(f),
        arithmetic=says("naive", _row), fixes=_WAYS_OUT,
    ),
    *wrong_rules(
        "masked-mean", "NH888", "NH889", "The sum, or the count, loses digits in the dtype.",
        "Compute the sum in float32.", _row, _WHERE, _FLOAT32,
    ),
    Rule(
        "NH88A", "two-moment-deviation", _N,
        "sqrt(E[v^2] - E[v]^2) is NaN, has no gradient, or is off by more than its rounding.",
        "The difference of two large numbers: rounding makes it negative, 0, or anything of that size.",
        "Subtract the mean before squaring, as torch.std does.",
        operation="masked-mean",
        holds=lambda f: (fails(f.by["two-moments"]) | f.by["two-moments"].wrong) & ~fails(f.naive) & _unexplained(f),
        arithmetic=compares("two-moments", _row), fixes=(_WHERE,),
    ),
)  # fmt: skip

MASKED_MEAN = Operation(
    name="masked-mean",
    what="The mean of what a mask keeps, row by row; with --std, or groups of rewards, (v - mean) / (std + eps).",
    unit="row",
    fused_call="where before the sum",
    roles=(
        Role(
            "values", r"values|(.*[_-])?rewards?|token[_-]level[_-]scores?|(per[_-])?token[_-]loss(es)?", FLOATING,
            dimensions=1, what="(..., T) float, or rewards (B,) with groups", gradient="unit",
        ),
        Role(
            "mask", r"((completion|response|action|loss|token|padding)[_-])?mask", FLOATING + INTEGER, dimensions=1,
            what="the values' shape: not 0 where a value counts", cast=False, is_mask=True,
        ),
        Role(
            "groups", r"groups?|group_ids?|(prompt|group|uid)s?([_-](ids?|index))?", INTEGER, required=False,
            replaces=("mask",), what="(B,) integers: which group a reward belongs to",
        ),
    ),
    options=MaskedMeanOptions,
    plan=plan,
    forms={"naive": naive, "two-moments": two_moments, "fused": fused},
    truth=truth,
    facts=facts,
    rules=RULES,
    slots=slots,
    scale=scale,
    isolate=isolate,
    shapes={"values": (4, 16), "mask": (4, 16)},
)  # fmt: skip
