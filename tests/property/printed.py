"""Every printed fix, run by other code than nanhunt's: random problems, the text of the report, PyTorch's own losses.

Nothing of nanhunt's is imported but ``check``. The right loss is F.cross_entropy in float64 on the rows that the
fix's title says it counts; where the title says nothing, on all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import nanhunt
from nanhunt.results.finding import Finding, RemedyResult
from nanhunt.results.tensor import TensorReport

INF = math.inf
DTYPES = ("float32", "float16", "bfloat16", "float64")
LEADING = ((1,), (3,), (6,), (2, 3), (3, 2), (40,), ())
CLASSES = (2, 3, 5, 17)
OWN_INPUT = {"NH001", "NH002", "NH003", "NH004", "NH006", "NH007", "NH008", "NH009"}
"""Rules whose fixes are tried on rows with a fault in the input."""
EDGE = (0.8, 1.25)
"""A mean loss this near to the limit of a wrong one is on either side of it by what stands in for other bad rows."""


@dataclass
class Case:
    """Tensors and options of one problem."""

    rows: torch.Tensor
    """(rows, classes) as stored"""
    y: torch.Tensor | None
    """(rows,) labels, or (rows, classes)"""
    leading: tuple[int, ...]
    axis: int
    dtype: str
    weight: torch.Tensor | None
    options: dict[str, Any]

    def laid_out(self, rows: torch.Tensor, leading: tuple[int, ...]) -> torch.Tensor:
        return rows.reshape(*leading, rows.shape[-1]).movedim(-1, self.axis).contiguous()

    def targets(self, y: torch.Tensor, leading: tuple[int, ...]) -> torch.Tensor:
        return self.laid_out(y, leading) if y.is_floating_point() else y.reshape(leading)


def draw(random: np.random.Generator) -> Case:
    """Logits of every kind of trouble, in some layout, under some options."""
    leading = LEADING[random.integers(len(LEADING))]
    count, classes = math.prod(leading), int(random.choice(CLASSES))
    stored = str(random.choice(DTYPES))
    dtype = stored if random.random() < 0.8 else str(random.choice(DTYPES))
    rows = torch.tensor(np.stack([_row(random, classes, dtype) for _ in range(count)]))
    axis = int(random.integers(len(leading) + 1)) if random.random() < 0.5 else -1
    options: dict[str, Any] = {"class_axis": axis}
    for name, values in (
        ("label_smoothing", (0.1, 0.5)), ("temperature", (0.5, 2.0, 0.01)), ("reduction", ("sum",)),
        ("ignore_index", (0, 255, -1)),
    ):  # fmt: skip
        if random.random() < 0.2:
            options[name] = values[random.integers(len(values))]
    y = _targets(random, count, classes, options.get("ignore_index", -100))
    weight = None
    if y is not None and random.random() < 0.2:
        weight = torch.tensor(random.choice([0.0, 0.5, 1.0, 3.0], classes), dtype=torch.float32)
    return Case(rows.to(getattr(torch, stored)), y, leading, axis, dtype, weight, options)


def _row(random: np.random.Generator, classes: int, dtype: str) -> np.ndarray:
    limit = {"float16": 11.0, "float64": 709.0}.get(dtype, 88.0)
    row = random.normal(size=classes)
    kind = random.integers(12)
    at = random.integers(classes)
    if kind == 0:
        row[at] = limit * random.uniform(0.9, 3)
    elif kind == 1:
        row -= limit * random.uniform(1, 3)
    elif kind == 2:
        row[at] -= limit * random.uniform(0.9, 1.8)
    elif kind == 3:
        row[at] += random.uniform(3, 40)
    elif kind == 4:
        row[random.random(classes) < 0.5] = -INF
    elif kind == 5:
        row[at] = (math.nan, INF, -INF)[random.integers(3)]
    elif kind == 6:
        row[:] = -INF
    elif kind == 7:
        row = row + 10.0 ** random.uniform(2, 4.6)
    elif kind == 8:
        row += limit - random.uniform(-1, 1)
    return row


def _targets(random: np.random.Generator, count: int, classes: int, ignored: int) -> torch.Tensor | None:
    kind = random.random()
    if kind < 0.1:
        return None
    if kind < 0.25:
        y = random.dirichlet(np.full(classes, 0.5), count)
        y[random.random(y.shape) < 0.2] = 0.0
        y[y.sum(-1) == 0, 0] = 1.0
        return torch.tensor(y / y.sum(-1, keepdims=True), dtype=torch.float32)
    labels = random.integers(0, classes, count)
    if random.random() < 0.3:
        labels[random.random(count) < 0.4] = ignored
    if random.random() < 0.03:
        labels[:] = ignored
    if random.random() < 0.1:
        labels[random.integers(count)] = classes + 1
    return torch.tensor(labels)


@dataclass
class Printed:
    """One fix of a report, with what it was printed for."""

    case: Case
    finding: Finding
    remedy: RemedyResult
    tensor: TensorReport

    def __str__(self) -> str:
        return f"{self.finding.code} {self.remedy}\n{self.case}"


def printed(case: Case) -> Iterator[Printed]:
    """All fixes of the report on one problem."""
    y = None if case.y is None else case.targets(case.y, case.leading)
    weight = {} if case.weight is None else {"class_weights": case.weight}
    try:
        report = nanhunt.check(
            case.laid_out(case.rows, case.leading),
            y,
            case.dtype,
            max_rows=1000,
            scaling="none",
            **weight,
            **case.options,
        )
    except nanhunt.NanhuntError:  # e.g. labels that nobody can align
        return
    for tensor in report.tensors:
        for finding in tensor.findings:
            for remedy in finding.remedies:
                yield Printed(case, finding, remedy, tensor)


# ---------------------------------------------------------------------------------------------- the right answer


def wrong(one: Printed) -> str:
    """What is not as the report says; "" for a true one."""
    case, remedy = one.case, one.remedy
    whole = torch.arange(len(case.rows))
    failing = torch.tensor(one.finding.rows)
    failing = failing[sound(case, failing, one.finding.code)]
    if len(failing) != remedy.rows:
        return f"run on {remedy.rows} rows, of {len(failing)} that are sound"
    code = one.finding.code
    if sound_label(case) is None and bool(spoilt(case, failing).any()):
        return ""  # nothing can stand in the place of the rows that fail whatever one does
    found = observe(case, remedy, whole, spoilt(case, failing), case.leading, failing, code)
    if not remedy.works:
        found = found or alone(case, remedy, failing, code)
        if found == remedy.outcome:
            return ""
        edge = {
            observe(case, remedy, whole, spoilt(case, failing), case.leading, failing, code, by)
            for by in EDGE
        }
        return "" if len(edge) > 1 and remedy.outcome in edge else f"seen: {found!r}"
    if found:
        return f"on the whole tensor: {found}"
    if len(case.leading) and not no_mean(case) and sound_label(case) is not None:
        line = (*(1,) * (len(case.leading) - 1), len(failing) + 2)
        numbers = torch.cat([failing, failing[:1], failing[:1]])
        beside = torch.arange(len(numbers)) >= len(failing)
        found = observe(case, remedy, numbers, beside, line, torch.arange(len(failing)), code)
        if found:
            return f"on the failing rows and two healthy ones: {found}"
    return ""


def alone(case: Case, remedy: RemedyResult, failing: torch.Tensor, code: str) -> str:
    """The first thing that goes wrong when the failing rows are run each by itself."""
    none, line = torch.zeros(1, dtype=torch.bool), (1,) * len(case.leading)
    rows = [row[None] for row in failing[:4] if not no_mean(case, row[None])]
    seen = (observe(case, remedy, row, none, line, torch.arange(1), code) for row in rows)
    return next(filter(None, seen), "")


def given(case: Case) -> torch.Tensor:
    """The rows as judged."""
    return case.rows.to(getattr(torch, case.dtype))


def sound(case: Case, rows: torch.Tensor, code: str) -> torch.Tensor:
    """bool: rows whose input lets a fix help."""
    x = given(case)[rows]
    finite = x.amax(-1).isfinite()
    if code in ("NH006", "NH009"):
        return finite
    if code in OWN_INPUT - {"NH007"}:
        return torch.ones(len(rows), dtype=torch.bool)
    return finite & ~label_masked(x, case.y, rows, case)


def label_masked(x: torch.Tensor, y: torch.Tensor | None, rows: torch.Tensor, case: Case) -> torch.Tensor:
    none = torch.zeros(len(rows), dtype=torch.bool)
    if y is None:  # the least likely class is never a masked one, but for rows of nothing else
        return none
    if y.is_floating_point():
        return none
    label = y[rows]
    counts = kept(label, case)
    return counts & (x.gather(-1, label.where(counts, 0)[:, None])[:, 0] == -INF)


def kept(label: torch.Tensor, case: Case) -> torch.Tensor:
    return (label != case.options.get("ignore_index", -100)) & (label >= 0) & (label < case.rows.shape[-1])


def no_mean(case: Case, rows: torch.Tensor | slice = slice(None)) -> bool:
    """Whether the mean over those rows, by default the whole tensor, divides by 0."""
    if case.y is None or case.y.is_floating_point() or case.options.get("reduction") == "sum":
        return False
    y = case.y[rows]
    counts = kept(y, case)
    total = counts.sum() if case.weight is None else case.weight[y[counts]].sum()
    return float(total) == 0


def sound_label(case: Case) -> int | None:
    usable = [
        label for label in range(case.rows.shape[-1])
        if label != case.options.get("ignore_index", -100) and (case.weight is None or case.weight[label] > 0)
    ]  # fmt: skip
    return usable[0] if usable else None


def spoilt(case: Case, failing: torch.Tensor) -> torch.Tensor:
    """bool (rows,): rows that fail whatever one does to the failing ones."""
    x = given(case).double() / case.options.get("temperature", 1.0)
    bad = ~given(case).amax(-1).isfinite() | label_masked(given(case), case.y, torch.arange(len(x)), case)
    bad |= ~x.amax(-1).isfinite()
    wanted = y_of(case, case.y, x)
    if wanted is not None:
        bad |= ((x == -INF) & (wanted != 0)).any(-1)
        if not case.y.is_floating_point():
            bad |= ~kept(case.y, case) & (case.y != case.options.get("ignore_index", -100))
        else:
            bad |= (x == -INF).any(-1)  # 0 * -inf in F.cross_entropy
    bad[failing] = False
    return bad


def y_of(case: Case, y: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor | None:
    """(rows, classes): what the loss wants, weighted and smoothed; 0 in rows that are left out."""
    if y is None:
        return None
    eps, classes = case.options.get("label_smoothing", 0.0), x.shape[-1]
    if y.is_floating_point():
        hard, counts = y.double(), torch.ones(len(y), dtype=torch.bool)
    else:
        counts = kept(y, case)
        hard = F.one_hot(y.where(counts, 0), classes).double()
    wanted = hard * (1 - eps) + eps / classes
    wanted = wanted if case.weight is None else wanted * case.weight.double()
    return wanted * counts[:, None]


def observe(
    case: Case, remedy: RemedyResult, numbers: torch.Tensor, replaced: torch.Tensor,
    leading: tuple[int, ...], failing: torch.Tensor, code: str, allowed: float = 1.0,
) -> str:  # fmt: skip
    """What the text does to the rows with those numbers, in nanhunt's words; "" where all is well.

    ``allowed``: the error of the loss that is none, in units of the usual one.
    """
    stored = "do not cast" in remedy.title
    rows = (case.rows if stored else given(case))[numbers].clone()
    y = None if case.y is None else case.y[numbers].clone()
    label = sound_label(case)
    if label is not None and bool(replaced.any()):
        rows[replaced] = 0.0
        rows[replaced, label] = 0.01  # not of one number: there are fixes that leave out such rows
        ignored = torch.zeros_like(replaced)
        if y is not None and not y.is_floating_point() and leading is case.leading:
            ignored = y == case.options.get("ignore_index", -100)
        if y is not None:
            y[replaced & ~ignored] = 1.0 / rows.shape[-1] if y.is_floating_point() else label
    leaf = case.laid_out(rows, leading).requires_grad_()
    scope: dict[str, Any] = {"torch": torch, "F": F, "logits": leaf}
    if y is not None:
        scope["targets"] = case.targets(y, leading)
    if case.weight is not None:
        scope["weight"] = case.weight.clone()
    try:
        exec(remedy.snippet, scope)
    except Exception as error:
        return f"raises {type(error).__name__}: {error}".splitlines()[0]
    if "output" in scope:
        return _softmax_outcome(case, remedy, rows, scope["output"], leaf)
    if leaf.grad is None:
        scope["loss"].backward()
    assert leaf.grad is not None
    gradient = leaf.grad.movedim(case.axis, -1).reshape(rows.shape).double()
    loss, scale = scope["loss"].detach().double(), 2.0**15 if "2.0**15" in remedy.snippet else 1.0
    true, slope, size = answer(case, remedy, rows, y)
    finite = loss.isfinite()
    slack = allowed * max(
        0.01, 4 * torch.finfo(scope["loss"].dtype).eps
    )  # a sum of products in bfloat16 is 2 % off
    near = bool(
        true.isfinite() & ((loss - scale * true).abs() <= slack * max(scale, abs(scale * float(true))))
    )
    gap = (gradient - scale * slope).abs().amax(-1)
    tiny = torch.finfo(leaf.dtype).smallest_normal * torch.finfo(leaf.dtype).eps
    off = ~(gap <= 0.02 * scale * size + 4 * tiny)
    if loss.isnan():
        return "loss still NaN"
    if not finite:
        return "loss still infinite"
    if not near:
        return "loss finite but wrong"
    if gradient.isnan().any():
        return "gradient still NaN"
    if gradient.isinf().any():
        return "gradient still infinite"
    if (off & (gradient == 0).all(-1)).any():
        return "gradient 0"
    if off.any():
        return "gradient wrong"
    return (
        "" if all(trains(code, loss, gradient, slope, y, int(row)) for row in failing) else "trains no better"
    )


def trains(
    code: str,
    loss: torch.Tensor,
    gradient: torch.Tensor,
    slope: torch.Tensor,
    y: torch.Tensor | None,
    row: int,
) -> bool:
    """Whether what the rule complains of is gone: NH202 and NH302 are about gradients that are 0 in the dtype."""
    if y is None or y.is_floating_point() or code not in ("NH202", "NH302"):
        return True
    at = int(y[row])
    if code == "NH202":
        found, true = float(gradient[row, at]), float(slope[row, at])
        return float(loss) != 0 and found != 0 and abs(found - true) <= abs(true) / 2
    others = gradient[row].clone()
    others[at] = 0.0
    return bool((others != 0).any())


def _softmax_outcome(
    case: Case, remedy: RemedyResult, rows: torch.Tensor, output: torch.Tensor, leaf: torch.Tensor
) -> str:
    """A softmax: its values, and what a gradient becomes that rises from class to class."""
    x = rows.double()
    if "masked_fill" in remedy.snippet:
        x = x.masked_fill(x == -INF, -1e4 if rows.dtype == torch.float16 else -1e9)
    z = x / case.options.get("temperature", 1.0)
    true = torch.log_softmax(z, -1) if "log_softmax" in remedy.snippet else torch.softmax(z, -1)
    found = output.detach().movedim(case.axis, -1).reshape(true.shape).double()
    if found.isnan().any():
        return "softmax still NaN"
    ramp = torch.linspace(-1, 1, z.shape[-1], dtype=torch.float64).expand(z.shape)
    (output.movedim(case.axis, -1).reshape(z.shape) * ramp.to(output.dtype)).sum().backward()
    assert leaf.grad is not None
    gradient = leaf.grad.movedim(case.axis, -1).reshape(z.shape).double()
    if not gradient.isfinite().all():
        return "gradient still NaN" if gradient.isnan().any() else "gradient still infinite"
    right = (found == true) | ((found - true).abs() <= 0.01 * true.abs().clamp_min(1.0))
    if not right.all():
        return "softmax finite but wrong"
    p = torch.softmax(z, -1)
    slope = (
        ramp - p * ramp.sum(-1, keepdim=True)
        if "log_softmax" in remedy.snippet
        else p * (ramp - (p * ramp).sum(-1, keepdim=True))
    )
    slope = slope.masked_fill((x != rows.double()), 0.0) / case.options.get("temperature", 1.0)
    near = (
        0.02
        * (max(1.0, z.shape[-1] / 2) if "log_softmax" in remedy.snippet else 1.0)
        / case.options.get("temperature", 1.0)
    )
    return "" if ((gradient - slope).abs() <= near).all() else "gradient wrong"


def answer(
    case: Case, remedy: RemedyResult, rows: torch.Tensor, y: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(loss, its gradient (rows, classes), the size of a row's gradient (rows,)) in float64."""
    assert y is not None
    x, constant = rows.double(), torch.zeros(rows.shape, dtype=torch.bool)
    if "masked_fill(logits == -torch.inf" in remedy.snippet:
        constant = x == -INF
        x = x.masked_fill(constant, -1e4 if rows.dtype == torch.float16 else -1e9)
    z = x / case.options.get("temperature", 1.0)
    counts = torch.ones(len(y), dtype=torch.bool) if y.is_floating_point() else kept(y, case)
    if remedy.title == "drop fully masked rows before the loss":
        counts &= (rows > -INF).any(-1)
    if remedy.title == "leave rows of one number out of the loss":
        counts &= rows.amax(-1) != rows.amin(-1)
    if remedy.title == "ignore rows whose label is masked":
        counts &= ~label_masked(rows, y, torch.arange(len(y)), case)
    wanted = y_of(case, y, z)
    assert wanted is not None
    if remedy.title.startswith("spread the smoothing"):
        eps, allowed = case.options["label_smoothing"], x != -INF
        hard = F.one_hot(y.where(counts, 0), x.shape[-1]).double()
        wanted = hard * (1 - eps) + eps * allowed / allowed.sum(-1, keepdim=True)
    wanted = wanted * counts[:, None]
    log_p = torch.log_softmax(z, -1)
    # A weight of 0 makes no loss of a row that has no softmax; F.cross_entropy's is NaN, too.
    losses = -(wanted * log_p.where((wanted != 0) | log_p.isnan(), 0.0)).sum(-1)
    if case.options.get("reduction") == "sum":
        total = torch.tensor(1.0, dtype=torch.float64)
    elif y.is_floating_point():
        total = counts.sum().double()
    elif case.weight is not None:
        total = case.weight.double()[y[counts]].sum()
    else:
        total = counts.sum().double()
    if remedy.title.startswith("divide by") and total == 0:
        total = torch.tensor(1.0, dtype=torch.float64)
    t = case.options.get("temperature", 1.0)
    mass = wanted.sum(-1, keepdim=True)
    slope = ((torch.softmax(z, -1) * mass - wanted) / (t * total)).masked_fill(constant, 0.0)
    slope = slope.where(counts[:, None], 0.0)
    return losses[counts].sum() / total, slope, (mass[:, 0] / (t * total)).abs()
