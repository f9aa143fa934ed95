"""InfoNCE: the cross entropy of similarities divided by a temperature, a row for each example of the batch.

Labels of similarities are columns, as CLIP and MoCo have them; labels of features are classes, and a row's positives
are all others of its class, over which -log p is averaged (Khosla et al. 2020, arXiv:2004.11362, eq. 2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nanhunt.errors import NanhuntError
from nanhunt.load.roles import Role
from nanhunt.load.tensor import FLOATING, INTEGER, Tensor
from nanhunt.operations.fix import Fix
from nanhunt.operations.operation import Block, Facts, Made, Operation, Plan, Sliced, Unit
from nanhunt.operations.options import LossOptions, TemperatureOptions
from nanhunt.operations.rule import Rule
from nanhunt.operations.usual import at_fault, fails, in_float32, input_rules, numpy_of, says, wrong_rules
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    import torch

    from nanhunt.operations.operation import Bools, Tensors


@dataclass(frozen=True, kw_only=True)
class ContrastiveOptions(TemperatureOptions, LossOptions):
    """Contrastive losses."""


def plan(shapes: Mapping[str, tuple[int, ...]], options: ContrastiveOptions) -> Plan:
    """Similarities (N, M), or features (N, D) that are compared with each other; labels (N,): columns, or classes.

    Without labels row i's positive is column i of similarities, and of features, two views of N / 2 examples one
    after the other, row i + N / 2. Raises NanhuntError for shapes that do not fit.
    """
    main = shapes.get("sim", shapes.get("features", ()))
    labels = shapes.get("labels")
    views = "sim" not in shapes and labels is None and len(main) == 2 and main[0] % 2
    wide = "sim" in shapes and labels is None and len(main) == 2 and main[0] > main[1]
    if len(main) != 2 or labels not in (None, main[:1]) or views or wide:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise NanhuntError(
            f"--op contrastive: these shapes do not fit: {told}.",
            "sim (N, M) or features (N, D), labels (N,); without labels features are two views, N / 2 rows each.",
        )
    if "sim" in shapes:
        own = {"sim": Sliced(main, 1)}
        return Plan(main[:1], (), own if labels is None else {**own, "labels": Sliced(labels, 0)})
    return Plan((), main[:1], {name: Sliced(shape, len(shape)) for name, shape in shapes.items()})


def diagonal(tensors: Mapping[str, Tensor], dtype: str, options: ContrastiveOptions) -> Mapping[str, Made]:
    """The labels of similarities that have none: row i's positive is column i."""
    if "labels" in tensors or "sim" not in tensors or not tensors["sim"].shape:
        return {}
    import torch

    from nanhunt.load.memory import tensor_of

    code = "torch.arange(len(sim))"
    return {"labels": Made(tensor_of(torch.arange(tensors["sim"].shape[0]), code), code)}


def sim_of(t: Tensors) -> torch.Tensor:
    """(rows, M) as given; of features (1, N, N) with -inf where a row meets itself."""
    import torch

    if "sim" in t:
        return t["sim"]
    x = t["features"]
    return (x @ x.mT).masked_fill(torch.eye(x.shape[-2], dtype=torch.bool), -math.inf)


def _positives(t: Tensors) -> torch.Tensor | None:
    """Features with classes: (rows, M) bool, the others of each row's class. None where a row has one positive."""
    import torch

    if "positives" in t:
        return t["positives"]
    if "sim" in t or "labels" not in t:
        return None
    labels = t["labels"]
    same = labels[..., :, None] == labels[..., None, :]
    return same & ~torch.eye(labels.shape[-1], dtype=torch.bool)


def _given_labels(t: Tensors) -> torch.Tensor:
    """(rows,) or (1, N), as given, or the other half of the features."""
    import torch

    if "labels" in t:
        return t["labels"].long()
    rows = t["features"].shape[-2]
    return (torch.arange(rows)[None] + rows // 2) % rows


def labels_of(t: Tensors) -> torch.Tensor:
    """The column of each row's positive; one that is out of range has a finding of its own."""
    return _given_labels(t).clamp(0, sim_of(t).shape[-1] - 1)


def _scores(t: Tensors, options: ContrastiveOptions) -> torch.Tensor:
    return sim_of(t) / options.temperature


def _has_positive(t: Tensors) -> torch.Tensor:
    """Whether the label is a column, or another row has it."""
    positives = _positives(t)
    return _given_labels(t) == labels_of(t) if positives is None else positives.any(-1)


def _picked(t: Tensors, rows: torch.Tensor) -> torch.Tensor:
    """The entry of each row's positive, or the mean of several; NaN for a row without one, which is to blame itself."""
    import torch

    positives = _positives(t)
    if positives is not None:
        return torch.where(positives, rows, 0.0).sum(-1) / positives.sum(-1)
    return torch.where(_has_positive(t), rows.gather(-1, labels_of(t)[..., None])[..., 0], math.nan)


def naive(t: Tensors, options: ContrastiveOptions) -> torch.Tensor:
    """e = exp(sim / t); -log(e[positive] / e.sum(-1)), of several positives the mean."""
    import torch

    e, positives = _scores(t, options).exp(), _positives(t)
    if positives is not None:
        return -_picked(t, torch.where(positives, e / e.sum(-1, keepdim=True), 1.0).log())
    return -(_picked(t, e) / e.sum(-1)).log()


def max_with_self(t: Tensors, options: ContrastiveOptions) -> torch.Tensor:
    """The row's maximum subtracted, that of a row and itself among it, as SupCon writes it; self masked after exp."""
    import torch

    if "sim" in t:
        scores = _scores(t, options)
        scores = scores - scores.detach().amax(-1, keepdim=True)
        return scores.exp().sum(-1).log() - _picked(t, scores)
    x = t["features"]
    scores = x @ x.mT / options.temperature
    scores = scores - scores.detach().amax(-1, keepdim=True)
    others = ~torch.eye(x.shape[-2], dtype=torch.bool)
    return (scores.exp() * others).sum(-1).log() - _picked(t, scores)


def fused(t: Tensors, options: ContrastiveOptions) -> torch.Tensor:
    """F.cross_entropy(sim / t, positives), self masked with -inf before it; of several positives F.log_softmax."""
    import torch.nn.functional as F

    if _positives(t) is not None:
        return -_picked(t, _scores(t, options).log_softmax(-1))
    return F.cross_entropy(_scores(t, options).movedim(-1, 1), labels_of(t), reduction="none")


def truth(t: Tensors, options: ContrastiveOptions) -> torch.Tensor:
    """float64; the maximum first and the others through log1p, so that a small loss keeps its digits."""
    import torch

    scores = _scores(t, options)
    largest, at = scores.max(-1, keepdim=True)
    others = (scores - largest).exp().scatter(-1, at, 0.0).sum(-1)
    return (largest[..., 0] - _picked(t, scores)) + torch.log1p(others)


def isolate(t: Tensors, options: ContrastiveOptions, row: int) -> tuple[Tensors, ContrastiveOptions]:
    """One row of similarities and its positive."""
    if "sim" in t:
        return t, options
    positives = _positives(t)
    one = {"features": t["features"], "sim": sim_of(t)[:, row]}
    if positives is not None:
        return {**one, "positives": positives[:, row]}, options
    return {**one, "labels": labels_of(t)[:, row]}, options


def facts(block: Block) -> dict[str, Bools]:
    """not_finite, cast_overflow, no_positive, scaled_overflow, exp_overflow: each bool (rows,)."""
    t, stored, options = block.cast, block.stored, block.options
    main = "sim" if "sim" in t else "features"
    masks = main == "sim"  # there -inf leaves a pair out
    bad = stored[main].isnan() | (stored[main].isposinf() if masks else stored[main].isinf())
    lost = stored[main].isfinite() & (t[main].isposinf() if masks else t[main].isinf())
    sim = sim_of(t)
    return numpy_of({
        "not_finite": _touched(bad, masks),
        "cast_overflow": _touched(lost, masks) & ~_touched(bad, masks),
        "no_positive": ~_has_positive(t) | (_picked(t, sim) == -math.inf),
        "scaled_overflow": (_scores(t, options).isinf() & ~sim.isneginf()).any(-1),
        "exp_overflow": _scores(t, options).exp().sum(-1).isinf(),
    })  # fmt: skip


def _touched(bad: torch.Tensor, masks: bool) -> torch.Tensor:
    """Rows that a bad number has a part in: its own of similarities, all of features."""
    return bad.any(-1) if masks else bad.any(-1).any(-1, keepdim=True).expand(bad.shape[:-1]).contiguous()


def _input(f: Facts) -> Bools:
    return at_fault(f) | f.own["no_positive"]


def _row(unit: Unit) -> str:
    row = unit.cast["sim"].double().reshape(-1)
    kept = row[row.isfinite()]
    if not kept.numel():
        return f"none of {row.numel():,} similarities is finite"
    positives = _positives(unit.cast)
    many = positives is not None and int(positives.sum()) > 1
    said = "the mean of its positives" if many else "the positive"
    return (
        f"{kept.numel():,} similarities from {kept.min():.6g} to {kept.max():.6g}, "
        f"{said} {float(_picked(unit.cast, unit.cast['sim'])):.6g}, t = {unit.options.temperature:g}"
    )


def _label(unit: Unit) -> str:
    if "positives" in unit.stored:
        return f"none of the other {unit.stored['positives'].shape[-1] - 1:,} rows has its label"
    return f"the positive is column {int(unit.stored['labels'].reshape(-1)[0])} of {unit.stored['sim'].shape[-1]:,}"


def slots(problem: Any) -> Mapping[str, str]:
    """What the templates below hold for the user's tensors and options."""
    features, labelled = "sim" not in problem.tensors, "labels" in problem.tensors
    product = "sim = features{cast} @ features{cast}.mT\n"
    masked = "sim = sim.masked_fill(torch.eye(len(sim), dtype=torch.bool), -torch.inf)\n"
    halves = "(torch.arange(len(sim)) + len(sim) // 2) % len(sim)"
    sim, t = "sim" if features else "sim{cast}", repr(problem.options.temperature)
    options = ', reduction="sum"' if problem.reduction == "sum" else ""
    labels = "labels.long()" if labelled else halves
    common = {
        "given": product + masked if features else "",
        "sim": sim,
        "t": t,
        "reduction": problem.reduction,
    }
    if not (features and labelled):
        return {
            **common, "fused": f"loss = F.cross_entropy({sim} / {t}, {labels}{options})",
            "positive": f"positive = torch.arange(len(sim)), {labels}\n", "p": "e[positive] / e.sum(-1)", "average": "",
        }  # fmt: skip
    positive = "positive = (labels[:, None] == labels).fill_diagonal_(False)\n"
    average = ".sum(-1) / positive.sum(-1)"
    fused = f"log_p = ({sim} / {t}).log_softmax(-1)\nlosses = -torch.where(positive, log_p, 0.0){average}\n"
    return {
        **common, "fused": f"{positive}{fused}loss = losses.{problem.reduction}()", "positive": positive,
        "p": "torch.where(positive, e / e.sum(-1, keepdim=True), 1.0)", "average": average,
    }  # fmt: skip


def _has_columns(problem: Any) -> bool:
    """Whether each row has one positive, which F.cross_entropy takes; of several log_softmax is averaged."""
    return "sim" in problem.tensors or "labels" not in problem.tensors


def fused_call(problem: Any) -> str:
    """How the fused form is called."""
    return "F.cross_entropy(sim / t, labels)" if _has_columns(problem) else "F.log_softmax(sim / t)"


_FUSED: Fix[Any] = Fix("F.cross_entropy on sim / t", "{given}{fused}", when=_has_columns)
_FUSED_CLASSES: Fix[Any] = Fix(
    "F.log_softmax on sim / t", "{given}{fused}", when=lambda problem: not _has_columns(problem)
)
_FLOAT32 = in_float32("similarities", "{given}{fused}")
_E = "{given}{positive}e = ({sim} / {t}).exp()\n"
_LOSS = "loss = losses.{reduction}()"
_EPS: Fix[Any] = Fix("log(p + 1e-8)", _E + "losses = -({p} + 1e-8).log(){average}\n" + _LOSS, tempting=True)
_CLAMP: Fix[Any] = Fix(
    "clamp sim / t at 80",
    "{given}{positive}e = ({sim} / {t}).clamp(max=80.0).exp()\nlosses = -({p}).log(){average}\n" + _LOSS,
    changes="all similarities beyond it count alike, and have no gradient", tempting=True,
)  # fmt: skip
_NAN_TO_NUM: Fix[Any] = Fix(
    "nan_to_num on the loss",
    _E + "losses = torch.nan_to_num(-({p}).log(){average}, nan=0.0, posinf=0.0)\n" + _LOSS,
    tempting=True,
)
_RIGHT = (_FUSED, _FUSED_CLASSES, _FLOAT32)
_WAYS_OUT = (*_RIGHT, _EPS, _CLAMP, _NAN_TO_NUM)

_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
RULES: tuple[Rule[Facts, Any, Any], ...] = (
    *input_rules("contrastive", "NH90", masks=["sim"]),
    Rule(
        "NH903", "contrastive-without-positive", _E,
        "The row's positive is masked, its label is no column, or none of the other features has it.",
        "-log p of a similarity of -inf is infinite in truth; a label out of range raises or reads another row; a mean "
        "over no positives is 0 / 0.",
        "Give each row a positive among its columns, and mask only the others.",
        operation="contrastive", holds=lambda f: f.own["no_positive"] & ~at_fault(f), arithmetic=_label,
        input_at_fault=True,
    ),
    Rule(
        "NH904", "contrastive-not-finite", _E,
        "Even F.cross_entropy on sim / t is not finite, or its gradient is not.",
        "The product of the features, or its quotient by the temperature, leaves the dtype.",
        "Normalise the features first, and compute the similarities in float32.",
        operation="contrastive", holds=lambda f: fails(f.fused) & ~_input(f), arithmetic=says("fused", _row),
        fixes=(_FLOAT32,),
    ),
    Rule(
        "NH905", "temperature-overflow", _W,
        "exp(sim / t) overflows.",
        "A similarity of 1 divided by t = 0.07 is 14.3, beyond float16; by t = 0.01 it is 100, beyond float32.",
        "Call F.cross_entropy on sim / t: it subtracts the row's maximum first.",
        operation="contrastive", holds=lambda f: f.own["exp_overflow"] & fails(f.naive) & ~fails(f.fused) & ~_input(f),
        arithmetic=says("naive", _row), fixes=_WAYS_OUT,
    ),
    Rule(
        "NH906", "naive-contrastive-not-finite", _W,
        "The handwritten loss is infinite or NaN, or its gradient is.",
        "The positive's share of the sum underflows to 0, and -log 0 is infinite.",
        "Call F.cross_entropy on sim / t.",
        operation="contrastive",
        holds=lambda f: ~f.own["exp_overflow"] & fails(f.naive) & ~fails(f.fused) & ~_input(f),
        arithmetic=says("naive", _row), fixes=_WAYS_OUT,
    ),
    Rule(
        "NH907", "maximum-of-self", _W,
        "With the similarity of a row and itself in the row's maximum, all others underflow: log 0.",
        "1 / t is subtracted from every entry, and the only one that it suits is masked afterwards.",
        "Mask the diagonal with -inf before the maximum is taken, or call F.cross_entropy.",
        operation="contrastive",
        holds=lambda f: fails(f.by["max-with-self"]) & ~fails(f.naive) & ~fails(f.fused) & ~_input(f),
        arithmetic=says("max-with-self", _row), fixes=_RIGHT,
    ),
    *wrong_rules(
        "contrastive", "NH908", "NH909", "exp(sim / t) is rounded before it is added up.",
        "Call F.cross_entropy on sim / t.", _row, *_RIGHT,
    ),
)  # fmt: skip

CONTRASTIVE = Operation(
    name="contrastive",
    what="InfoNCE: the cross entropy of similarities over a temperature (--temperature), row by row.",
    unit="row",
    fused_call=fused_call,
    roles=(
        Role(
            "sim", r"(.*[_-])?sim(ilarit(y|ies))?([_-]matrix)?|logits[_-]per[_-](image|text)", FLOATING, dimensions=2,
            required=False, replaces=("features",),
            what="(N, M) float: similarities before the temperature, -inf for what is masked", gradient="unit",
        ),
        Role(
            "features", r"(.*[_-])?(features?|embeddings?|projections?|z)", FLOATING, dimensions=2,
            what="(N, D) float: compared with each other, a row never with itself", gradient="group",
        ),
        Role(
            "labels", r"(.*[_-])?(labels?|positives?|targets?)", INTEGER, required=False,
            what="(N,) the column of each row's positive, of features its class; default: the diagonal, the other half",
        ),
    ),
    options=ContrastiveOptions,
    plan=plan,
    supplied=diagonal,
    forms={"naive": naive, "max-with-self": max_with_self, "fused": fused},
    truth=truth,
    facts=facts,
    rules=RULES,
    slots=slots,
    isolate=isolate,
    reduces=True,
    shapes={"sim": (8, 8), "labels": (8,)},
)  # fmt: skip
