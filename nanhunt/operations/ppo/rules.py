"""What goes wrong with a policy ratio, from the input to the last digit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nanhunt.operations.operation import Facts, Unit
from nanhunt.operations.ppo.fixes import BOUND, CLAMPS, FLOAT32, MASK_FIRST, TEMPTING
from nanhunt.operations.rule import Rule
from nanhunt.results.finding import Severity

if TYPE_CHECKING:
    from nanhunt.operations.operation import Behaviour, Bools


def _numbers(unit: Unit) -> str:
    """The log-ratio, what it is made of, and the advantage; of the first token where a sequence is the unit."""
    names = {"log_probs": "log_probs", "old_log_probs": "old", "ref_log_probs": "ref"}
    parts = [f"{short} {unit.number(name)}" for name, short in names.items() if name in unit.cast]
    kind = "log-ratio" if unit.options.level == "token" else "log-ratio of its first token"
    difference = unit.cast["log_probs"] - unit.cast["old_log_probs"]
    ratio = float(difference.reshape(-1)[0])
    return f"{kind} {ratio:.6g} ({', '.join(parts)}), A = {unit.number('advantages')}"


def _says(form: str) -> Callable[[Unit], str]:
    def text(unit: Unit) -> str:
        bad = unit.first_bad(form)
        value, true = unit.value(form), unit.value("truth")
        return f"{_numbers(unit)}: {bad or f'{form} gives {value:.6g}'}; the true loss is {true + 0.0:.6g}"

    return text


def _gradient(unit: Unit) -> str:
    bad = unit.first_bad("naive")
    after = "" if "backward" in bad else ", and 0 * inf in the backward pass is NaN"
    return f"{_numbers(unit)}: the loss is {unit.value('naive'):.6g} and right; {bad}{after}"


def _dropped(unit: Unit) -> str:
    return f"masked, yet {_numbers(unit)}: {unit.first_bad('naive')}, and 0 * inf is NaN"


def _impossible(unit: Unit) -> str:
    return f"{_numbers(unit)}: a token that was sampled cannot have had probability 0"


def _cast(unit: Unit) -> str:
    for name, each in unit.cast.items():
        lost = each.is_floating_point() and bool((~each.isfinite() & unit.stored[name].isfinite()).any())
        if lost:
            first = unit.stored[name][~each.isfinite()][0]
            return f"{name} {float(first):.6g} becomes infinite in {unit.dtype}"
    return ""


def _fails(behaviour: Behaviour) -> Bools:
    return behaviour.bad_value | behaviour.bad_gradient


def _sound(f: Facts) -> Bools:
    """Tokens whose input is not at fault, which has a finding of its own."""
    return ~(f.own["not_finite"] | f.own["cast_overflow"] | f.own["impossible"])


def _breaks_naive(f: Facts) -> Bools:
    return _sound(f) & ~f.own["dropped"] & ~_fails(f.fused)


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
RULES: tuple[Rule[Facts, Unit, Any], ...] = (
    Rule(
        "NH801", "ppo-input-not-finite", _E,
        "A token that counts has a log-probability of NaN or +inf, or an advantage that is not finite.",
        "exp and the product with the advantage carry it into the loss.",
        "Find what produced it (nanhunt run names the operation); no way of writing the objective mends it.",
        operation="ppo", holds=lambda f: f.own["not_finite"], arithmetic=_numbers, input_at_fault=True,
    ),
    Rule(
        "NH802", "ppo-cast-overflow", _E,
        "A number of a token that counts is finite in the file and infinite in the chosen dtype.",
        "It is beyond the format's largest number, so the cast destroys it before any exp.",
        "Keep log-probabilities and advantages in float32.",
        operation="ppo", holds=lambda f: f.own["cast_overflow"], arithmetic=_cast, input_at_fault=True,
    ),
    Rule(
        "NH803", "ppo-impossible-token", _E,
        "A token that counts has an old (or reference) log-probability of -inf.",
        "Its ratio is infinite, and NaN where the new one is -inf too (-inf - -inf), however it is written.",
        "Leave such tokens out with the mask, or find why the sampler and the trainer disagree (top-k, temperature, "
        "another vocabulary mask).",
        operation="ppo", holds=lambda f: f.own["impossible"], arithmetic=_impossible, input_at_fault=True,
    ),
    Rule(
        "NH804", "ppo-not-finite", _E,
        "Even the objective with its ratio bounded before exp is not finite, or its gradient is not.",
        "With A < 0 nothing bounds the ratio from above: beyond log-ratio 88.72 the loss itself is beyond float32.",
        "Find why the policies are that far apart (mismatch of sampler and trainer, stale rollouts); a clamp of the "
        "log-ratio is finite, but another objective.",
        operation="ppo", holds=lambda f: _fails(f.fused) & _sound(f), arithmetic=_says("fused"),
        fixes=(*CLAMPS, *TEMPTING),
    ),
    Rule(
        "NH805", "masked-token-poisons", _W,
        "A token that the mask leaves out makes the loss or the gradient NaN.",
        "The mask is multiplied in after exp: 0 * inf is NaN, in the value or in the backward pass of exp.",
        "Mask the log-ratio before exp: torch.where(mask, new - old, 0).",
        operation="ppo", holds=lambda f: f.own["dropped"] & _fails(f.naive), arithmetic=_dropped,
        fixes=(MASK_FIRST, BOUND, *TEMPTING),
    ),
    Rule(
        "NH806", "ratio-overflow", _W,
        "exp of the log-ratio overflows, and the loss with it.",
        "inf * A is infinite, and NaN where the advantage is 0; the true loss is an ordinary number.",
        "Bound the log-ratio before exp where the clip makes it irrelevant; compute the ratio in float32.",
        operation="ppo", holds=lambda f: f.naive.bad_value & _breaks_naive(f), arithmetic=_says("naive"),
        fixes=(BOUND, FLOAT32, *CLAMPS, *TEMPTING),
    ),
    Rule(
        "NH807", "finite-loss-nan-gradient", _W,
        "The loss is finite and right, its gradient is NaN.",
        "The clipped branch wins, so exp(d) = inf gets the gradient 0, and its backward pass is 0 * inf.",
        "Bound the log-ratio before exp: what comes after it cannot mend the gradient.",
        operation="ppo", holds=lambda f: f.naive.bad_gradient & ~f.naive.bad_value & _breaks_naive(f),
        arithmetic=_gradient, fixes=(BOUND, FLOAT32, *CLAMPS, *TEMPTING),
    ),
    Rule(
        "NH808", "clamp-changes-objective", _N,
        "Clamping the log-ratio at +-20 would give this token another loss, or none of its gradient.",
        "With A < 0 the objective grows with the ratio without bound; the clamp stops it, and its gradient is 0.",
        "Do not clamp silently: find why the policies are that far apart.",
        operation="ppo",
        holds=lambda f: (f.by["clamped"].wrong | f.by["clamped"].silent) & ~_fails(f.fused) & _sound(f)
        & ~f.fused.wrong & ~f.fused.silent,
        arithmetic=_says("clamped"),
    ),
    Rule(
        "NH809", "ppo-imprecise", _N,
        "The handwritten loss is finite, and off by more than its rounding.",
        "In few digits exp multiplies the rounding of the log-ratio, and exp(k) - k - 1 cancels for small k.",
        "Compute the ratio in float32.",
        operation="ppo", holds=lambda f: f.naive.wrong & ~f.fused.wrong & _sound(f), arithmetic=_says("naive"),
        fixes=(FLOAT32,),
    ),
    Rule(
        "NH810", "ppo-vanished-gradient", _N,
        "The gradient is exactly 0, in truth it is not.",
        "After the mean divides by the number of tokens it is below the smallest number of the dtype.",
        "Keep log-probabilities in float32 for the loss, or scale it up before backward (GradScaler).",
        operation="ppo", holds=lambda f: f.fused.silent & _sound(f), arithmetic=_says("fused"),
    ),
)  # fmt: skip
