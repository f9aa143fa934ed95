"""KL(N(mu, exp(logvar)) || N(0, 1)), the second term of a variational autoencoder's loss, value by value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nanhunt.errors import NanhuntError
from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING
from nanhunt.operations.fix import Fix
from nanhunt.operations.operation import Block, Facts, Operation, Plan, Sliced, Unit
from nanhunt.operations.options import LossOptions
from nanhunt.operations.rule import Rule
from nanhunt.operations.usual import (
    at_fault,
    compares,
    fails,
    in_float32,
    input_facts,
    input_rules,
    numpy_of,
    says,
    slots_of,
)
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Bools, Tensors


@dataclass(frozen=True, kw_only=True)
class GaussianKlOptions(LossOptions):
    """The KL divergence of a diagonal Gaussian from the standard one."""


def plan(shapes: Mapping[str, tuple[int, ...]], options: GaussianKlOptions) -> Plan:
    """Every latent is a unit of its own. Raises NanhuntError unless mu and logvar have the same shape."""
    mu, logvar = shapes["mu"], shapes["logvar"]
    if mu != logvar:
        raise NanhuntError(
            f"--op gaussian-kl: mu of shape {mu} and logvar of shape {logvar} do not fit.",
            "Both hold one number a latent.",
        )
    return Plan(mu, (), {"mu": Sliced(mu, 0), "logvar": Sliced(mu, 0)})


def naive(t: Tensors, options: GaussianKlOptions) -> torch.Tensor:
    """0.5 * (mu**2 + logvar.exp() - 1 - logvar)."""
    mu, logvar = t["mu"], t["logvar"]
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar)


def clamped(t: Tensors, options: GaussianKlOptions) -> torch.Tensor:
    """The same after logvar.clamp(-30, 20), as diffusers and CompVis write it."""
    return naive({**t, "logvar": t["logvar"].clamp(-30.0, 20.0)}, options)


def softplus(t: Tensors, options: GaussianKlOptions) -> torch.Tensor:
    """Another objective, v = F.softplus of the output for the variance: 0.5 * (mu**2 + v - 1 - v.log())."""
    import torch.nn.functional as F

    mu, v = t["mu"], F.softplus(t["logvar"]) + 1e-6
    return 0.5 * (mu**2 + v - 1 - v.log())


def distributions(t: Tensors, options: GaussianKlOptions) -> torch.Tensor:
    """torch.distributions.kl_divergence(Normal(mu, exp(0.5 * logvar)), Normal(0, 1))."""
    from torch.distributions import Normal, kl_divergence

    # Validation raises for the whole batch where one number is NaN or one deviation 0.
    given = Normal(t["mu"], (0.5 * t["logvar"]).exp(), validate_args=False)
    standard = Normal(t["mu"].new_zeros(()), t["mu"].new_ones(()), validate_args=False)
    found: torch.Tensor = kl_divergence(given, standard)
    return found


def fused(t: Tensors, options: GaussianKlOptions) -> torch.Tensor:
    """0.5 * (mu**2 + (torch.expm1(logvar) - logvar)): no 1 is added and taken away."""
    import torch

    mu, logvar = t["mu"], t["logvar"]
    return 0.5 * (mu**2 + (torch.expm1(logvar) - logvar))


def truth(t: Tensors, options: GaussianKlOptions) -> torch.Tensor:
    """float64, expm1(v) - v from its series where |v| < 1e-2: seven terms leave less than 1e-17 of it."""
    import torch

    mu, v = t["mu"], t["logvar"]
    small = v.abs() < 1e-2
    near = torch.where(small, v, 0.0)
    series = near**2 * (
        1 / 2 + near * (1 / 6 + near * (1 / 24 + near * (1 / 120 + near * (1 / 720 + near / 5040))))
    )
    return 0.5 * (
        mu**2
        + torch.where(small, series, torch.expm1(torch.where(small, 0.0, v)) - v.masked_fill(small, 0.0))
    )


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, variance_overflow, mean_overflow: each bool (units,)."""
    mu, logvar = block.cast["mu"], block.cast["logvar"]
    return numpy_of({
        **input_facts(block, ["mu", "logvar"]),
        "variance_overflow": logvar.exp().isinf(), "mean_overflow": (mu**2).isinf(),
    })  # fmt: skip


def _latent(unit: Unit) -> str:
    return f"mu {unit.number('mu')}, logvar {unit.number('logvar')}"


def _variance(unit: Unit) -> str:
    """The standard deviation of the reconstruction overflows later: from twice that logvar on."""
    half = 0.5 * unit.cast["logvar"]
    also = f"; exp(0.5 * logvar) = exp({float(half):.6g}) too" if bool(half.exp().isinf()) else ""
    return says("naive", _latent)(unit) + also


_CLAMPS = "a variance above exp(20) costs no more, and its gradient is 0: such a latent stays where it is"
_RENAMES = "the output is no longer logvar: a model that was trained on logvar must be trained anew"
_CODE = "loss = (0.5 * ({mu}**2 + (torch.expm1({logvar}) - {logvar}))).{reduction}()"
_FUSED: Fix[Any] = Fix("expm1(logvar) - logvar", _CODE)
_FLOAT32 = in_float32("divergence", _CODE)
_CLAMP: Fix[Any] = Fix(
    "clamp logvar to -30..20",
    "v = {logvar}.clamp(-30.0, 20.0)\nloss = (0.5 * ({mu}**2 + (torch.expm1(v) - v))).{reduction}()",
    slots={"cast": ".float()"}, redefines=True,
    changes=_CLAMPS,
)  # fmt: skip
_SOFTPLUS: Fix[Any] = Fix(
    "take softplus of the network's output for the variance",
    "variance = F.softplus({logvar}) + 1e-6\nloss = (0.5 * ({mu}**2 + variance - 1 - variance.log())).{reduction}()",
    slots={"cast": ".float()"}, redefines=True,
    changes=_RENAMES,
)  # fmt: skip
_NAN_TO_NUM: Fix[Any] = Fix(
    "nan_to_num on the loss",
    "loss = torch.nan_to_num(0.5 * ({mu}**2 + {logvar}.exp() - 1 - {logvar})).{reduction}()",
    tempting=True,
)
_DISTRIBUTIONS: Fix[Any] = Fix(
    "torch.distributions.kl_divergence",
    "given = torch.distributions.Normal({mu}, (0.5 * {logvar}).exp())\n"
    "loss = torch.distributions.kl_divergence(given, torch.distributions.Normal(0.0, 1.0)).{reduction}()",
    tempting=True,
)

_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
RULES: tuple[Rule[Facts, Any, Any], ...] = (
    *input_rules("gaussian-kl", "NH85"),
    Rule(
        "NH853", "variance-overflow", _E,
        "exp(logvar) is infinite in the dtype: so is the loss, however it is written.",
        "logvar is beyond the logarithm of the format's largest number, 88.72 (float16: 11.09); the deviation "
        "exp(0.5 * logvar), which the sample is drawn with, follows at twice of that.",
        "Clamp logvar where the encoder returns it, or let it return what softplus makes a variance of.",
        operation="gaussian-kl", holds=lambda f: f.own["variance_overflow"] & fails(f.fused) & ~at_fault(f),
        arithmetic=_variance, fixes=(_FLOAT32, _CLAMP, _SOFTPLUS, _DISTRIBUTIONS, _NAN_TO_NUM),
    ),
    Rule(
        "NH854", "mean-square-overflow", _E,
        "mu**2 is infinite in the dtype: so is the loss, however it is written.",
        "float16 holds no square of a number from 256 on.",
        "Compute the divergence in float32.",
        operation="gaussian-kl",
        holds=lambda f: f.own["mean_overflow"] & ~f.own["variance_overflow"] & fails(f.fused) & ~at_fault(f),
        arithmetic=says("naive", _latent), fixes=(_FLOAT32, _NAN_TO_NUM),
    ),
    Rule(
        "NH855", "gaussian-kl-not-finite", _E,
        "The loss, or its gradient, is not finite although neither the variance nor the squared mean overflows.",
        "Their sum leaves the format.",
        "Compute the divergence in float32.",
        operation="gaussian-kl",
        holds=lambda f: fails(f.fused) & ~f.own["mean_overflow"] & ~f.own["variance_overflow"] & ~at_fault(f),
        arithmetic=says("fused", _latent), fixes=(_FLOAT32,),
    ),
    Rule(
        "NH856", "naive-gaussian-kl-not-finite", _W,
        "The usual spelling is not finite although the one with expm1 is.",
        "A sum on the way is larger than its result.",
        "Write expm1(logvar) - logvar.",
        operation="gaussian-kl", holds=lambda f: fails(f.naive) & ~fails(f.fused) & ~at_fault(f),
        arithmetic=says("naive", _latent), fixes=(_FUSED, _FLOAT32),
    ),
    Rule(
        "NH857", "normal-kl-not-finite", _W,
        "torch.distributions.kl_divergence is not finite where the formula is.",
        "It squares exp(0.5 * logvar) and takes the logarithm: the square overflows, or is 0, before it.",
        "Write the formula in logvar, which never leaves the logarithm.",
        operation="gaussian-kl", holds=lambda f: fails(f.by["distributions"]) & ~fails(f.fused) & ~at_fault(f),
        arithmetic=says("distributions", _latent), fixes=(_FUSED,),
    ),
    Rule(
        "NH858", "clamped-logvar", _N,
        "Under the usual clamp of logvar to -30..20 this latent has another loss, and no gradient to come back by.",
        "The clamp's gradient is 0 outside, so the encoder is never told to lower such a variance.",
        "Look at why logvar is so large: a clamp hides it.",
        operation="gaussian-kl", holds=lambda f: f.by["clamped"].wrong & ~at_fault(f),
        arithmetic=compares("clamped", _latent),
    ),
)  # fmt: skip

GAUSSIAN_KL = Operation(
    name="gaussian-kl",
    what="KL of N(mu, exp(logvar)) from N(0, 1): 0.5 * (mu^2 + exp(logvar) - 1 - logvar), latent by latent.",
    unit="value",
    fused_call="0.5 * (mu**2 + (torch.expm1(logvar) - logvar))",
    roles=(
        Role("mu", r"(.*[_-])?(mu|means?)", FLOATING, what="any shape, float", gradient="unit"),
        Role(
            "logvar", r"(.*[_-])?log[_-]?var(iance)?s?|(.*[_-])?log[_-]?sigma2", FLOATING,
            what="mu's shape, float: the logarithm of the variance", gradient="unit",
        ),
    ),
    options=GaussianKlOptions,
    plan=plan,
    forms={
        "naive": naive, "clamped": clamped, "softplus": softplus, "distributions": distributions, "fused": fused,
    },
    objectives={"clamped": _CLAMPS, "softplus": _RENAMES},
    truth=truth,
    facts=facts,
    rules=RULES,
    slots=slots_of("mu", "logvar"),
    reduces=True,
    shapes={"mu": (32, 8), "logvar": (32, 8)},
)  # fmt: skip
