"""Ways out of a saturated sigmoid, and what only looks like one; each is run before it is printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nanhunt.load.tensor import FLOATING
from nanhunt.operations.bce.options import BceOptions
from nanhunt.operations.fix import Fix

_SIGMOID = "s = torch.sigmoid({logits})\n"


def slots(problem: Any) -> Mapping[str, str]:
    """What the templates below hold for the user's tensors and options."""
    options: BceOptions = problem.options
    weight = "" if options.pos_weight == 1.0 else f"{options.pos_weight!r} * "
    argument = f", pos_weight=torch.tensor({options.pos_weight!r})" if weight else ""
    positive, negative = f"{weight}torch.log(s{{eps}})", "torch.log(1 - s{eps})"
    if options.gamma:
        positive, negative = f"(1 - s)**{options.gamma!r} * {positive}", f"s**{options.gamma!r} * {negative}"
    y = "targets" if _has_float_targets(problem) else "targets.to(logits.dtype)"
    losses = f"-({y} * {positive} + (1 - {y}) * {negative})"
    return {
        "logits": "logits" if _is_labelled(problem) else _margin(problem, ""),
        "margin": "" if _is_labelled(problem) else _margin(problem, "{cast}"),
        "targets": "targets{cast}" if _has_float_targets(problem) else "targets.to(logits{cast}.dtype)",
        "y": y,
        "options": argument + (', reduction="sum"' if options.reduction == "sum" else ""),
        "pos_weight": argument,
        "weight": weight,
        "gamma": repr(options.gamma),
        "losses": losses if _is_labelled(problem) else "-torch.log(s{eps})",
        "reduction": options.reduction,
        "eps": "",
    }


def _has_float_targets(problem: Any) -> bool:
    """Labels of whole numbers are made floats first: PyTorch subtracts no bool, and weighs no integer."""
    return not _is_labelled(problem) or problem.tensors["targets"].dtype in FLOATING


def _margin(problem: Any, cast: str) -> str:
    margin = f"chosen{cast} - rejected{cast}"
    if "ref_chosen" in problem.tensors:
        margin = f"({margin}) - (ref_chosen{cast} - ref_rejected{cast})"
    return f"{problem.options.beta!r} * ({margin})"


def _is_labelled(problem: Any) -> bool:
    return "logits" in problem.tensors


def _is_focal(problem: Any) -> bool:
    return _is_labelled(problem) and problem.options.gamma != 0.0


def _is_plain(problem: Any) -> bool:
    return _is_labelled(problem) and not problem.options.gamma


def _is_preference(problem: Any) -> bool:
    return not _is_labelled(problem)


def _narrow(when: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda problem: problem.narrow and when(problem)


_CALL = "loss = F.binary_cross_entropy_with_logits(logits{cast}, {targets}{options})"
_MARGIN = "loss = -F.logsigmoid({margin}).{reduction}()"
_FOCAL = (
    "log_p, log_q = F.logsigmoid(logits{cast}), F.logsigmoid(-logits{cast})\n"
    "losses = -({weight}{y} * torch.exp({gamma} * log_q) * log_p"
    " + (1 - {y}) * torch.exp({gamma} * log_p) * log_q)\n"
    "loss = losses.{reduction}()"
)
_IN_FLOAT32 = {"cast": ".float()"}
RIGHT: tuple[Fix[Any], ...] = (
    Fix("call F.binary_cross_entropy_with_logits on the raw logits", _CALL, when=_is_plain),
    Fix("raise the probability with exp(gamma * F.logsigmoid)", _FOCAL, when=_is_focal),
    Fix("call F.logsigmoid on the margin", _MARGIN, when=_is_preference),
)
FLOAT32: tuple[Fix[Any], ...] = tuple(
    replace(each, title="compute the loss in float32", slots=_IN_FLOAT32, when=_narrow(each.when))
    for each in RIGHT
)
BCE_LOSS: Fix[Any] = Fix(
    "F.binary_cross_entropy on sigmoid(logits)",
    "loss = F.binary_cross_entropy(torch.sigmoid({logits}), {targets}{options})",
    when=lambda problem: _is_plain(problem) and problem.options.pos_weight == 1.0,
    changes="a logarithm below -100 counts as -100", tempting=True,
)  # fmt: skip
MODULATED: Fix[Any] = Fix(
    "F.binary_cross_entropy_with_logits times (1 - p_t)**gamma",
    _SIGMOID + "p_t = {y} * s + (1 - {y}) * (1 - s)\n"
    'losses = F.binary_cross_entropy_with_logits(logits, {targets}, reduction="none"{pos_weight})\n'
    "loss = (losses * (1 - p_t)**{gamma}).{reduction}()",
    when=_is_focal, tempting=True,
)  # fmt: skip
_EPS: Fix[Any] = Fix(
    "log(s + 1e-8)",
    _SIGMOID + "loss = ({losses}).{reduction}()",
    slots={"eps": " + 1e-8"},
    tempting=True,
    changes="no logarithm is below -18.4",
)
_NAN_TO_NUM: Fix[Any] = Fix(
    "nan_to_num on the loss",
    _SIGMOID + "losses = {losses}\nloss = torch.nan_to_num(losses, nan=0.0, posinf=0.0).{reduction}()",
    tempting=True,
)
WAYS_OUT: tuple[Fix[Any], ...] = (*RIGHT, MODULATED, BCE_LOSS, _EPS, _NAN_TO_NUM)
