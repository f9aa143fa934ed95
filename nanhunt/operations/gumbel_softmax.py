"""Gumbel-softmax: softmax((logits + g) / tau) with g = -log(-log u), which u = 0 and u = 1 make infinite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nanhunt.errors import NanhuntError
from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING, Tensor
from nanhunt.operations.fix import Fix
from nanhunt.operations.gumbel_options import GumbelOptions
from nanhunt.operations.operation import Block, Facts, Made, Operation, Plan, Sliced, Unit
from nanhunt.operations.rule import Rule
from nanhunt.operations.usual import (
    at_fault,
    compares,
    fails,
    input_facts,
    input_rules,
    numpy_of,
    row_of,
    says,
)
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Bools, Tensors

LAST = 1.0 - 2.0**-24
"""The largest float32 below 1."""


def plan(shapes: Mapping[str, tuple[int, ...]], options: GumbelOptions) -> Plan:
    """Rows of logits (..., classes); noise of the same shape, or (..., draws, classes).

    Raises NanhuntError for noise of any other shape.
    """
    logits, noise = shapes["logits"], shapes["noise"]
    several = len(noise) == len(logits) + 1 and noise[:-2] + noise[-1:] == logits
    if not logits or logits[-1] == 0 or not (noise == logits or several):
        raise NanhuntError(
            f"--op gumbel-softmax: logits of shape {logits} and noise of shape {noise} do not fit.",
            "noise holds uniform numbers of the logits' shape, or (..., draws, classes).",
        )
    rows = logits[:-1]
    draws = noise[-2] if several else 1
    return Plan(rows, (), {"logits": Sliced(logits, 1), "noise": Sliced((*rows, draws, logits[-1]), 2)})


def drawn(tensors: Mapping[str, Tensor], dtype: str, options: GumbelOptions) -> Mapping[str, Made]:
    """The noise, where there is none: torch.rand in the dtype, as --seed says, (..., draws, classes)."""
    if "noise" in tensors or "logits" not in tensors:
        return {}
    import torch

    from nanhunt.dtypes.convert import torch_dtype
    from nanhunt.dtypes.formats import compute_format
    from nanhunt.load.memory import tensor_of

    shape = tensors["logits"].shape
    generator = torch.Generator().manual_seed(options.seed)
    computed = torch_dtype(compute_format(dtype).name)
    noise = torch.rand((*shape[:-1], options.draws, *shape[-1:]), generator=generator, dtype=computed)
    code = (
        f"torch.rand((*logits.shape[:-1], {options.draws}, *logits.shape[-1:]), dtype={computed}, "
        f"generator=torch.Generator().manual_seed({options.seed}))"
    )
    return {"noise": Made(tensor_of(noise, f"torch.rand, seed {options.seed}"), code)}


def _softmax(t: Tensors, options: GumbelOptions, gumbel: torch.Tensor) -> torch.Tensor:
    import torch

    x = t["logits"]
    y = ((x[..., None, :] + gumbel) / options.tau).softmax(-1)
    if not options.hard:
        return y
    one_hot = torch.zeros_like(y).scatter(-1, y.argmax(-1, keepdim=True), 1.0)
    return one_hot - y.detach() + y


def naive(t: Tensors, options: GumbelOptions) -> torch.Tensor:
    """g = -torch.log(-torch.log(u)); ((x + g) / tau).softmax(-1)."""
    return _softmax(t, options, -(-t["noise"].log()).log())


def eps_20(t: Tensors, options: GumbelOptions) -> torch.Tensor:
    """The same with u + 1e-20 and -log(...) + 1e-20, as in the paper's own code."""
    return _softmax(t, options, -(-(t["noise"] + 1e-20).log() + 1e-20).log())


def eps_10(t: Tensors, options: GumbelOptions) -> torch.Tensor:
    """The same with u + 1e-10 and -log(...) + 1e-10."""
    return _softmax(t, options, -(-(t["noise"] + 1e-10).log() + 1e-10).log())


def fused(t: Tensors, options: GumbelOptions) -> torch.Tensor:
    """-log of exponential noise in float32, which is never 0 or inf: F.gumbel_softmax(x.float())."""
    x, u = t["logits"], t["noise"]
    wide = {
        "logits": x if x.dtype.itemsize > 4 else x.float(),
        "noise": u if u.dtype.itemsize > 4 else u.float(),
    }
    return _softmax(wide, options, _within(wide["noise"])).to(x.dtype)


def _within(noise: torch.Tensor) -> torch.Tensor:
    """Gumbel noise of uniform numbers that are kept inside (0, 1) as float32 has them."""
    return -(-noise.clamp(math.ldexp(1.0, -126), LAST).log()).log()


def truth(t: Tensors, options: GumbelOptions) -> torch.Tensor:
    """float64; u = 0 and 1, which no uniform number should be, as the float32 numbers next to them."""
    return _softmax(t, options, _within(t["noise"]))


def scale(t: Tensors, true: torch.Tensor, options: GumbelOptions) -> torch.Tensor:
    """1, of a probability; which class wins a near tie is no error of a hard sample."""
    return true.new_full(true.shape, math.inf if options.hard else 1.0)


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, edge, scaled_overflow: each bool (rows,)."""
    t, options = block.cast, block.options
    noise = t["noise"].flatten(1)
    found = input_facts(block, ["logits"], masks=["logits"])
    bad_noise = ~((noise >= 0) & (noise <= 1)).all(-1)
    scores = t["logits"].abs().amax(-1) / options.tau
    return numpy_of({
        **found, "not_finite": found["not_finite"] | bad_noise,
        "nothing": t["logits"].isneginf().all(-1),
        "zero": (noise == 0).any(-1), "one": (noise == 1).any(-1), "scaled_overflow": scores.isinf(),
    })  # fmt: skip


_ROW = row_of("logits")


def _noise(unit: Unit) -> str:
    noise = unit.cast["noise"]
    told = [f"{int((noise == edge).sum()):,} of {noise.numel():,} u are {edge}" for edge in (0, 1)]
    return ", ".join(text for text in told if not text.startswith("0 "))


def slots(problem: Any) -> Mapping[str, str]:
    """What the templates below hold for the user's options."""
    options = problem.options
    lead = len(problem.tensors["noise"].shape) > len(problem.tensors["logits"].shape)
    x = "logits{cast}[..., None, :]" if lead else "logits{cast}"
    hard = (
        "hard = torch.zeros_like(output).scatter(-1, output.argmax(-1, keepdim=True), 1.0)\n"
        "output = hard - output.detach() + output"
    )
    return {"x": x, "tau": repr(options.tau), "end": "\n" + hard if options.hard else ""}


_SAFE_CODE = (
    "e = -noise.float().clamp(2.0**-126, 1 - 2.0**-24).log()  # torch.empty_like(logits, dtype=torch.float32)"
    ".exponential_()\noutput = (({x} - e.log()) / {tau}).softmax(-1){end}"
)
_SAFE: Fix[Any] = Fix(
    "-log of exponential noise in float32, as F.gumbel_softmax(logits.float()) draws it", _SAFE_CODE,
    slots={"cast": ".float()"},
)  # fmt: skip
_EPS_20: Fix[Any] = Fix(
    "eps = 1e-20", "g = -(-(noise + 1e-20).log() + 1e-20).log()\noutput = (({x} + g) / {tau}).softmax(-1){end}",
    tempting=True,
)  # fmt: skip
_EPS_10: Fix[Any] = Fix(
    "eps = 1e-10", "g = -(-(noise + 1e-10).log() + 1e-10).log()\noutput = (({x} + g) / {tau}).softmax(-1){end}",
    tempting=True,
)  # fmt: skip
_NAN_TO_NUM: Fix[Any] = Fix(
    "nan_to_num on the samples",
    "g = -(-noise.log()).log()\noutput = torch.nan_to_num((({x} + g) / {tau}).softmax(-1)){end}", tempting=True,
)  # fmt: skip
_WAYS_OUT = (_SAFE, _EPS_20, _EPS_10, _NAN_TO_NUM)


def _drawn_within(f: Facts) -> Bools:
    """Rows whose uniform numbers are neither 0 nor 1, which have findings of their own, and that can be sampled."""
    return ~f.own["zero"] & ~f.own["one"] & ~fails(f.naive) & ~fails(f.fused) & ~at_fault(f)


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
RULES: tuple[Rule[Facts, Any, Any], ...] = (
    *input_rules("gumbel-softmax", "NH93", masks=["logits"]),
    Rule(
        "NH933", "gumbel-of-nothing", _E,
        "Every logit of the row is -inf.",
        "The softmax over nothing is 0 / 0, with any noise.",
        "Leave such rows out.",
        operation="gumbel-softmax", holds=lambda f: f.own["nothing"], arithmetic=_ROW, input_at_fault=True,
    ),
    Rule(
        "NH934", "gumbel-softmax-not-finite", _E,
        "The samples are not finite even with the noise of F.gumbel_softmax in float32.",
        "(logits + noise) / tau leaves float32.",
        "Bound the logits, or raise tau.",
        operation="gumbel-softmax", holds=lambda f: fails(f.fused) & ~at_fault(f), arithmetic=says("fused", _ROW),
    ),
    Rule(
        "NH935", "uniform-one", _W,
        "A uniform number is 1 in the dtype: -log(-log 1) = inf, and the row NaN.",
        "torch.rand is below 1, but a number near 1 rounds to 1 in half precision; a cast does the same.",
        "Take -log of exponential_() noise, in float32, as F.gumbel_softmax does on logits.float().",
        operation="gumbel-softmax", holds=lambda f: f.own["one"] & fails(f.naive) & ~at_fault(f), arithmetic=_noise,
        fixes=_WAYS_OUT,
    ),
    Rule(
        "NH936", "scaled-score-overflow", _W,
        "(logits + noise) / tau overflows: inf - inf in the softmax is NaN.",
        "A small tau multiplies what is moderate beyond the format's largest number.",
        "Compute the samples in float32.",
        operation="gumbel-softmax",
        holds=lambda f: f.own["scaled_overflow"] & fails(f.naive) & ~fails(f.fused) & ~at_fault(f),
        arithmetic=says("naive", _ROW), fixes=_WAYS_OUT,
    ),
    Rule(
        "NH937", "naive-gumbel-softmax-not-finite", _W,
        "The samples of -log(-log u) are not finite, or their gradient is not.",
        "Noise or scores leave the format on the way.",
        "Take -log of exponential_() noise, in float32.",
        operation="gumbel-softmax",
        holds=lambda f: fails(f.naive) & ~f.own["one"] & ~f.own["scaled_overflow"] & ~fails(f.fused) & ~at_fault(f),
        arithmetic=says("naive", _ROW), fixes=_WAYS_OUT,
    ),
    Rule(
        "NH938", "uniform-zero", _N,
        "A uniform number is 0: its class has noise -inf, and is never drawn.",
        "-log(-log 0) = -inf; torch.rand in float16 gives 0 once in 2,048 draws.",
        "Take -log of exponential_() noise, in float32.",
        operation="gumbel-softmax", holds=lambda f: f.own["zero"] & ~fails(f.naive) & ~at_fault(f), arithmetic=_noise,
        fixes=(_SAFE,),
    ),
    Rule(
        "NH93A", "gumbel-softmax-silently-wrong", _W,
        "The samples are finite, and wrong in their first digit.",
        "Beside logits that are large for the dtype the noise is rounded away; a small tau multiplies the rounding.",
        "Compute the samples in float32.",
        operation="gumbel-softmax", holds=lambda f: f.naive.useless & _drawn_within(f),
        arithmetic=compares("naive", _ROW), fixes=_WAYS_OUT,
    ),
    Rule(
        "NH93B", "gumbel-softmax-imprecise", _N,
        "The samples are finite, and off by more than their rounding.",
        "(logits + noise) / tau is rounded before the softmax, by more the smaller tau is.",
        "Compute the samples in float32.",
        operation="gumbel-softmax",
        holds=lambda f: f.naive.wrong & ~f.naive.useless & ~f.fused.wrong & _drawn_within(f),
        arithmetic=compares("naive", _ROW), fixes=(_SAFE,),
    ),
    Rule(
        "NH939", "eps-inside-gumbel", _N,
        "With eps = 1e-20 inside the logarithms, as in the paper's code, the samples are still not finite.",
        "In half precision 1e-20 is 0, and u + 1e-20 is u.",
        "Take -log of exponential_() noise, in float32.",
        operation="gumbel-softmax", holds=lambda f: fails(f.by["eps-1e-20"]) & ~fails(f.fused) & ~at_fault(f),
        arithmetic=says("eps-1e-20", _ROW), fixes=(_SAFE,),
    ),
)  # fmt: skip

GUMBEL_SOFTMAX = Operation(
    name="gumbel-softmax",
    what="softmax((logits + g) / tau) with Gumbel noise g = -log(-log u), row by row.",
    unit="row",
    fused_call="F.gumbel_softmax(logits.float())",
    roles=(
        Role(
            "logits", r".*logits?|(.*[_-])?scores?", FLOATING, dimensions=1,
            what="(..., classes) float, -inf for what is masked", gradient="unit",
        ),
        Role(
            "noise", r"(.*[_-])?(noise|uniforms?|u)", FLOATING, required=False,
            what="uniform numbers of the logits' shape; default: drawn in the dtype, --draws a row",
        ),
    ),
    options=GumbelOptions,
    plan=plan,
    supplied=drawn,
    forms={"naive": naive, "eps-1e-20": eps_20, "eps-1e-10": eps_10, "fused": fused},
    truth=truth,
    facts=facts,
    rules=RULES,
    slots=slots,
    scale=scale,
    shapes={"logits": (32, 10), "noise": (32, 10)},
)  # fmt: skip
