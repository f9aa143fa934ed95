"""What a Difference says, in words that all its renderers share."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence

from nanhunt.literal import literal
from nanhunt.operations.rules import RULES
from nanhunt.render.phrases import count, number, plural, shape
from nanhunt.results.difference import (
    Difference,
    Extreme,
    RowExtreme,
    RowsDifference,
    TensorDifference,
    Unpaired,
)
from nanhunt.results.exit_code import INTERRUPTED
from nanhunt.results.finding import Finding, Severity

GRADES = {
    "identical": "bit for bit equal",
    "equal": "the same numbers",
    "rounding": "within rounding",
    "isolated": "different in a few values",
    "different": "different",
}
"""By grade, most alike first."""


PLACES = ("step", "micro", "rank", "layer", "expert", "order")
"""Coordinates that say where in a run a tensor stands, as they are told."""


def worst(tensor: TensorDifference) -> Severity | None:
    """The worst severity of its findings."""
    return max((finding.severity for finding in tensor.findings), key=lambda one: one.rank, default=None)


def severity(found: Difference) -> Severity | None:
    """The worst of all findings."""
    return max((finding.severity for finding in found.findings), key=lambda one: one.rank, default=None)


def headline(found: Difference) -> str:
    """The verdict on the whole in a sentence."""
    if found.errors and not found.tensors and not found.identical:
        return "nothing was compared yet" if found.exit_code == INTERRUPTED else "nothing could be compared"
    grades = grade_counts(found)
    total = sum(grades.values())
    apart = grades["different"] + grades["isolated"]
    if apart:
        alone = found.tensors[0].verdict if total == 1 else ""
        return alone or f"{count(apart)} of {plural(total, 'tensor')} differ"
    if found.only_a or found.only_b:
        return f"{plural(len(found.only_a) + len(found.only_b), 'tensor')} without a partner"
    if grades["rounding"]:
        verdicts = {tensor.verdict for tensor in found.tensors if tensor.grade == "rounding"}
        return verdicts.pop() if len(verdicts) == 1 else "within rounding"
    return "the same numbers" if grades["equal"] else "bit for bit equal"


def grade_counts(found: Difference) -> Counter[str]:
    """Pairs by grade."""
    counts = Counter(tensor.grade for tensor in found.tensors)
    counts["identical"] += found.identical
    return counts


def tally(found: Difference) -> str:
    """How many pairs are how alike, and what has no partner: "145 bit for bit equal, 3 different, 1 only in A"."""
    grades = grade_counts(found)
    parts = [f"{count(grades[grade])} {words}" for grade, words in GRADES.items() if grades[grade]]
    parts += [f"{count(len(found.only_a))} only in A"] * bool(found.only_a)
    parts += [f"{count(len(found.only_b))} only in B"] * bool(found.only_b)
    return ", ".join(parts)


def first(found: Difference) -> str:
    """Where A and B part; "" where they do not, or where there is one pair only."""
    where = found.first
    pairs = len(found.tensors) + found.identical
    if where is None or pairs < 2:
        return ""
    stands = f" ({place(where)})" if place(where) else ""
    return f"First divergence: {name(where)}{stands}: {where.verdict}; in the order of A: {found.order}"


def place(tensor: TensorDifference) -> str:
    """Where in a run it stands: "step 20, rank 0, layer 3"; "" where nothing says so."""
    at = tensor.coordinates
    return ", ".join(f"{'call' if name == 'order' else name} {at[name]}" for name in PLACES if name in at)


def turned(found: Difference) -> str:
    """Which tensors became NaN or infinite, where others that differ would hide them; "" where none did."""
    bad = [tensor for tensor in found.tensors if is_turned(tensor)]
    if not bad or bad[0] is found.first:
        return ""
    number = f"{plural(len(bad), 'tensor')}, the first " if len(bad) > 1 else ""
    message = next(each.message for each in bad[0].findings if each.code in TURNED)
    return f"NaN or infinite in B: {number}{name(bad[0])}: {message}"


def is_turned(tensor: TensorDifference) -> bool:
    """Whether a value of it is NaN or infinite in B, and was not so in A."""
    return any(each.code in TURNED for each in tensor.findings)


TURNED = ("NHD101", "NHD103")
"""Rules on values that ceased to be numbers."""


def name(tensor: TensorDifference) -> str:
    """The pair by the name in A, and by that in B where more than a prefix is another.

    With the file, where that is called after what made it: all tensors of such a dump may be called "data".
    """
    own, other = tensor.a or tensor.file_a, tensor.b or tensor.file_b
    if "module" in tensor.coordinates and tensor.a:
        own, other = f"{tensor.file_a}:{own}", f"{tensor.file_b}:{other}"
    same = own.rpartition("/")[2].split(".")[-2:] == other.rpartition("/")[2].split(".")[-2:]
    return literal(own) if same else f"{literal(own)} = {literal(other)} of B"


def what(tensor: TensorDifference) -> str:
    """Shape and dtype: "[16, 8] float32", both where they differ."""
    one, other = (
        f"{shape(dimensions)} {dtype}"
        for dimensions, dtype in ((tensor.shape_a, tensor.dtype_a), (tensor.shape_b, tensor.dtype_b))
    )
    return one if one == other else f"{one} against {other}"


def heading(finding: Finding) -> str:
    """E.g. "values-differ (NHD301), error"."""
    return f"{finding.name} ({finding.code}), {finding.severity}"


def advice(finding: Finding) -> str:
    """What the rule says to do."""
    return RULES[finding.code].fix if finding.code in RULES else ""


def measures(tensor: TensorDifference) -> Iterator[str]:
    """The numbers, a line each."""
    largest = [_extreme(f"|a - b| {tensor.absolute.value:.4g}", tensor.absolute)] if tensor.absolute else []
    if tensor.relative:
        largest.append(_extreme(f"relative {tensor.relative.value:.4g}", tensor.relative))
    if tensor.ulp:
        largest.append(_extreme(f"{tensor.ulp.value:.4g} ULP of {tensor.rounding_dtype}", tensor.ulp))
    if largest:
        yield f"largest: {'; '.join(largest)}"
    parts = [f"{plural(tensor.values, 'value')}, {count(tensor.differing)} not the same"]
    parts += [f"{count(tensor.nonfinite_in_both)} not finite in both"] * bool(tensor.nonfinite_in_both)
    parts += [f"cosine {tensor.cosine:.9g}"] if tensor.cosine is not None else []
    yield ", ".join(parts)
    if tensor.rows is not None:
        yield from _rows(tensor.rows)


def _extreme(told: str, extreme: Extreme) -> str:
    index = f"[{', '.join(map(str, extreme.at))}]"
    return f"{told} at {index} ({extreme.a:.7g} against {extreme.b:.7g})"


def _rows(rows: RowsDifference) -> Iterator[str]:
    left_out = f", {plural(rows.left_out, 'row')} left out (NaN, +inf, or all -inf)" if rows.left_out else ""
    yield (
        f"softmax over {plural(rows.rows, 'row')}: KL(a, b) {rows.mean_kl:.3g} on average, at most "
        f"{_row(rows.largest_kl)}; KL(b, a) at most {_row(rows.largest_kl_back)}{left_out}"
    )
    margin = (
        f", A's lead there at most {_row(rows.largest_margin)}" if rows.largest_margin is not None else ""
    )
    yield (
        f"first class changed in {plural(rows.top1_changed, 'row')}{margin}; the five first in "
        f"{count(rows.top5_changed)}"
    )
    if rows.loss_a is not None and rows.loss_b is not None:
        yield (
            f"mean loss {number(rows.loss_a)} against {number(rows.loss_b)}, a row's by at most "
            f"{_row(rows.largest_loss_change)}"
        )


def _row(peak: RowExtreme | None) -> str:
    return "-" if peak is None else f"{peak.value:.3g} (row {count(peak.row)})"


def alone(each: Unpaired, other: str) -> str:
    """A tensor without a partner, and what may be it."""
    like = f"; {literal(each.like)} of {other} has its shape and is left over too" if each.like else ""
    return f"{literal(each.label)} {shape(each.shape)} {each.dtype}{like}"


def suggestion(found: Difference) -> tuple[str, list[str]]:
    """(what --rename would do, the arguments to add to the command, a line each); ("", []) where nothing is known."""
    if not found.renames:
        return "", []
    told = f"These would pair {plural(found.renamed, 'more tensor')}, by shapes, layer numbers, values and spelling:"
    arguments = [f"--rename {literal(shlex.quote(rule))}" for rule in found.renames]
    return told, [f"{each} \\" for each in arguments[:-1]] + arguments[-1:]


def by_rule(findings: Sequence[Finding]) -> list[tuple[Finding, int]]:
    """(an example, how many) for every rule, worst severity first."""
    counts = Counter(finding.code for finding in findings)
    examples = {finding.code: finding for finding in reversed(findings)}
    order = sorted(examples, key=lambda code: (-examples[code].severity.rank, code))
    return [(examples[code], counts[code]) for code in order]
