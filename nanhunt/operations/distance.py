"""The distance of two vectors, or the length of one, row by row: its root has no gradient at 0."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from nanhunt.errors import NanhuntError
from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING
from nanhunt.operations.distance_options import DistanceOptions
from nanhunt.operations.fix import Fix
from nanhunt.operations.operation import Block, Facts, Operation, Plan, Sliced, Unit
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
)
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Bools, Tensors


def plan(shapes: Mapping[str, tuple[int, ...]], options: DistanceOptions) -> Plan:
    """Every row of a, (..., size), is a unit of its own; b has its shape, or is one vector, (size,).

    Raises NanhuntError for any other b.
    """
    a, b = shapes["a"], shapes.get("b")
    if not a or b not in (None, a, a[-1:]):
        raise NanhuntError(
            f"--op distance: a of shape {a} and b of shape {b} do not fit.",
            "a is (..., size); b has the same shape, or is one vector for all, (size,).",
        )
    sliced = {"a": Sliced(a, 1)}
    if b is not None:
        sliced["b"] = Sliced((*(1,) * (len(a) - len(b)), *b), 1)
    return Plan(a[:-1], (), sliced)


def difference(t: Tensors) -> torch.Tensor:
    """a - b, or a where there is no b."""
    return t["a"] - t["b"] if "b" in t else t["a"]


def _sum(t: Tensors, options: DistanceOptions) -> torch.Tensor:
    d = difference(t)
    return (d.pow(2) if options.p == 2 else d.abs().pow(options.p)).sum(-1)


def _root(total: torch.Tensor, options: DistanceOptions) -> torch.Tensor:
    return total.sqrt() if options.p == 2 else total.pow(1 / options.p)


def naive(t: Tensors, options: DistanceOptions) -> torch.Tensor:
    """(a - b).pow(2).sum(-1).sqrt(), or .abs().pow(p).sum(-1).pow(1 / p)."""
    return _root(_sum(t, options), options)


def where_outside(t: Tensors, options: DistanceOptions) -> torch.Tensor:
    """torch.where(s > 0, s.sqrt(), 0): the gradient of the root is still taken at 0."""
    import torch

    total = _sum(t, options)
    return torch.where(total > 0, _root(total, options), 0.0)


def where_inside(t: Tensors, options: DistanceOptions) -> torch.Tensor:
    """torch.where(s > 0, torch.where(s > 0, s, 1).sqrt(), 0)."""
    import torch

    total = _sum(t, options)
    return torch.where(total > 0, _root(torch.where(total > 0, total, 1.0), options), 0.0)


def with_eps(t: Tensors, options: DistanceOptions) -> torch.Tensor:
    """(s + 1e-12).sqrt()."""
    return _root(_sum(t, options) + 1e-12, options)


def cdist(t: Tensors, options: DistanceOptions) -> torch.Tensor:
    """torch.cdist(a, b, p), of which a row is the distance of two vectors."""
    import torch

    return torch.cdist(t["a"][:, None], t["b"][:, None], options.p)[:, 0, 0]


def unused(problem: Any) -> Collection[str]:
    """PyTorch's cdist takes two tensors, and neither half nor bfloat16 on a CPU."""
    return ("cdist",) if problem.narrow or "b" not in problem.tensors else ()


def fused(t: Tensors, options: DistanceOptions) -> torch.Tensor:
    """torch.linalg.vector_norm(a - b, ord=p, dim=-1), as torch.norm."""
    import torch

    found: torch.Tensor = torch.linalg.vector_norm(difference(t), ord=options.p, dim=-1)
    return found


def truth(t: Tensors, options: DistanceOptions) -> torch.Tensor:
    """The largest |a - b| taken out first, float64; a distance of 0 has gradient 0, as PyTorch's own has it."""
    import torch

    d = difference(t).abs()
    largest = d.detach().amax(-1, keepdim=True)
    same = largest == 0
    parts = d / torch.where(same, 1.0, largest)
    total = torch.where(same, 1.0, parts.pow(options.p).sum(-1, keepdim=True))
    return torch.where(same, 0.0, largest * total.pow(1 / options.p))[..., 0]


def scale(t: Tensors, true: torch.Tensor, options: DistanceOptions) -> torch.Tensor:
    """The distance itself."""
    return true.abs()


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, zero, power_overflow: each bool (rows,)."""
    d = difference(block.cast)
    total = d.abs().pow(block.options.p).sum(-1)
    found = input_facts(block, list(block.cast))
    return numpy_of({**found, "zero": (d == 0).all(-1), "power_overflow": total.isinf()})


def _row(unit: Unit) -> str:
    d = difference({name: each.double() for name, each in unit.cast.items()}).abs()
    return f"{d.numel():,} differences, the largest {d.max():.6g}"


def slots(problem: Any) -> Mapping[str, str]:
    """What the templates below hold for the user's tensors and options."""
    p, euclid = problem.options.p, problem.options.p == 2
    return {
        "d": "a{cast} - b{cast}" if "b" in problem.tensors else "a{cast}",
        "sum": "d.pow(2).sum(-1)" if euclid else f"d.abs().pow({p!r}).sum(-1)",
        "root": ".sqrt()" if euclid else f".pow({1 / p!r})",
        "p": repr(p),
    }


_CODE = "output = torch.linalg.vector_norm({d}, ord={p}, dim=-1)"
_FUSED: Fix[Any] = Fix("torch.linalg.vector_norm", _CODE)
_FLOAT32 = in_float32("distance", _CODE)
_WHERE: Fix[Any] = Fix(
    "where on the input of the root, and on its result",
    "d = {d}\ns = {sum}\noutput = torch.where(s > 0, torch.where(s > 0, s, 1.0){root}, 0.0)",
)
_SCALED: Fix[Any] = Fix(
    "divide by the largest difference first",
    "d = {d}\nlargest = d.detach().abs().amax(-1, keepdim=True).clamp(min=torch.finfo(d.dtype).tiny)\n"
    "output = largest[..., 0] * torch.linalg.vector_norm(d / largest, ord={p}, dim=-1)",
)
_WHERE_OUTSIDE: Fix[Any] = Fix(
    "where around the root", "d = {d}\ns = {sum}\noutput = torch.where(s > 0, s{root}, 0.0)", tempting=True
)
_NAN_TO_NUM: Fix[Any] = Fix(
    "nan_to_num on the distance", "d = {d}\ns = {sum}\noutput = torch.nan_to_num(s{root})", tempting=True
)
_EPS: Fix[Any] = Fix(
    "s + 1e-12",
    "d = {d}\ns = {sum}\noutput = (s + 1e-12){root}",
    tempting=True,
    changes="1e-12 is added under the root",
)
_CLAMP: Fix[Any] = Fix("s.clamp(min=0)", "d = {d}\ns = {sum}\noutput = s.clamp(min=0.0){root}", tempting=True)
_WAYS_OUT = (_FUSED, _WHERE, _SCALED, _WHERE_OUTSIDE, _CLAMP, _EPS, _NAN_TO_NUM)

_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
RULES: tuple[Rule[Facts, Any, Any], ...] = (
    *input_rules("distance", "NH87"),
    Rule(
        "NH873", "distance-not-finite", _E,
        "Even torch.linalg.vector_norm is not finite, or its gradient is not.",
        "The powers of the differences overflow what they are added up in.",
        "Divide by the largest difference first, and multiply the result by it.",
        operation="distance", holds=lambda f: fails(f.fused) & ~at_fault(f), arithmetic=says("fused", _row),
        fixes=(_FLOAT32, _SCALED),
    ),
    Rule(
        "NH874", "zero-distance", _W,
        "The distance is 0: the value is right, the gradient is NaN.",
        "The derivative of the root is 1 / (2 sqrt(0)) = inf, and 0 * inf is NaN; a where around the root comes too "
        "late for it.",
        "Call torch.linalg.vector_norm, or replace the input of the root by 1 where it is 0.",
        operation="distance", holds=lambda f: f.own["zero"] & fails(f.naive) & ~at_fault(f),
        arithmetic=says("naive", _row), fixes=_WAYS_OUT,
    ),
    Rule(
        "NH875", "distance-overflow", _W,
        "The powers of the differences overflow, the distance would not.",
        "x * x is beyond float16 from |x| = 256 on; torch.linalg.vector_norm adds up in float32.",
        "Call torch.linalg.vector_norm.",
        operation="distance", holds=lambda f: f.own["power_overflow"] & fails(f.naive) & ~fails(f.fused) & ~at_fault(f),
        arithmetic=says("naive", _row), fixes=_WAYS_OUT,
    ),
    Rule(
        "NH876", "distance-underflow", _W,
        "The distance is not 0, but its squares are: the value is 0, the gradient NaN, infinite or 0.",
        "The square of a small difference is below the format's smallest number.",
        "Call torch.linalg.vector_norm; in float32, or divide by the largest difference first.",
        operation="distance",
        holds=lambda f: (fails(f.naive) | f.naive.useless) & ~f.own["zero"] & ~f.own["power_overflow"] & ~at_fault(f),
        arithmetic=says("naive", _row), fixes=_WAYS_OUT,
    ),
    Rule(
        "NH877", "fused-distance-wrong", _W,
        "torch.linalg.vector_norm is finite, and wrong in its first digit.",
        "It squares as well, in float32: below 1e-23 the squares are lost.",
        "Divide by the largest difference first, and multiply the result by it.",
        operation="distance", holds=lambda f: f.fused.useless & ~at_fault(f), arithmetic=compares("fused", _row),
        fixes=(_SCALED,),
    ),
    Rule(
        "NH878", "distance-imprecise", _N,
        "The handwritten distance is finite, and off by more than its rounding.",
        "Squares below the format's smallest normal number lose their digits.",
        "Call torch.linalg.vector_norm.",
        operation="distance", holds=lambda f: f.naive.wrong & ~f.naive.useless & ~at_fault(f),
        arithmetic=compares("naive", _row), fixes=(_FUSED, _SCALED),
    ),
)  # fmt: skip

DISTANCE = Operation(
    name="distance",
    what="The distance of two vectors, or the length of one: (|a - b|^p).sum(-1)^(1/p), row by row.",
    unit="row",
    fused_call="torch.linalg.vector_norm",
    roles=(
        Role(
            "a", r"a|x1?|(.*[_-])?(embeddings?|anchors?|features?)", FLOATING, dimensions=1,
            what="(..., size) float", gradient="unit",
        ),
        Role(
            "b", r"b|y|x2|(.*[_-])?(positives?|negatives?|prototypes?|centers?|centroids?)", FLOATING, required=False,
            what="a's shape or (size,): what is subtracted",
        ),
    ),
    options=DistanceOptions,
    plan=plan,
    forms={
        "naive": naive, "where-outside": where_outside, "where-inside": where_inside, "with-eps": with_eps,
        "cdist": cdist, "fused": fused,
    },
    unused=unused,
    truth=truth,
    facts=facts,
    rules=RULES,
    slots=slots,
    scale=scale,
    shapes={"a": (32, 64), "b": (32, 64)},
)  # fmt: skip
