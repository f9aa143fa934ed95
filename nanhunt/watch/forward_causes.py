"""The causes met in the forward pass, from the particular to the general."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from nanhunt.dtypes.formats import FORMATS
from nanhunt.operations.rules import RULES

from .pattern import Pattern, always, named, rule_fix, say, zeros
from .scene import Scene

# exp and sums of exps ------------------------------------------------------------------------------------------------

_EXPS = named("exp exp2 expm1 sinh cosh")


def _exp_limit(scene: Scene) -> float:
    """The largest argument whose result is finite."""
    limit = FORMATS[scene.dtype].exp_limit
    return {"exp2": math.log2(scene.limit), "sinh": limit + math.log(2), "cosh": limit + math.log(2)}.get(
        scene.op, limit
    )


def _by_hand(code: str) -> Callable[[Scene], str]:
    """Advice for a softmax made of exps: the catalogue's where it is cross entropy."""
    return lambda at: (
        RULES[code].fix if at.cross_entropy or not at.softmax else _BY_HAND[at.softmax.handwritten]
    )


def _exp_overflow(scene: Scene) -> bool:
    return bool(scene.out.posinf or scene.out.neginf) and scene.from_finite and scene.dtype in FORMATS


def _exp_reason(scene: Scene) -> str:
    limit = f"{_exp_limit(scene):.6g}, the largest x whose {scene.op} is finite in {scene.dtype}"
    difference = (
        "; x is a difference, so exp(x) is a ratio" if scene.made_by("sub") and not scene.handwritten else ""
    )
    seen = f"max {scene.largest:.6g} >" if scene.seen else "x is larger than"
    return f"{seen} {limit}{difference}"


def _bound_exp(scene: Scene) -> str:
    bound = math.floor(0.9 * _exp_limit(scene)) if not scene.made_by("sub") or scene.half else 20
    clamp = f"clamp(-{bound}, {bound})" if scene.made_by("sub") else f"clamp(max={bound})"
    return (
        f"Bound the argument of {scene.op}: x.{clamp} keeps it finite, with gradient 0 beyond; "
        f"and see why it grew{_to(scene, scene.largest)}."
    )


# log -----------------------------------------------------------------------------------------------------------------

_LOGS = named("log log2 log10 log1p")


def _edge(scene: Scene) -> float:
    return -1.0 if scene.op == "log1p" else 0.0


def _log_below(scene: Scene) -> bool:
    return scene.given is not None and scene.given.min is not None and scene.given.min < _edge(scene)


def _log_below_reason(scene: Scene) -> str:
    edge = "a negative number" if scene.op != "log1p" else "a number below -1"
    return f"{scene.op} of {edge} (min {scene.smallest:.6g}) is NaN"


def _log_at_edge(scene: Scene) -> bool:
    return scene.given is not None and scene.given.min == _edge(scene)


def _log_zero_reason(scene: Scene) -> str:
    given = scene.given
    if given is None or scene.op == "log1p":
        return "log1p of -1 is -inf"
    return f"{scene.op} of 0 is -inf: {zeros(given, 'inputs')}"


def _log_sigmoid(scene: Scene) -> bool:
    return _log_at_edge(scene) and "sigmoid" in scene.feeders


def _log_softmax(scene: Scene) -> bool:
    return _log_at_edge(scene) and scene.softmax is not None


def _log_masked_softmax(scene: Scene) -> bool:
    return _log_softmax(scene) and scene.masked


# division ------------------------------------------------------------------------------------------------------------

_DIVISIONS = named("div true_divide reciprocal rsqrt fmod remainder")


def divides_by_zero(scene: Scene) -> bool:
    """Whether the last input holds zeros."""
    return scene.last is not None and scene.last.zero > 0


def _division_reason(scene: Scene) -> str:
    below = scene.last
    if below is None:
        return "division by 0"
    what = "0 / 0 is NaN" if scene.out.nan else "division by 0"
    return f"{what}: {zeros(below, 'divisors')}"


def _because(text: str) -> Callable[[Scene], str]:
    return lambda scene: f"{_division_reason(scene)}: {text}"


def _by_count(scene: Scene) -> bool:
    return divides_by_zero(scene) and scene.divisor_is_count


def _by_lost_eps(scene: Scene) -> bool:
    return divides_by_zero(scene) and scene.lost_eps is not None


def _lost_eps_reason(scene: Scene) -> str:
    return f"{_division_reason(scene)}, since {scene.lost_eps:g} is 0 in {scene.dtype}"


def _by(*names: str) -> Callable[[Scene], bool]:
    def holds(scene: Scene) -> bool:
        made = scene.divisor_maker
        return (
            divides_by_zero(scene)
            and made is not None
            and made.func.__name__.removeprefix("linalg_") in names
        )

    return holds


# softmax, losses -----------------------------------------------------------------------------------------------------


def _fully_masked(scene: Scene) -> bool:
    given = scene.given
    return bool(given and scene.out.nan and given.neginf and not given.nan and not given.posinf)


def _fully_masked_reason(scene: Scene) -> str:
    verb = "rows have" if scene.out.bad_rows != 1 else "row has"
    left = "" if scene.cross_entropy else ", nothing is left to attend to"
    return f"{scene.out.bad_rows:,} {verb} -inf at every class: 0 / 0{left}"


def _all_ignored(scene: Scene) -> bool:
    labels, ignored = scene.argument(1, "target"), scene.argument(4, "ignore_index")
    finite = all(one.finite for one in scene.item.inputs)
    return bool(
        scene.out.nan
        and finite
        and labels is not None
        and bool((labels == (-100 if ignored is None else ignored)).all())
    )


def _weightless(scene: Scene) -> bool:
    weight = scene.argument(2, "weight")
    return bool(scene.out.nan and weight is not None and all(one.finite for one in scene.item.inputs))


def _label_masked(scene: Scene) -> bool:
    return any(one.neginf or one.posinf for one in scene.item.inputs)


def _ctc_short(scene: Scene) -> list[tuple[int, int, int, int]]:
    """(sample, labels, repeated, frames) of the samples whose labels do not fit into their frames."""
    targets, frames, lengths = (
        scene.argument(n, name) for n, name in enumerate(("targets", "input_lengths", "target_lengths"), 1)
    )
    if targets is None or frames is None or lengths is None:
        return []
    found, start = [], 0
    for n, (frame, length) in enumerate(zip(_listed(frames), _listed(lengths), strict=False)):
        labels = (targets[n][:length] if targets.dim() == 2 else targets[start : start + length]).tolist()
        start += length
        repeated = sum(one == other for one, other in pairwise(labels))
        if length + repeated > frame:
            found.append((n, length, repeated, frame))
    return found


def _listed(lengths: object) -> list[int]:
    found = lengths.tolist() if hasattr(lengths, "tolist") else list(lengths)  # type: ignore[call-overload]
    return found if isinstance(found, list) else [found]


def _ctc_reason(scene: Scene) -> str:
    short = _ctc_short(scene)
    sample, labels, repeated, frames = short[0]
    more = f", and {len(short) - 1} more samples like it" if len(short) > 1 else ""
    return (
        f"the target is longer than its input: sample {sample} has {labels} labels ({repeated} of them repeated) "
        f"in {frames} frames{more}, so no alignment exists and its loss is -log 0"
    )


# sums and means ------------------------------------------------------------------------------------------------------


def _of_nothing(scene: Scene) -> bool:
    nothing = scene.given is None or not scene.given.values
    return scene.out.nan > 0 and nothing and scene.op == "mean"


def _sums_up(scene: Scene) -> bool:
    return scene.given is not None and scene.given.finite and not scene.out.finite and scene.from_finite


def _sum_reason(scene: Scene) -> str:
    assert scene.given is not None
    return (
        f"{scene.given.values:,} finite values up to {scene.largest:.6g} add up past {scene.limit:.6g}, "
        f"the largest {scene.dtype}"
    )


def _of_one_value(scene: Scene) -> bool:
    return (
        scene.out.nan > 0
        and scene.from_finite
        and (scene.given is None or scene.given.values <= scene.out.values)
    )


# domains -------------------------------------------------------------------------------------------------------------

_DOMAINS = {
    "acos": (-1.0, 1.0), "asin": (-1.0, 1.0), "arccos": (-1.0, 1.0), "arcsin": (-1.0, 1.0), "atanh": (-1.0, 1.0),
    "arctanh": (-1.0, 1.0), "erfinv": (-1.0, 1.0), "logit": (0.0, 1.0), "acosh": (1.0, math.inf),
    "arccosh": (1.0, math.inf), "sqrt": (0.0, math.inf), "rsqrt": (0.0, math.inf),
}  # fmt: skip
_ROUNDING = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}


def _excess(scene: Scene) -> float:
    """How far the inputs lie beyond where the function is defined."""
    low, high = _DOMAINS[scene.op]
    return max(low - scene.smallest, scene.largest - high)


def _outside(scene: Scene) -> bool:
    return scene.op in _DOMAINS and scene.given is not None and _excess(scene) > 0


def _rounded_outside(scene: Scene) -> bool:
    return _outside(scene) and _excess(scene) < _ROUNDING.get(scene.dtype, 0.0) and 1.0 in _DOMAINS[scene.op]


def _domain_reason(scene: Scene) -> str:
    low, high = _DOMAINS[scene.op]
    if high == math.inf:
        return f"{scene.op} of a number below {low:g} (min {scene.smallest:.9g}) is NaN"
    reach = f"{scene.smallest:.9g} and {scene.largest:.9g}"
    return f"{scene.op} is defined on [{low:g}, {high:g}]; the inputs reach {reach}"


def _power_of_zero(scene: Scene) -> bool:
    return scene.given is not None and scene.given.zero > 0 and any(one < 0 for one in scene.item.scalars)


def _power_zero_reason(scene: Scene) -> str:
    assert scene.given is not None
    return f"0 to a negative power: {zeros(scene.given, 'bases')}"


# anything ------------------------------------------------------------------------------------------------------------


def _written(scene: Scene) -> str:
    """The number that an assignment writes, if it is not finite."""
    bad = [one for one in scene.item.scalars if isinstance(one, float) and not math.isfinite(one)]
    return f"{bad[0]:g}" if bad else ""


def _cast(scene: Scene) -> bool:
    return scene.given is not None and scene.given.finite and scene.given.dtype != scene.out.dtype


def _cast_reason(scene: Scene) -> str:
    assert scene.given is not None
    return f"|{_size(scene):.6g}| in {scene.given.dtype} > {scene.limit:.6g}, the largest {scene.dtype}"


def _product_reason(scene: Scene) -> str:
    return f"products of finite {scene.dtype} values add up past {scene.limit:.6g}, the largest {scene.dtype}"


def _to(scene: Scene, size: float) -> str:
    """How large the inputs were; of a call whose inputs the graph did not keep, nobody knows."""
    return f" to {size:.6g}" if scene.seen else ""


def _size(scene: Scene) -> float:
    return max(abs(scene.largest), abs(scene.smallest))


def _overflow_reason(scene: Scene) -> str:
    return f"the result is larger than {scene.limit:.6g}, the largest {scene.dtype}"


def _overflows(scene: Scene) -> bool:
    return scene.from_finite and not scene.out.nan


def _diverges(scene: Scene) -> bool:
    return _overflows(scene) and scene.diverged


_WRITERS = named("index_put fill copy masked_fill full index_fill masked_scatter")
SOFTMAX = "Call torch.softmax or torch.log_softmax instead: it subtracts the row's maximum first."
LOG_P = "Compute log p by F.log_softmax of what the softmax was given: it never forms p. The rest of the formula stays."
_BY_HAND = {
    "softmax": SOFTMAX,
    "quotient": "Take torch.log_softmax of the argument and pick from that: it subtracts the row's maximum first.",
    "logsumexp": "Call torch.logsumexp instead: it subtracts the row's maximum first.",
}
_EPS = "Use an eps the dtype can hold (1e-4 in float16), or do this in float32."
_LOG1P = "Where this is log(1 - exp(x)), write torch.log(-torch.expm1(x)): it is exact for x near 0."
_UNMASK = "Replace log p by 0 at the masked classes before multiplying: log_p.masked_fill(p == 0, 0)."
SIGMOID = (
    "Use F.logsigmoid(x) for log(sigmoid(x)) and F.logsigmoid(-x) for log(1 - sigmoid(x)), or "
    "F.binary_cross_entropy_with_logits(x, y), with x what the sigmoid was given."
)
_CLAMP_LOG = "Keep the argument of log away from 0, or compute the logarithm directly (log_softmax, log1p, logsigmoid)."
_DIVIDE = "Guard the divisor (clamp it away from 0) or leave such rows out before dividing."
_EMPTY = "Skip the term when nothing is selected, or divide a sum by the count clamped at 1."
_COUNT = "Divide by the count with a floor: x.sum() / mask.sum().clamp(min=1); the term is then 0."
_ATTEND = (
    "Give such rows something to attend to, or set their result to 0; F.scaled_dot_product_attention with a bool "
    "attn_mask does that."
)
_WIDE = (
    "Do it in float32: on .float() inputs, under autocast also inside torch.autocast(device, enabled=False)."
)
_PRODUCT = (
    "Multiply .float() inputs (they are half already: under autocast inside torch.autocast(device, enabled=False) as "
    "well), or scale a factor down before the product."
)
_LAYERS = named("linear conv1d conv2d conv3d embedding layer_norm batch_norm group_norm rms_norm gru lstm")
_CLIP = "Lower the learning rate (or warm it up), or clip the gradients: training had diverged before it overflowed."


def _infinity_fix(scene: Scene) -> str:
    if scene.source == "the input" or scene.called in _LAYERS:
        return f"Find out why {scene.source} brings an infinity, or leave such samples out: no mask goes into a layer."
    return (
        f"If it is a mask: mask after this operation, or with a large finite value. If not: why does {scene.source} "
        "write an infinity?"
    )


FORWARD: tuple[Pattern, ...] = (
    Pattern(
        "masked-value-in-the-loss", frozenset(), lambda at: at.item.legal,
        say("the infinity that this line writes reaches the loss"),
        say("Leave masked elements out of the loss, or mask with a large finite value; if it is no mask: why inf?"),
    ),
    Pattern(
        "exp-overflow", _EXPS, lambda at: _exp_overflow(at) and at.handwritten and at.op == "exp", _exp_reason,
        _by_hand("NH101"), rule="NH101",
    ),
    Pattern("exp-overflow", _EXPS, _exp_overflow, _exp_reason, _bound_exp),
    Pattern(
        "log-of-negative", _LOGS, _log_below, _log_below_reason,
        say("Keep the argument positive: what is it meant to be, and how did it become negative?"),
    ),
    Pattern(
        "log-of-zero", _LOGS, lambda at: _log_at_edge(at) and at.lost_eps is not None,
        lambda at: f"{_log_zero_reason(at)}, since {at.lost_eps:g} is 0 in {at.dtype}", say(_EPS),
    ),
    Pattern(
        "log-of-sigmoid", _LOGS, _log_sigmoid,
        lambda at: f"{_log_zero_reason(at)}: a sigmoid has rounded to 0, or to 1 where this is 1 - sigmoid",
        say(SIGMOID),
    ),
    Pattern(
        "log-of-masked", _LOGS, _log_masked_softmax,
        lambda at: f"{_log_zero_reason(at)}; masked classes have probability 0", say(_UNMASK),
    ),
    Pattern(
        "probability-underflow", _LOGS, _log_softmax,
        lambda at: f"{_log_zero_reason(at)}, a probability that underflowed in {at.dtype}",
        rule_fix("NH201", LOG_P), rule="NH201",
    ),
    Pattern("log-of-zero", named("log1p"), _log_at_edge, _log_zero_reason, say(_LOG1P)),
    Pattern("log-of-zero", _LOGS, _log_at_edge, _log_zero_reason, say(_CLAMP_LOG)),
    Pattern(
        "gamma-pole", named("lgamma digamma polygamma"), lambda at: at.from_finite and at.smallest <= 0,
        lambda at: f"{at.op} is not finite at 0 and at the negative integers (min {at.smallest:.6g})",
        say("Keep its argument above 0: softplus(x) + 1e-3 rather than relu(x), or a clamp."),
    ),
    Pattern(
        "division-by-zero", _DIVISIONS, lambda at: 0 in at.item.scalars and len(at.item.inputs) == 1,
        say("the divisor is the number 0"), say(_DIVIDE),
    ),
    Pattern(
        "sum-underflow", _DIVISIONS, lambda at: divides_by_zero(at) and at.out.nan > 0 and at.handwritten,
        _because("every exp of the row underflowed"), _by_hand("NH103"), rule="NH103",
    ),
    Pattern(
        "division-by-zero", _DIVISIONS, _by_lost_eps, _lost_eps_reason,
        say(_EPS),
    ),
    Pattern("empty-selection", _DIVISIONS, _by_count, _because("nothing was selected, the count is 0"), say(_COUNT)),
    Pattern(
        "zero-vector", _DIVISIONS, _by("norm", "vector_norm"), _because("the norm of a zero vector"),
        say("Use F.normalize(x, dim=-1), or clamp the norm: x.norm(dim=-1, keepdim=True).clamp(min=1e-6)."),
    ),
    Pattern(
        "no-spread", _DIVISIONS, _by("std", "var"), _because("all values are equal, their spread is 0"),
        say("Add a small constant to the spread, or leave such a group out."),
    ),
    Pattern("division-by-zero", _DIVISIONS, divides_by_zero, _division_reason, say(_DIVIDE)),
    Pattern(
        "fully-masked-row", named("softmax log_softmax safe_softmax logsumexp"), _fully_masked, _fully_masked_reason,
        rule_fix("NH003", _ATTEND), rule="NH003",
    ),
    Pattern(
        "all-targets-ignored", named("nll_loss cross_entropy"), _all_ignored,
        say("every label is ignored, so the mean is taken over no rows: 0 / 0"), say(RULES["NH007"].fix), rule="NH007",
    ),
    Pattern(
        "no-class-weight", named("nll_loss cross_entropy"), _weightless,
        say("the weights of all labels in the batch are 0: the weighted mean is 0 / 0"),
        say("Give the classes that occur a weight above 0, or skip such a batch."),
    ),
    Pattern(
        "masked-target", named("nll_loss cross_entropy"), _label_masked,
        say("the label of a row is a class whose logit is masked with -inf: its loss is inf"),
        say(RULES["NH006"].fix), rule="NH006",
    ),
    Pattern(
        "ctc-target-too-long", named("ctc_loss"), lambda at: bool(_ctc_short(at)), _ctc_reason,
        say("Leave such samples out, or pass zero_infinity=True: their loss and gradient are then 0."),
    ),
    Pattern("mean-of-nothing", named("mean"), _of_nothing, say("the mean of no values is 0 / 0"), say(_EMPTY)),
    Pattern(
        "sum-overflow", named("sum mean"), lambda at: _sums_up(at) and at.handwritten, _sum_reason,
        _by_hand("NH102"), rule="NH102",
    ),
    Pattern("sum-overflow", named("sum mean cumsum"), lambda at: _sums_up(at) and at.half, _sum_reason, say(_WIDE)),
    Pattern(
        "spread-of-one-value", named("std var std_mean var_mean"), _of_one_value,
        say("the standard deviation of one value is 0 / 0: it divides by the count less one"),
        say("Skip groups of one, or pass correction=0: their spread is then 0 (add a small constant before dividing)."),
    ),
    Pattern(
        "cast-overflow", named("to_copy to copy half bfloat16 float type"), _cast, _cast_reason,
        say("Keep this tensor in float32 or bfloat16, or scale it down before the cast."), rule="NH004",
    ),
    Pattern(
        "just-outside-the-domain", frozenset(_DOMAINS), _rounded_outside,
        lambda at: f"{_domain_reason(at)}: beyond by rounding ({_excess(at):.2g})",
        say(
            "Clamp the argument a little inside: x.clamp(-1 + 1e-6, 1 - 1e-6) in float32 (at the edge itself the "
            "derivative is infinite)."
        ),
    ),
    Pattern(
        "root-of-negative", named("sqrt rsqrt"), _outside, _domain_reason,
        say("Clamp the argument at 0 before the square root."),
    ),
    Pattern(
        "outside-the-domain", frozenset(_DOMAINS), _outside, _domain_reason,
        say("Bring the argument into that range before the call."),
    ),
    Pattern("division-by-zero", named("pow float_power"), _power_of_zero, _power_zero_reason, say(_DIVIDE)),
    Pattern(
        "power-of-negative", named("pow float_power"), lambda at: at.out.nan > 0 and at.smallest < 0,
        lambda at: f"a fractional power of a negative number (min {at.smallest:.6g}) is NaN",
        say("Clamp the base at 0, or use an integer exponent."),
    ),
    Pattern(
        "written", _WRITERS, lambda at: bool(_written(at)) and at.from_finite,
        lambda at: f"the line itself writes {_written(at)}",
        say("Leave such elements out (index, or torch.where on what reads them) rather than mark them so."),
    ),
    Pattern(
        "half-product-overflow", named("mm bmm matmul addmm baddbmm linear convolution einsum"),
        lambda at: at.half and at.from_finite, _product_reason, say(_PRODUCT),
    ),
    Pattern(
        "infinity-consumed", frozenset(), lambda at: bool(at.item.parents),
        lambda at: f"the infinity of {at.source} met an operation that cannot digest it",
        _infinity_fix,
    ),
    Pattern(
        "norm-overflow", named("layer_norm batch_norm group_norm rms_norm"),
        lambda at: at.from_finite and _size(at) ** 2 > at.limit,
        lambda at: f"the squares of values up to {_size(at):.6g} overflow {at.dtype}, so the variance is inf",
        lambda at: f"Find out why the values grew{_to(at, _size(at))} before this normalisation.",
    ),
    Pattern("overflow", frozenset(), lambda at: _overflows(at) and at.half, _overflow_reason, say(_WIDE)),
    Pattern("overflow", frozenset(), _diverges, _overflow_reason, say(_CLIP)),
    Pattern(
        "overflow", frozenset(), _overflows, _overflow_reason,
        lambda at: f"Scale the inputs down, or find out why they grew{_to(at, _size(at))}.",
    ),
    Pattern(
        "undefined-operation", frozenset(), always,
        say("NaN from finite inputs: the operation is not defined for some of them"), say(""),
    ),
)  # fmt: skip
