"""Ways out of each fault of cross entropy, and tempting ones: texts that are rendered, printed and run.

Every text stands on its own: it uses logits, targets, weight, torch and F, and ends in ``loss``, or in ``output``
where there are no targets and so no loss. ``slots`` says how the user's tensors are spelled in it. No import of
torch: the texts are explained without it too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nanhunt.dtypes.formats import FORMATS, compute_format
from nanhunt.operations.cross_entropy.options import LossTerms, fused_terms
from nanhunt.operations.fix import Fix

if TYPE_CHECKING:
    from nanhunt.operations.cross_entropy.truth import Question


@dataclass(frozen=True)
class Spelling(LossTerms):
    """What code must know of the user's tensors and loss; the default is the plainest one."""

    dimensions: int = 2
    class_axis: int = 1
    """0 or more."""
    classes: int = 10
    stored: str = "float32"
    dtype: str = "float32"
    """Judged in."""
    targets: str = "labels"
    """"labels", "probabilities", or "" where there are none."""
    weights: bool = False
    shaped: bool = True
    """Whether labels have the shape of the rows."""
    ignored: bool = False
    """Whether some label is the ignored index."""
    no_mean: bool = False
    """Whether what the mean divides by, over the whole tensor, is 0."""
    reduction: str = "mean"

    @property
    def computed(self) -> str:
        """The dtype computed in."""
        return compute_format(self.dtype).name

    @property
    def cast(self) -> bool:
        """Whether the logits are judged in another dtype than they are stored in."""
        return self.dtype != self.stored

    @property
    def labels(self) -> bool:
        """Whether the targets are class numbers."""
        return self.targets == "labels"

    @property
    def plain(self) -> bool:
        """Whether a row's loss is -log p of its label, so that code written by hand stays short."""
        return (
            self.labels and not self.weights and fused_terms(self, False) == fused_terms(LossTerms(), False)
        )


def slots(problem: Spelling) -> Mapping[str, str]:
    """How the user's tensors and options are spelled.

    For ``F.cross_entropy``, in the layout it takes: {logits}, {targets}, {terms}, {reduction}. For code by hand, as
    rows (n, classes): {flat} and {labels}, of which {rows} and {picked} are those that count, behind the line {keep}.
    In the layout of the user: {here} and its {axis}. {cast} and {like} are what a fix converts to.
    """
    scaled = "" if problem.temperature == 1 else f" / {problem.temperature!r}"
    flat, labels = (
        _flat(problem, _LOGITS),
        _flat(problem, "targets") if not problem.labels else _labels(problem),
    )
    native = problem.class_axis == 1 < problem.dimensions - 1  # PyTorch's own (N, C, d1, ...)
    kept = "[keep]" if problem.labels and problem.ignored else ""
    here = "targets" if problem.shaped or not problem.labels else "targets.reshape(logits[:, 0].shape)"
    logits, targets = (_LOGITS, here) if native else (flat, labels)
    if problem.targets == "probabilities":
        targets += "{cast}"
    ignored = problem.ignore_index
    last = problem.classes - 1
    return {
        "cast": "" if FORMATS[problem.dtype].has_arithmetic else ".float()",
        "like": _LIKE[problem.computed],
        "logits": logits + scaled,
        "targets": targets,
        "terms": _terms(problem),
        "reduction": ', reduction="sum"' if problem.reduction == "sum" else "",
        "flat": flat,
        "labels": labels,
        "scaled": scaled,
        "keep": f"keep = {labels} != {ignored}\n" if kept else "",
        "kept": kept,
        "rows": f"{flat}{kept}{scaled}",
        "picked": f"{labels}{kept}",
        "here": _LOGITS + scaled,
        "axis": str(problem.class_axis - problem.dimensions if problem.class_axis else 0),
        "size": f"logits.shape[{problem.class_axis}]",
        "safe": f".clamp(0, {last})" if problem.ignored and not 0 <= ignored <= last else "",
        "reduce": problem.reduction,
        "ignored": str(ignored),
        "floor": "-1e9" if FORMATS[problem.computed].max > 1e9 else "-1e4",
        "limit": "50" if FORMATS[problem.computed].exp_limit > 50 else "10",
        "temperature": repr(problem.temperature),
        "eps": repr(problem.label_smoothing),
        "rest": repr(1 - problem.label_smoothing),
    }


_LOGITS = "logits{cast}"
_LIKE = {"float16": ".half()", "bfloat16": ".bfloat16()", "float32": ".float()", "float64": ".double()"}


def _flat(problem: Spelling, name: str) -> str:
    """A tensor of the logits' shape as rows (n, classes)."""
    if problem.dimensions == 1:
        return f"{name}[None]"
    moved = (
        name if problem.class_axis == problem.dimensions - 1 else f"{name}.movedim({problem.class_axis}, -1)"
    )
    return moved if problem.dimensions == 2 else f"{moved}.flatten(0, -2)"


def _labels(problem: Spelling) -> str:
    if problem.dimensions == 1:
        return "targets.reshape(1)"
    return "targets" if problem.dimensions == 2 and problem.shaped else "targets.flatten()"


def _terms(problem: Spelling) -> str:
    """The loss's own options, as F.cross_entropy takes them: those that are not its defaults."""
    usual = fused_terms(LossTerms(), problem.labels)
    given = fused_terms(problem, problem.labels).items()
    asked = [f"{name}={value!r}" for name, value in given if value != usual[name]]
    return "".join(f", {each}" for each in ("weight=weight{like}" if problem.weights else "", *asked) if each)


_Fix = Fix[Spelling]


# What a fix answers where it is not the user's own question.


def _without_masked_rows(question: Question) -> Question:
    return question.leaving_out((question.x == -float("inf")).all(-1))


def _without_constant_rows(question: Question) -> Question:
    return question.leaving_out(question.x.amax(-1) == question.x.amin(-1))


def _without_masked_labels(question: Question) -> Question:
    return question.leaving_out(question.label_masked)


def _with_finite_mask(question: Question) -> Question:
    masked = question.x == -float("inf")
    filled = question.x.masked_fill(masked, -1e4 if question.half else -1e9)
    return dataclasses.replace(question, x=filled, constant=masked)


def _with_a_mean_of_something(question: Question) -> Question:
    return dataclasses.replace(question, empty_mean=False)


def _smoothed_over_unmasked(question: Question) -> Question:
    return question.smoothed_over(question.x != -float("inf"))


def _log_softmax(question: Question) -> Question:
    return dataclasses.replace(question, asks="log_softmax")


# The ways of writing the loss.

CROWD = 32_752
"""Half of the largest float16: the sum of more exps of float16 logits may overflow."""

_FUSED = "loss = F.cross_entropy({logits}, {targets}{terms}{reduction})"
_FLOAT, _DOUBLE = {"cast": ".float()", "like": ".float()"}, {"cast": ".double()", "like": ".double()"}
_AS_STORED = {"cast": "", "like": ".to(logits.dtype)"}
_SOFTMAX, _LOG_SOFTMAX = (
    "output = torch.softmax({here}, {axis})",
    "output = torch.log_softmax({here}, {axis})",
)


def _with_targets(problem: Spelling) -> bool:
    return bool(problem.targets)


def _without_targets(problem: Spelling) -> bool:
    return not problem.targets


def _plain(problem: Spelling) -> bool:
    return problem.plain


def _narrow(problem: Spelling) -> bool:
    return FORMATS[problem.computed].is_narrow


def _single(problem: Spelling) -> bool:
    form = FORMATS[problem.computed]
    return not form.is_narrow and form.bits < FORMATS["float64"].bits


def _stored_wide(problem: Spelling) -> bool:
    return problem.cast and not FORMATS[problem.stored].is_narrow


def _stored_narrow(problem: Spelling) -> bool:
    return problem.cast and not _stored_wide(problem)


CALL = (
    _Fix("call F.cross_entropy on the raw logits", _FUSED, when=_with_targets),
    _Fix("call torch.softmax on the raw logits", _SOFTMAX, when=_without_targets),
)
CALL_LOG = (
    CALL[0],
    _Fix(
        "call torch.log_softmax on the raw logits",
        _LOG_SOFTMAX,
        when=_without_targets,
        reference=_log_softmax,
    ),
)
FLOAT32 = (
    _Fix(
        "compute the loss in float32", _FUSED, _FLOAT, when=lambda problem: _narrow(problem) and _with_targets(problem)
    ),
    _Fix(
        "compute the softmax in float32", _SOFTMAX, _FLOAT,
        when=lambda problem: _narrow(problem) and _without_targets(problem),
    ),
)  # fmt: skip
WIDER = (
    *FLOAT32,
    _Fix(
        "compute the loss in float64", _FUSED, _DOUBLE, when=lambda problem: _single(problem) and _with_targets(problem)
    ),
    _Fix(
        "compute the softmax in float64", _SOFTMAX, _DOUBLE,
        when=lambda problem: _single(problem) and _without_targets(problem),
    ),
)  # fmt: skip
CROWDED = (
    _Fix(
        FLOAT32[0].title, _FUSED, _FLOAT, when=lambda p: p.classes > CROWD and _narrow(p) and _with_targets(p)
    ),
    _Fix(
        FLOAT32[1].title,
        _SOFTMAX,
        _FLOAT,
        when=lambda p: p.classes > CROWD and _narrow(p) and _without_targets(p),
    ),
)
"""Where F.cross_entropy may overflow in half precision too."""
_KEEP_LOSS, _KEEP_SOFTMAX = (
    f"do not cast: keep the logits as stored for the {what}" for what in ("loss", "softmax")
)
UNCAST = (
    _Fix(_KEEP_LOSS, _FUSED, _AS_STORED, when=lambda p: _stored_wide(p) and _with_targets(p), stored=True),
    _Fix(_KEEP_LOSS, _FUSED, _FLOAT, when=lambda p: _stored_narrow(p) and _with_targets(p), stored=True),
    _Fix(
        _KEEP_SOFTMAX,
        _SOFTMAX,
        _AS_STORED,
        when=lambda p: _stored_wide(p) and _without_targets(p),
        stored=True,
    ),
    _Fix(
        _KEEP_SOFTMAX, _SOFTMAX, _FLOAT, when=lambda p: _stored_narrow(p) and _without_targets(p), stored=True
    ),
)
NONE_THEN_FLOAT = _Fix(
    'reduction="none", then reduce in float32',
    'loss = F.cross_entropy({logits}, {targets}{terms}, reduction="none").float().{reduce}()',
    # The mean of what is left of ignored or weighted rows divides by something else.
    when=lambda p: (
        _with_targets(p) and (p.reduction == "sum" or not p.labels or not (p.ignored or p.weights))
    ),
)
_FILL = "logits = logits.masked_fill(logits == -torch.inf, {floor})\n"
MASK = (
    _Fix(
        "mask with a finite value instead of -inf", _FILL + _FUSED,
        # Smoothing would put a share of that value on every masked class.
        when=lambda problem: _with_targets(problem) and not problem.label_smoothing,
        reference=_with_finite_mask, changes="a fully masked row counts as a uniform one",
    ),
    _Fix(
        "mask with a finite value instead of -inf", _FILL + _SOFTMAX, when=_without_targets,
        reference=_with_finite_mask, changes="a fully masked row becomes uniform",
    ),
)  # fmt: skip
MASK_OTHERS = dataclasses.replace(MASK[0], changes="")
"""The same where no row is fully masked."""
DROP = _Fix(
    "drop fully masked rows before the loss",
    "keep = ({flat} > -torch.inf).any(-1)\n"
    "loss = F.cross_entropy({flat}[keep]{scaled}, {labels}[keep]{terms}{reduction})",
    when=_with_targets, reference=_without_masked_rows, changes="such rows no longer count",
)  # fmt: skip
DROP_CONSTANT = _Fix(
    "leave rows of one number out of the loss",
    "keep = {flat}.amax(-1) != {flat}.amin(-1)\n"
    "loss = F.cross_entropy({flat}[keep]{scaled}, {labels}[keep]{terms}{reduction})",
    when=_with_targets, reference=_without_constant_rows, changes="such rows no longer count",
)  # fmt: skip
SELECT = _Fix(
    "select the kept rows before the loss",
    "keep = {labels} != {ignored}\nloss = F.cross_entropy({flat}[keep]{scaled}, {labels}[keep]{terms}{reduction})",
    when=lambda problem: problem.labels,
)
VALIDATE = _Fix(
    "give labels that are out of range the ignored index",
    "targets = targets.masked_fill((targets < 0) | (targets >= {size}), {ignored})\n" + _FUSED,
    when=lambda problem: problem.labels, changes="such rows no longer count",
)  # fmt: skip
IGNORE_MASKED = _Fix(
    "ignore rows whose label is masked",
    "masked = {flat}.gather(-1, {labels}{safe}[:, None])[:, 0] == -torch.inf\n"
    "loss = F.cross_entropy({flat}{scaled}, {labels}.masked_fill(masked, {ignored}){terms}{reduction})",
    when=lambda problem: problem.labels, reference=_without_masked_labels, changes="such rows no longer count",
)  # fmt: skip
GUARD = _Fix(
    "divide by at least 1",
    'loss = F.cross_entropy({logits}, {targets}{terms}, reduction="sum") / ({targets} != {ignored}).sum().clamp(min=1)',
    when=lambda problem: problem.labels and not problem.weights and problem.reduction == "mean",
    reference=_with_a_mean_of_something, changes="a batch without labels has loss 0",
)  # fmt: skip
GUARD_WEIGHTS = _Fix(
    "divide by the weights' sum only where it is above 0",
    "{keep}total = weight{like}[{picked}].sum()\n"
    'loss = F.cross_entropy({logits}, {targets}{terms}, reduction="sum") / torch.where(total > 0, total, 1)',
    when=lambda problem: problem.labels and problem.weights and problem.no_mean,
    reference=_with_a_mean_of_something, changes="a batch whose labels weigh 0 has loss 0",
)  # fmt: skip
SHIFT = _Fix(
    "subtract the row maximum before dividing by the temperature",
    "logits = logits - logits.amax({axis}, keepdim=True)\n" + _FUSED,
    when=lambda problem: _with_targets(problem) and problem.temperature not in (0, 1),
)
SHIFT_SOFTMAX = _Fix(
    SHIFT.title,
    "logits = logits - logits.amax({axis}, keepdim=True)\n" + _SOFTMAX,
    when=lambda problem: _without_targets(problem) and problem.temperature not in (0, 1),
)
SKIP_ZERO = _Fix(
    "leave classes of probability 0 out of the product",
    "log_p = F.log_softmax({here}, {axis})\n"
    "loss = -(targets * log_p.masked_fill(targets == 0, 0)).sum({axis}).{reduce}()",
    when=lambda p: p.targets == "probabilities" and not p.label_smoothing and not p.weights,
)
SMOOTH_UNMASKED = _Fix(
    "spread the smoothing over the classes that are not masked",
    "{keep}z, label = {rows}, {picked}\n"
    "masked = z == -torch.inf\n"
    "log_p = F.log_softmax(z, -1).masked_fill(masked, 0)\n"
    "smooth = log_p.sum(-1) / (~masked).sum(-1)\n"
    "loss = -({rest} * log_p.gather(-1, label[:, None])[:, 0] + {eps} * smooth).{reduce}()",
    when=lambda problem: problem.labels and problem.label_smoothing > 0 and not problem.weights,
    reference=_smoothed_over_unmasked, changes="masked classes get no share of the smoothing",
)  # fmt: skip
SOFTPLUS = _Fix(
    "the log1p form: softplus of the other classes' logsumexp less the label's logit",
    "{keep}z, label = {rows}, {picked}[:, None]\n"
    "others = z.scatter(-1, label, -torch.inf).logsumexp(-1, keepdim=True)\n"
    "loss = F.softplus(others - z.gather(-1, label)).{reduce}()",
    when=_plain,
)
SUBTRACT = _Fix(
    "subtract first: (x_t - m) - log(s)",
    "{keep}z, label = {rows}, {picked}[:, None]\n"
    "z = z - z.amax(-1, keepdim=True)\n"
    "loss = -(z.gather(-1, label) - z.exp().sum(-1, keepdim=True).log()).{reduce}()",
    when=_plain,
)
SCALE = _Fix(
    "scale the loss before backward and the gradients back after it, as GradScaler does",
    "loss = 2.0**15 * F.cross_entropy({logits}, {targets}{terms}{reduction}).float()",
    when=_with_targets, scale=2.0**15,
)  # fmt: skip

# What looks like a fix.

_NAIVE = (
    "{keep}z, label = {rows}, {picked}[:, None]\n"
    "p = (z.exp() / z.exp().sum(-1, keepdim=True)).gather(-1, label)\n"
    "loss = -p.log().{reduce}()"
)
_LOSS_TO_NUMBER = "\nloss = torch.nan_to_num(loss, posinf=0.0)"
_CLIP = "\nloss.backward()\ntorch.nn.utils.clip_grad_norm_(logits, 1.0)"
_CLAMP = "logits = logits.clamp(-{limit}, {limit})\n"
TEMPTING = (
    _Fix("gradient clipping", _NAIVE + _CLIP, when=_plain, tempting=True),
    _Fix("clamping the logits", _CLAMP + _NAIVE, when=_plain, tempting=True),
    _Fix(
        "log(p + 1e-8)",
        "{keep}z, label = {rows}, {picked}[:, None]\n"
        "p = (z.exp() / z.exp().sum(-1, keepdim=True)).gather(-1, label)\n"
        "loss = -(p + 1e-8).log().{reduce}()",
        when=_plain, tempting=True,
    ),
    _Fix("nan_to_num on the loss", _NAIVE + _LOSS_TO_NUMBER, when=_plain, tempting=True),
    _Fix("clamping the logits", _CLAMP + _SOFTMAX, when=_without_targets, tempting=True),
)  # fmt: skip
TEMPTING_FUSED = (
    _Fix("nan_to_num on the loss", _FUSED + _LOSS_TO_NUMBER, when=_with_targets, tempting=True),
    _Fix("gradient clipping", _FUSED + _CLIP, when=_with_targets, tempting=True),
)
