"""The sentences and numbers that every format says alike. Plain strings, no markup."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nanhunt.literal import literal
from nanhunt.results import verdict as judged
from nanhunt.results.counted import Healthy
from nanhunt.results.finding import Finding, RemedyResult, Severity
from nanhunt.results.order import natural_key
from nanhunt.results.report import Report
from nanhunt.results.tensor import Implementation, TensorReport, WorstRow

# ---------------------------------------------------------------------------------------------- text and numbers


def count(number: int) -> str:
    """10,000,000."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """E.g. "1 row", "2,000 rows"."""
    return f"{count(number)} {noun if number == 1 else noun + 's'}"


def number(value: float | None) -> str:
    """Seven digits, which is what float32 holds; "-" for what was not computed."""
    if value is None:
        return "-"
    return str(value) if not math.isfinite(value) else f"{value + 0.0:.7g}"


def error_bound(value: float) -> str:
    """Two digits, rounded up so that "within" stays true: 2.96e-4 gives "3e-4"."""
    if not math.isfinite(value) or value <= 0:
        return number(abs(value))
    exponent = math.floor(math.log10(value))
    tenths = math.ceil(value / 10.0 ** (exponent - 1) * (1 - 1e-12))
    mantissa, exponent = (tenths / 10, exponent) if tenths < 100 else (1.0, exponent + 1)
    return f"{mantissa * 10.0**exponent:g}" if -4 < exponent < 6 else f"{mantissa:g}e{exponent}"


# ---------------------------------------------------------------------------------------------- where


def name(tensor: TensorReport) -> str:
    """E.g. "ckpt.pt:model.head.weight (from job-1.json)", as it is in the file: not to be printed like that."""
    where = f"{tensor.file}:{tensor.tensor}" if tensor.tensor else tensor.file
    return f"{where} (from {tensor.origin})" if tensor.origin else where


def place(tensor: TensorReport) -> str:
    """The tensor's name, untrusted characters spelled out."""
    return literal(name(tensor))


def shape(dimensions: Sequence[int]) -> str:
    """(4096, 32000)."""
    return f"({', '.join(map(str, dimensions))}{',' if len(dimensions) == 1 else ''})"


def operands(tensor: TensorReport) -> str:
    """E.g. "query, key and value (dump.pt:v)": the tensors of an operation, and what else they are called."""
    names = [
        role if label.rpartition(":")[2].rpartition(".")[2] == role else f"{role} ({literal(label)})"
        for role, label in tensor.roles.items()
    ]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def unit(tensor: TensorReport) -> str:
    """What is counted: rows of logits, the units of another operation, the values of any other tensor."""
    return "value" if tensor.role == "values" else tensor.unit


def units(tensor: TensorReport) -> int:
    """How many of them there are."""
    return math.prod(tensor.shape) if tensor.role == "values" else tensor.rows


def out_of(number: int, tensor: TensorReport) -> str:
    """E.g. "3 of 10,000,000 rows", and of a single one "the only row"."""
    if number == units(tensor) == 1:
        return f"the only {unit(tensor)}"
    return f"{count(number)} of {plural(units(tensor), unit(tensor))}"


def row_name(tensor: TensorReport, row: int) -> str:
    """A row as its indices into the dimensions that units are numbered over, plain when there is only one of them."""
    dimensions = list(tensor.shape if tensor.unit_shape is None else tensor.unit_shape)
    if tensor.role == "logits" and dimensions:
        del dimensions[tensor.class_axis]
    if len(dimensions) <= 1:
        return str(row)
    indices: list[int] = []
    for size in reversed(dimensions):
        row, index = divmod(row, max(size, 1))
        indices.append(index)
    return f"({', '.join(map(str, reversed(indices)))})"


def rows_named(finding: Finding, tensor: TensorReport) -> str:
    """E.g. "rows 3, 7 and 461 more"; "" when none is named, or all of many are meant."""
    names = [row_name(tensor, row) for row in finding.rows]
    if not names or finding.count == units(tensor) > len(names):  # all of them, as their count says
        return ""
    more = finding.count - len(names)
    tail = f" and {count(more)} more" if more > 0 else ""
    return f"{unit(tensor)}{'' if finding.count == 1 else 's'} {', '.join(names)}{tail}"


def message(finding: Finding) -> str:
    """The finding's arithmetic, untrusted characters spelled out."""
    return literal(finding.message)


def health(tensor: TensorReport) -> str:
    """E.g. "3 NaN, 1 +inf, 0 -inf, 12 zero, 0 subnormal, finite values from -3.2 to 4.1", as far as counted."""
    found = tensor.health
    parts = (
        (found.nan, "NaN"),
        (found.posinf, "+inf"),
        (found.neginf, "-inf"),
        (found.zero, "zero"),
        (found.subnormal, "subnormal"),
    )
    counted = [f"{count(number)} {name}" for number, name in parts if number is not None]
    if found.min is not None and found.max is not None:
        counted.append(f"finite values from {number(found.min)} to {number(found.max)}")
    return ", ".join(counted)


# ---------------------------------------------------------------------------------------------- findings


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Most severe first, then by code; findings already known come after new ones."""
    return sorted(findings, key=lambda finding: (finding.known, -finding.severity.rank, finding.code))


def worst(tensor: TensorReport) -> Severity | None:
    """The highest severity found; None for a healthy tensor."""
    return max((finding.severity for finding in tensor.findings), key=lambda found: found.rank, default=None)


def affected(tensor: TensorReport, *severities: Severity) -> tuple[int, bool]:
    """Rows with a finding of these severities, and whether that is exact or only a lower bound."""
    found = [finding for finding in tensor.findings if finding.severity in severities]
    if len(found) == len(tensor.findings) and tensor.affected_rows:
        return tensor.affected_rows, True
    most = max((finding.count for finding in found), default=0)
    if len(found) <= 1 or most == units(tensor):
        return most, True
    # A row's cause is its first rule: one of these, unless a finding of another severity comes before one of them.
    last = max(finding.code for finding in found)
    hidden = any(each.code < last for each in tensor.findings if each.severity not in severities)
    by_cause = sum(caused(tensor, severity) for severity in severities)
    return max(most, by_cause), bool(tensor.strip) and not hidden


def caused(tensor: TensorReport, severity: Severity) -> int:
    """Rows whose cause, the first rule that holds for them, is of that severity; 0 where it was not counted."""
    codes = {finding.code for finding in tensor.findings if finding.severity is severity}
    return sum(number for item in tensor.strip for code, number in item.causes if code in codes)


def bad_rows(tensor: TensorReport) -> int:
    """Rows at which something breaks: findings of warning or error."""
    return affected(tensor, Severity.WARNING, Severity.ERROR)[0]


@dataclass(frozen=True)
class Verdict:
    """What a tired person should grasp at once."""

    severity: Severity | None
    text: str
    cause: str
    """E.g. "exp-overflow (NH101)", or ""."""

    @property
    def word(self) -> str:
        """ERROR, WARNING, NOTE or HEALTHY: colour is never the only sign."""
        return self.severity.name if self.severity else "HEALTHY"

    @property
    def sentence(self) -> str:
        """Text and cause in one line."""
        return f"{self.text} Cause: {self.cause}." if self.cause else self.text


def verdict(tensor: TensorReport) -> Verdict:
    """The verdict on one tensor in one dtype."""
    severity = worst(tensor)
    if severity is None:
        if units(tensor) < 2:
            return Verdict(None, f"{plural(units(tensor), unit(tensor))}, nothing wrong.", "")
        return Verdict(None, f"all {plural(units(tensor), unit(tensor))} healthy.", "")
    text = (_values_verdict if tensor.role == "values" else _operation_verdict)(tensor, severity)
    known = " All of it is known from the baseline." if all(found.known for found in tensor.findings) else ""
    return Verdict(severity, text + known, _cause(tensor))


def brief(tensor: TensorReport) -> str:
    """The verdict where many stand below each other: "1 of 8 rows in float16: nan-logits (NH001)"."""
    severity = worst(tensor)
    if severity is None:
        return "healthy"
    cast = f" in {tensor.judged_in}" if tensor.dtype != tensor.stored_dtype else ""
    return f"{_share(tensor, severity)}{cast}: {_gravest(tensor)[0]}"


def _operation_verdict(tensor: TensorReport, severity: Severity) -> str:
    broken, breaks_naive, silent = (
        _share(tensor, level) for level in (Severity.ERROR, Severity.WARNING, Severity.NOTE)
    )
    if severity is Severity.NOTE:
        return (
            f"nothing breaks; {silent} {_verb(tensor, severity, 'is', 'are')} silently wrong or near a limit."
        )
    if severity is Severity.WARNING:
        verb = _verb(tensor, severity, "breaks", "break")
        return f"{breaks_naive} {verb} naive code; {tensor.fused_call} survives."
    text = f"{broken} {_verb(tensor, severity, 'goes', 'go')} wrong even with {tensor.fused_call}"
    more = caused(tensor, Severity.WARNING)
    return (
        f"{text}; {count(more)} more {'breaks' if more == 1 else 'break'} naive code." if more else f"{text}."
    )


def _values_verdict(tensor: TensorReport, severity: Severity) -> str:
    share, health = _share(tensor, severity), tensor.health
    not_finite = (health.nan or 0) + (health.posinf or 0) + (health.neginf or 0)
    if severity is not Severity.WARNING and not_finite:
        said = "NaN or infinite" if severity is Severity.ERROR else "NaN, beside the weights"
        return f"{share} {_verb(tensor, severity, 'is', 'are')} {said}."
    if severity is Severity.NOTE:
        return f"{share} {_verb(tensor, severity, 'is', 'are')} worth a look."
    if tensor.dtype != tensor.stored_dtype:
        return f"{share} {_verb(tensor, severity, 'does', 'do')} not survive {tensor.judged_in}."
    return f"{share} {_verb(tensor, severity, 'is', 'are')} finite, and wrong."


def _share(tensor: TensorReport, severity: Severity) -> str:
    if not units(tensor):
        return "the empty batch"
    number, exact = affected(tensor, severity)
    return f"{'' if exact else 'at least '}{out_of(number, tensor)}"


def _verb(tensor: TensorReport, severity: Severity, one: str, many: str) -> str:
    return one if affected(tensor, severity)[0] == 1 or not units(tensor) else many


def _cause(tensor: TensorReport) -> str:
    """The gravest rules; notes only where nothing is graver."""
    order = _gravest(tensor)
    named = " and ".join(order[:2])
    return f"{named}, {len(order) - 2} more" if len(order) > 2 else named


def _gravest(tensor: TensorReport) -> list[str]:
    """Names of rules by severity, then by the rows they are the cause of; notes only where nothing is graver."""
    rows: dict[str, int] = {}
    for item in tensor.strip:
        for code, number in item.causes:
            rows[code] = rows.get(code, 0) + number
    graver = [finding for finding in tensor.findings if finding.severity is not Severity.NOTE]
    order = sorted(
        graver or tensor.findings,
        key=lambda found: (
            -found.severity.rank,
            -rows.get(found.code, 0) if rows else -found.count,
            found.code,
        ),
    )
    return [f"{finding.name} ({finding.code})" for finding in order]


def heading(finding: Finding, tensor: TensorReport) -> str:
    """E.g. "exp-overflow (NH101), warning: 1 of 3 rows"."""
    known = ", known" if finding.known else ""
    share = f": {out_of(finding.count, tensor)}" if finding.count else ""
    return f"{finding.name} ({finding.code}), {finding.severity}{known}{share}"


def proof(remedy: RemedyResult, tensor: TensorReport) -> str:
    """What running the remedy showed: "proven on 471 rows: 0 bad afterwards, loss within 3e-4 of the truth"."""
    if not remedy.works:
        if remedy.bad_rows_after == remedy.rows == 1:
            return remedy.outcome or f"the {unit(tensor)} is still bad"
        bad = f"{count(remedy.bad_rows_after)} of {plural(remedy.rows, unit(tensor))}"
        return f"{remedy.outcome} on {bad}" if remedy.outcome else f"{bad} still bad"
    rows = plural(remedy.rows, unit(tensor)) + _but_broken(remedy, tensor)
    parts = [f"proven on {rows}: {count(remedy.bad_rows_after)} bad afterwards"]
    if remedy.max_loss_error is not None:
        near = error_bound(remedy.max_loss_error)
        # Without labels no loss of the user's is known: what was compared is -log p of each row's worst class.
        what = "-log p" if tensor.fused_call == "torch.softmax" else "loss"
        parts.append(
            f"{what} within {near} of the truth"
            if remedy.max_loss_error
            else f"{what} equal to the truth within rounding"
        )
    if remedy.changes:
        parts.append(f"another objective: {remedy.changes}")
    return ", ".join(parts)


def _but_broken(remedy: RemedyResult, tensor: TensorReport) -> str:
    """Why a fix was run on fewer rows than its finding has: no code mends input that is broken."""
    from nanhunt.operations.rules import RULES

    # By identity: the same code did the same for the rows of other findings.
    mine = next((each for each in tensor.findings if any(one is remedy for one in each.remedies)), None)
    if mine is None or mine.count <= remedy.rows:
        return ""
    broken = {
        row
        for each in tensor.findings
        for row in each.rows
        if each.code != mine.code and each.code in RULES and RULES[each.code].input_at_fault
    }
    return " whose input is sound" if broken.intersection(mine.rows) else ""


def failing(finding: Finding, tensor: TensorReport) -> dict[str, list[str]]:
    """Titles of the remedies that do not work, by what running them showed: most show the same."""
    found: dict[str, list[str]] = {}
    for remedy in finding.remedies:
        if not remedy.works:
            found.setdefault(proof(remedy, tensor), []).append(remedy.title)
    return found


def cause_name(row: WorstRow, tensor: TensorReport) -> str:
    """E.g. "exp-overflow (NH101)"."""
    names = {finding.code: f"{finding.name} ({finding.code})" for finding in tensor.findings}
    return names.get(row.cause, row.cause)


def explanation(finding: Finding) -> str:
    """What to do where no remedy works: the catalogue's own words, "" for a rule it does not know."""
    from nanhunt.operations.rules import RULES

    rule = RULES.get(finding.code)
    if rule is None:
        return ""
    if rule.fixes and not rule.input_at_fault:
        # Its fixes are run on rows with sound input only; perhaps there was no such row. The catalogue's words
        # would praise what has just been seen to fail.
        return (
            "None of these ways mends all of these rows; each was run."
            if finding.remedies
            else "Mend the input of these rows first: each has a graver finding."
        )
    return rule.fix


# ---------------------------------------------------------------------------------------------- the comparison


@dataclass(frozen=True)
class Comparison:
    """The side-by-side table: implementations and truth as columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    """(label, one cell per column)."""
    remarks: tuple[str, ...]


def comparison(tensor: TensorReport) -> Comparison | None:
    """The table of ``compare``; None for a check, which tells no losses and no errors."""
    if tensor.role == "operands":
        return _comparison_of_forms(tensor)
    runs = tensor.implementations
    if all(run.loss is None for run in runs.values()):
        return None
    truth = tensor.truth.loss if tensor.truth else None
    loss = (_loss_label(tensor), (*(_cell(run, "loss") for run in runs.values()), number(truth)))
    rest = [(label, (*(_cell(run, name) for run in runs.values()), "")) for label, name in _MEASURES]
    return Comparison((*runs, "truth"), (loss, *rest), tuple(_remarks(tensor)))


def _comparison_of_forms(tensor: TensorReport) -> Comparison | None:
    """The same for an operation that has no rows of classes: its forms are the columns."""
    runs = tensor.implementations
    if all(run.loss is None and run.max_error is None for run in runs.values()):
        return None
    lines = [
        (label.format(unit=unit(tensor)), (*(_cell(run, name) for run in runs.values()), ""))
        for label, name in _FORM_MEASURES
    ]
    truth = tensor.truth.loss if tensor.truth else None
    if truth is not None:
        losses = (*(_cell(run, "loss") for run in runs.values()), number(truth))
        lines.insert(0, (_reduced_loss(tensor), losses))
    return Comparison((*runs, "truth"), tuple(lines), ())


_FORM_MEASURES = (
    ("bad {unit}s", "bad_value_rows"),
    ("bad-gradient {unit}s", "bad_gradient_rows"),
    ("wrong {unit}s", "wrong_rows"),
    ("largest error", "max_error"),
)
_MEASURES = (
    ("NaN-probability rows", "nan_probability_rows"),
    ("zero target p, rows", "zero_target_probability_rows"),
    ("infinite-loss rows", "inf_loss_rows"),
    ("NaN-loss rows", "nan_loss_rows"),
    ("bad-gradient rows", "nonfinite_gradient_rows"),
    ("largest loss error", "max_loss_error"),
)


def _cell(run: Implementation, name: str) -> str:
    value = getattr(run, name)
    if name in ("max_loss_error", "max_error") and value is not None:
        return error_bound(value)
    return number(value) if value is None or isinstance(value, float) else count(value)


def _reduced_loss(tensor: TensorReport) -> str:
    return {"mean": "mean loss", "sum": "summed loss"}.get(str(tensor.options.get("reduction")), "loss")


def _loss_label(tensor: TensorReport) -> str:
    reduction = _reduced_loss(tensor)
    return reduction if tensor.targets else f"{reduction}, worst label"


def _remarks(tensor: TensorReport) -> Iterable[str]:
    if not tensor.targets and not any("worst label" in note for note in tensor.notes):
        yield "No labels: the losses are for each row's worst label, its least likely unmasked class."
    cast = tensor.truth.cast_loss_error if tensor.truth else None
    if cast:
        yield f"Casting the logits to {tensor.dtype} alone moves a true row loss by up to {error_bound(cast)}."


# ---------------------------------------------------------------------------------------------- the whole report


def groups(report: Report) -> list[list[TensorReport]]:
    """Tensors in natural order, judgements of the same tensor in several dtypes together.

    Two judgements in one dtype are of two tensors, whatever their names are.
    """
    found: dict[tuple[str, str, str], list[list[TensorReport]]] = {}
    for tensor in report.tensors:
        alike = found.setdefault((tensor.file, tensor.origin, tensor.tensor), [])
        free = (group for group in alike if all(other.judged_in != tensor.judged_in for other in group))
        group = next(free, None)
        if group is None:
            alike.append([tensor])
        else:
            group.append(tensor)
    keys = sorted(found, key=lambda key: (natural_key(key[0]), key[0], key[1], natural_key(key[2]), key))
    return [group for key in keys for group in found[key]]


def severity_counts(report: Report) -> dict[Severity, int]:
    """New findings by severity, most severe first."""
    found = [finding.severity for finding in report.findings if not finding.known]
    return {severity: found.count(severity) for severity in reversed(Severity)}


def tensors_and_files(report: Report) -> tuple[int, int]:
    """How many tensors were looked at in how many files, those included that are only counted.

    Tensors of a file that are stored alike are judged in the same dtypes, so the most judgements in one dtype are
    their number.
    """
    judgements: Counter[tuple[str, str, str, str]] = Counter()
    named: dict[tuple[str, str, str], set[str]] = {}
    for tensor in report.tensors:
        judgements[tensor.origin, tensor.file, tensor.stored_dtype, tensor.dtype] += 1
        named.setdefault((tensor.origin, tensor.file, tensor.stored_dtype), set()).add(tensor.tensor)
    for group in report.healthy:
        for file, number in group.files.items():
            judgements[group.origin, file, group.stored_dtype, group.dtype] += number
    alike = {key: len(names) for key, names in named.items()}
    for (origin, file, stored, _), number in judgements.items():
        alike[origin, file, stored] = max(number, alike.get((origin, file, stored), 0))
    return sum(alike.values()), len({key[:2] for key in alike})


def common_notes(groups: Iterable[Healthy], most: int = 3) -> list[tuple[str, int]]:
    """What has to be known of tensors that are only counted, and of how many: the most common notes."""
    found: Counter[str] = Counter()
    for group in groups:
        for note in group.notes:
            found[note] += sum(group.files.values())
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))[:most]


def summary(report: Report) -> str:
    """One line on everything."""
    tensors, files = tensors_and_files(report)
    found = [plural(number, severity) for severity, number in severity_counts(report).items() if number]
    known = sum(finding.known for finding in report.findings)
    nothing = "nothing was judged" if report.errors else "nothing to judge"
    parts = [", ".join(found) or ("nothing new" if known else "healthy" if tensors else nothing)]
    parts += [f"{count(known)} known"] if known else []
    parts += tolerated(report)
    parts += [f"{count(len(report.errors))} not read"] if report.errors else []
    parts += [f"{count(len(report.not_looked_at))} not looked at"] if report.not_looked_at else []
    return f"{plural(tensors, 'tensor')} in {plural(files, 'file')}: {'; '.join(parts)}."


def tolerated(report: Report) -> list[str]:
    """Said where warnings or errors do not fail the run, which nobody would expect."""
    grave = [
        (finding, tensor)
        for tensor in report.tensors
        for finding in tensor.findings
        if finding.severity is not Severity.NOTE and not finding.known
    ]
    passed = sum(not judged.fails(finding, tensor) for finding, tensor in grave)
    if not passed:
        return []
    some = f"{count(passed)} of them {'does' if passed == 1 else 'do'} not fail"
    return [f"{'none of them fails' if passed == len(grave) else some} the run (--fail-on)"]


NAMED = 5
"""Files of one kind that are named where they were not looked at."""


def not_looked_at(report: Report) -> str:
    """What the report says nothing about, by kind, most files first; "" where it looked at everything."""
    kinds: dict[str, list[str]] = {}
    for part in report.not_looked_at:
        kinds.setdefault(part.what, []).append(part.file)
    told = []
    for what, files in sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0])):
        more = f" and {count(len(files) - NAMED)} more" if len(files) > NAMED else ""
        told.append(f"{literal(what)}: {', '.join(map(literal, files[:NAMED]))}{more}")
    return "; ".join(told)


@dataclass(frozen=True)
class RuleCount:
    """One line of ``--statistics``."""

    code: str
    name: str
    severity: Severity
    tensors: int
    rows: int
    """Rows, or values of tensors that are not logits, over all inputs."""


def rule_counts(report: Report) -> list[RuleCount]:
    """Rules by how often they hold, most rows first, then by code."""
    found: dict[tuple[str, str, Severity], list[int]] = {}
    for finding in report.findings:
        found.setdefault((finding.code, finding.name, finding.severity), []).append(finding.count)
    lines = [RuleCount(*key, tensors=len(counts), rows=sum(counts)) for key, counts in found.items()]
    return sorted(lines, key=lambda line: (-line.rows, line.code, -line.severity.rank))
