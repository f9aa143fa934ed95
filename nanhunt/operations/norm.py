"""A row divided by its own size: RMS norm, layer norm, normalize, cosine similarity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nanhunt.errors import NanhuntError
from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING
from nanhunt.operations.fix import Fix
from nanhunt.operations.norm_options import NormOptions
from nanhunt.operations.operation import Block, Facts, Operation, Plan, Sliced, Unit
from nanhunt.operations.rule import Rule
from nanhunt.operations.usual import (
    at_fault,
    compares,
    fails,
    input_facts,
    input_rules,
    numpy_of,
    says,
)
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from nanhunt.operations.operation import Bools, Tensors

_USUAL = {"rms": 1e-6, "layer": 1e-5, "l2": 1e-12, "cosine": 1e-8}
"""eps as in Llama's RMS norm, F.layer_norm, F.normalize and F.cosine_similarity."""


def plan(shapes: Mapping[str, tuple[int, ...]], options: NormOptions) -> Plan:
    """Every row of (..., size) is a unit of its own; weight is (size,), the other vectors of a cosine any shape.

    Raises NanhuntError for a weight of another size.
    """
    rows, weight = shapes["hidden_states"], shapes.get("weight")
    if not rows or rows[-1] == 0 or weight not in (None, rows[-1:], rows):
        raise NanhuntError(
            f"--op norm: hidden_states {rows} and weight {weight} do not fit.",
            "hidden_states is (..., size), weight (size,), or for --norm cosine the other vectors, (..., size).",
        )
    sliced = {"hidden_states": Sliced(rows, 1)}
    if weight is not None:
        sliced["weight"] = Sliced((*(1,) * (len(rows) - len(weight)), *weight), 1)
    return Plan(rows[:-1], (), sliced)


def eps_of(options: NormOptions) -> float:
    """The eps in use."""
    return _USUAL[options.norm] if options.eps is None else options.eps


def _other(t: Tensors) -> torch.Tensor:
    """What the rows are compared with for a cosine: the weight, or the diagonal where there is none."""
    import torch

    return t.get("weight", torch.ones_like(t["hidden_states"]))


def _weighted(t: Tensors, rows: torch.Tensor) -> torch.Tensor:
    return rows * t["weight"] if "weight" in t else rows


def naive(t: Tensors, options: NormOptions) -> torch.Tensor:
    """Squares and their sum in the dtype: x * rsqrt(x.pow(2).mean(-1) + eps), and so for the other norms."""
    x, eps = t["hidden_states"], eps_of(options)
    if options.norm == "rms":
        return _weighted(t, x * (x.pow(2).mean(-1, keepdim=True) + eps).rsqrt())
    if options.norm == "layer":
        centred = x - x.mean(-1, keepdim=True)
        return _weighted(t, centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt())
    if options.norm == "l2":
        return x / x.pow(2).sum(-1, keepdim=True).sqrt().clamp(min=eps)
    y = _other(t)
    lengths = x.pow(2).sum(-1).sqrt() * y.pow(2).sum(-1).sqrt()
    return (x * y).sum(-1) / lengths.clamp(min=eps)


def in_single(t: Tensors, options: NormOptions) -> torch.Tensor:
    """The same in float32, and back in the dtype, as LlamaRMSNorm does."""
    wide = {name: each if each.dtype.itemsize > 4 else each.float() for name, each in t.items()}
    return naive(wide, options).to(t["hidden_states"].dtype)


CALLS = {"rms": "F.rms_norm", "layer": "F.layer_norm", "l2": "F.normalize", "cosine": "F.cosine_similarity"}
"""By --norm, what ``fused`` calls."""


def fused(t: Tensors, options: NormOptions) -> torch.Tensor:
    """F.rms_norm, F.layer_norm, F.normalize or F.cosine_similarity."""
    import torch.nn.functional as F

    x, eps = t["hidden_states"], eps_of(options)
    if options.norm == "rms":
        return _weighted(t, F.rms_norm(x, x.shape[-1:], eps=eps))
    if options.norm == "layer":
        return _weighted(t, F.layer_norm(x, x.shape[-1:], eps=eps))
    if options.norm == "l2":
        return F.normalize(x, dim=-1, eps=eps)
    return F.cosine_similarity(x, _other(t), dim=-1, eps=eps)


def truth(t: Tensors, options: NormOptions) -> torch.Tensor:
    """float64, of rows divided by their largest number first, so that no square leaves it; a row of 0 stays 0.

    A layer norm subtracts the first number before the mean, which then has the digits of the differences.
    """
    x, eps = t["hidden_states"], eps_of(options)
    if options.norm == "layer":
        x = x - x[..., :1]
        x = x - x.mean(-1, keepdim=True)
    x, size = _of_size_one(x)
    if options.norm in ("rms", "layer"):
        return _weighted(t, x * (x.pow(2).mean(-1, keepdim=True) + eps / size / size).rsqrt())
    if options.norm == "l2":
        return x / _length(x).clamp_min(eps / size)
    y, other = _of_size_one(_other(t))
    return (x * y).sum(-1) / (_length(x) * _length(y)).clamp_min(eps / size / other)[..., 0]


def _of_size_one(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows divided by their largest |x|, and that; of a row of (nearly) 0 a number whose square can be divided by."""
    size = x.detach().abs().amax(-1, keepdim=True).clamp_min(1e-150)
    return x / size, size


def _length(x: torch.Tensor) -> torch.Tensor:
    """(..., 1); its gradient at 0 is 0, as torch.linalg has it."""
    import torch

    length: torch.Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return length


def scale(t: Tensors, true: torch.Tensor, options: NormOptions) -> torch.Tensor:
    """Of a cosine 1; else the row's largest number, at least what the largest of a normalised row must be.

    That is 1 for rms and layer norm, 1 / sqrt(size) for l2: a row that is smaller is one that eps has shrunk.
    """
    import torch

    if options.norm == "cosine":
        return torch.ones_like(true)
    least = true.shape[-1] ** -0.5 if options.norm == "l2" else 1.0
    if "weight" in t and options.norm != "l2":
        least = least * t["weight"].abs().amax(-1, keepdim=True)
    return (
        true.abs()
        .amax(-1, keepdim=True)
        .clamp_min(torch.as_tensor(least, dtype=true.dtype))
        .expand(true.shape)
    )


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, square_overflow, eps_lost: each bool (rows,)."""
    import torch

    x, options = block.cast["hidden_states"], block.options
    size = x - x.mean(-1, keepdim=True) if options.norm == "layer" else x
    squares = size.pow(2).sum(-1)
    overflows = squares.isinf()
    if options.norm == "cosine":
        overflows = overflows | _other(block.cast).pow(2).sum(-1).isinf()
    eps = torch.tensor(eps_of(options), dtype=torch.float64).to(x.dtype)
    found = input_facts(block, list(block.cast))
    return numpy_of({**found, "square_overflow": overflows, "eps_lost": (squares == 0) & (eps == 0)})


def screen(stored: Mapping[str, npt.NDArray[Any]], options: NormOptions) -> bool:
    """Whether the largest |x| of every row lies in 1e-3..1e6, and no weight is beyond 1e6: rms and l2 only.

    The sum of squares is then a normal number below 1e12 times the row's size, and its root at least 1e-3, which makes
    eps = 1e-12 of it invisible; nothing is subtracted, so every result is as exact as its squares.
    """
    import numpy as np

    x, weight = stored["hidden_states"], stored.get("weight")
    if options.norm not in ("rms", "l2") or not x.size or eps_of(options) > _USUAL["rms"]:
        return False
    sizes = np.maximum(x.max(-1), -x.min(-1))
    bounded = weight is None or bool(np.abs(weight).max() <= 1e6)
    return bounded and bool(sizes.min() >= 1e-3 and sizes.max() <= 1e6)


def _row(unit: Unit) -> str:
    x = unit.cast["hidden_states"].double().abs()
    return f"{x.numel():,} numbers, the largest |x| {x.max():.6g}"


def _squares(unit: Unit) -> str:
    import torch

    x = unit.cast["hidden_states"].double()
    limit = torch.finfo(unit.cast["hidden_states"].dtype).max
    if unit.options.norm == "layer":
        x = x - x.mean(-1, keepdim=True)
    if unit.options.norm == "cosine" and bool(x.pow(2).sum() <= limit):
        x = _other(unit.cast).double()  # then it is the other vector's
    given, true = unit.value("naive"), unit.value("truth")
    return (
        f"{_row(unit)}: the squares add up to {x.pow(2).sum():.6g} > {limit:.6g} in {unit.dtype}; "
        f"naive gives {given:.6g}, the truth is {true:.6g}"
    )


def _eps(unit: Unit) -> str:
    eps = eps_of(unit.options)
    said = f"eps {eps:g} is 0 in {unit.dtype}" if eps else "an eps of 0"
    return f"a row of 0, and {said}: {unit.first_bad('naive')}"


_CALLS = {
    "rms": "F.rms_norm({x}, {x}.shape[-1:], eps={eps})",
    "layer": "F.layer_norm({x}, {x}.shape[-1:], eps={eps})",
    "l2": "F.normalize({x}, dim=-1, eps={eps})",
    "cosine": "F.cosine_similarity({x}, {y}, dim=-1, eps={eps})",
}
_BY_HAND = {
    "rms": "{x} * ({x}.pow(2).mean(-1, keepdim=True) + {eps}).rsqrt()",
    "layer": "({x} - {x}.mean(-1, keepdim=True)) / ({x}.var(-1, correction=0, keepdim=True) + {eps}).sqrt()",
    "l2": "{x} / {x}.pow(2).sum(-1, keepdim=True).sqrt().clamp(min={eps})",
    "cosine": "({x} * {y}).sum(-1) / ({x}.pow(2).sum(-1).sqrt() * {y}.pow(2).sum(-1).sqrt()).clamp(min={eps})",
}


def slots(problem: Any) -> Mapping[str, str]:
    """What the templates below hold: the call and the handwritten code of the norm, the weight, the eps."""
    options, weighted = problem.options, "weight" in problem.tensors
    other = "weight{cast}" if weighted else "torch.ones_like(hidden_states{cast})"
    given = {"x": "hidden_states{cast}", "y": other, "eps": repr(eps_of(options))}
    filled = {"cast": "{cast}"}
    times = " * weight{cast}" if weighted and options.norm in ("rms", "layer") else ""
    return {
        "call": _CALLS[options.norm].format(**given).format(**filled) + times,
        "held": _CALLS[options.norm].format(**given | {"eps": "1e-4"}).format(**filled) + times,
        "hand": _BY_HAND[options.norm].format(**given).format(**filled) + times,
        "tiny": _BY_HAND[options.norm].format(**given | {"eps": "1e-3"}).format(**filled) + times,
    }


_FUSED: Fix[Any] = Fix("call PyTorch's own", "output = {call}")
_FLOAT32: Fix[Any] = Fix(
    "normalise in float32", "output = ({call}).to(hidden_states.dtype)", slots={"cast": ".float()"},
    when=lambda p: p.narrow,
)  # fmt: skip
_NAN_TO_NUM: Fix[Any] = Fix("nan_to_num on the output", "output = torch.nan_to_num({hand})", tempting=True)
_EPS: Fix[Any] = Fix("eps=1e-3", "output = {tiny}", changes="every row is shrunk by it", tempting=True)
_OWN_EPS: Fix[Any] = Fix(
    "call PyTorch's own with an eps that the dtype holds", "output = {held}",
    when=lambda p: p.narrow and eps_of(p.options) > 0,
    changes="rows whose size is near that eps, or below, become shorter",
)  # fmt: skip
_ANY_EPS: Fix[Any] = Fix(
    "call PyTorch's own with an eps", "output = {held}", when=lambda p: eps_of(p.options) == 0, redefines=True,
    changes="rows whose size is near that eps, or below, become shorter, and a row of 0 stays 0",
)  # fmt: skip
_WAYS_OUT = (_FUSED, _FLOAT32, _NAN_TO_NUM)


def _is_lost(f: Facts) -> Bools:
    """Rows of NaN, or of a cosine or numbers that became 0 however small they were."""
    return f.naive.useless | f.naive.silent | fails(f.naive)


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
_OWN = "F.rms_norm (F.layer_norm, F.normalize, F.cosine_similarity)"
RULES: tuple[Rule[Facts, Any, Any], ...] = (
    *input_rules("norm", "NH84"),
    Rule(
        "NH843", "norm-eps-is-zero", _E,
        "A row of 0 is NaN: eps is 0 in the dtype, and so is the length, in PyTorch's own as well.",
        "Half precision holds nothing below 6e-8 (float16): eps = 1e-8 and 1e-12 are 0 there, and 0 / 0 is NaN.",
        "Normalise in float32, or give an eps that the dtype holds.",
        operation="norm", holds=lambda f: f.own["eps_lost"] & fails(f.fused) & ~at_fault(f), arithmetic=_eps,
        fixes=(_FLOAT32, _OWN_EPS, _ANY_EPS, _NAN_TO_NUM, _EPS),
    ),
    Rule(
        "NH844", "norm-not-finite", _E,
        "Even PyTorch's own norm is not finite, or its gradient is not.",
        "1 / length, which the gradient is made of, or the length itself is beyond the format.",
        "Normalise in float32, with an eps that bounds the gradient by 1 / eps.",
        operation="norm", holds=lambda f: fails(f.fused) & ~f.own["eps_lost"] & ~at_fault(f),
        arithmetic=says("fused", _row), fixes=(_FLOAT32, _OWN_EPS, _EPS),
    ),
    Rule(
        "NH845", "norm-square-overflow", _W,
        "The squares overflow: the output is silently 0, or NaN.",
        "x * x is beyond float16 from |x| = 256 on, so 1 / sqrt(inf) = 0 and every number of the row becomes 0.",
        "Call F.rms_norm, F.layer_norm, F.normalize or F.cosine_similarity, which square in float32.",
        operation="norm", holds=lambda f: f.own["square_overflow"] & _is_lost(f) & ~at_fault(f),
        arithmetic=_squares, fixes=_WAYS_OUT,
    ),
    Rule(
        "NH846", "naive-norm-not-finite", _W,
        "The handwritten norm is not finite, or its gradient is not.",
        "A length of 0: 0 / 0 in the value, or 1 / (2 sqrt(0)) in the gradient.",
        "Call F.rms_norm, F.layer_norm, F.normalize or F.cosine_similarity.",
        operation="norm", holds=lambda f: fails(f.naive) & ~fails(f.fused) & ~f.own["square_overflow"] & ~at_fault(f),
        arithmetic=says("naive", _row), fixes=(*_WAYS_OUT, _OWN_EPS),
    ),
    Rule(
        "NH847", "norm-silently-wrong", _W,
        "The handwritten norm is finite, and wrong in its first digit.",
        "Squares that are too small for the format are 0, and the row is divided by eps alone.",
        "Normalise in float32, as PyTorch's own does.",
        operation="norm", holds=lambda f: f.naive.useless & ~f.own["square_overflow"] & ~at_fault(f),
        arithmetic=compares("naive", _row), fixes=_WAYS_OUT,
    ),
    Rule(
        "NH848", "norm-imprecise", _N,
        "The handwritten norm is finite, and off by more than its rounding.",
        "Squares near the end of the format lose their digits.",
        "Normalise in float32, as PyTorch's own does.",
        operation="norm", holds=lambda f: f.naive.wrong & ~f.naive.useless & ~at_fault(f),
        arithmetic=compares("naive", _row), fixes=_WAYS_OUT,
    ),
    Rule(
        "NH849", "fused-norm-wrong", _W,
        "PyTorch's own norm is finite, and wrong in its first digit.",
        "The length itself is beyond the format: F.normalize divides by infinity and gives a row of 0.",
        "Normalise in float32.",
        operation="norm", holds=lambda f: f.fused.useless & ~fails(f.fused) & ~at_fault(f),
        arithmetic=compares("fused", _row), fixes=(_FLOAT32,),
    ),
)  # fmt: skip

NORM = Operation(
    name="norm",
    what="A row divided by its own size: RMS norm, layer norm, normalize (l2), cosine similarity.",
    unit="row",
    fused_call=lambda problem: CALLS[problem.options.norm],
    roles=(
        Role(
            "hidden_states", r"(.*[_-])?hidden([_-]states?)?|(.*[_-])?(embeddings?|features?|activations?)", FLOATING,
            dimensions=1, what="(..., size) float", gradient="unit",
        ),
        Role(
            "weight", r"(.*[_-])?(weight|gamma|scale)", FLOATING, required=False,
            what="(size,) float; for --norm cosine the vectors to compare with",
        ),
    ),
    options=NormOptions,
    plan=plan,
    forms={"naive": naive, "in-float32": in_single, "fused": fused},
    truth=truth,
    facts=facts,
    rules=RULES,
    slots=slots,
    screen=screen,
    scale=scale,
    shapes={"hidden_states": (32, 64)},
)  # fmt: skip
