"""What a softmax of masked rows makes, and a loss of labels that do not fit."""

from __future__ import annotations

from itertools import pairwise

from nanhunt.watch.scene import Scene

from .pattern import Pattern, named, rule_fix, rule_named, say

_ATTEND = (
    "Give such rows something to attend to, or set their result to 0; F.scaled_dot_product_attention with a bool "
    "attn_mask does that."
)


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


PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "fully-masked-row", named("softmax log_softmax safe_softmax logsumexp"), _fully_masked, _fully_masked_reason,
        rule_fix("fully-masked-row", _ATTEND), is_rule=True,
    ),
    Pattern(
        "all-targets-ignored", named("nll_loss cross_entropy"), _all_ignored,
        say("every label is ignored, so the mean is taken over no rows: 0 / 0"),
        say(rule_named("all-targets-ignored").fix), is_rule=True,
    ),
    Pattern(
        "no-class-weight", named("nll_loss cross_entropy"), _weightless,
        say("the weights of all labels in the batch are 0: the weighted mean is 0 / 0"),
        say("Give the classes that occur a weight above 0, or skip such a batch."),
    ),
    Pattern(
        "masked-target", named("nll_loss cross_entropy"), _label_masked,
        say("the label of a row is a class whose logit is masked with -inf: its loss is inf"),
        say(rule_named("masked-target").fix), is_rule=True,
    ),
    Pattern(
        "ctc-target-too-long", named("ctc_loss"), lambda at: bool(_ctc_short(at)), _ctc_reason,
        say("Leave such samples out, or pass zero_infinity=True: their loss and gradient are then 0."),
    ),
)  # fmt: skip
"""The particular before the general."""
