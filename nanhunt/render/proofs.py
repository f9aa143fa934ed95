"""What is said of one finding: its heading, and what running its fixes has shown."""

from __future__ import annotations

from nanhunt.render.phrases import count, error_bound, out_of, plural, unit
from nanhunt.results.finding import Finding, RemedyResult
from nanhunt.results.tensor import TensorReport, WorstRow


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


def explanation(finding: Finding, tensor: TensorReport) -> str:
    """What to do where no remedy works: the catalogue's own words, "" for a rule it does not know."""
    from nanhunt.operations.rules import RULES

    rule = RULES.get(finding.code)
    if rule is None:
        return ""
    if finding.remedies and not rule.input_at_fault:
        # The catalogue's words would praise what has just been seen to fail.
        return "None of these ways mends all of these rows; each was run."
    others = (RULES.get(each.code) for each in tensor.findings)
    bad_input = any(other is not None and other.input_at_fault for other in others)
    if rule.fixes and not rule.input_at_fault and bad_input:  # fixes are run on rows with sound input only
        return "Mend the input of these rows first: each has a graver finding."
    return rule.fix
