"""An incident as text for standard error, and a whole run as JSON."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Sequence
from typing import Any

from nanhunt.results.report import FORMAT_VERSION

from .incident import Culprit, Incident, Patch, Phase, Proof, Tried
from .numbers import Numbers
from .unlooked import Unlooked

MAX_SHOWN = 4
"""Culprits in the text; JSON has them all."""
MAX_TRIED = 4
"""Fixes that do not help, of those that leave the same."""

_BROUGHT = (Phase.INPUT, Phase.PARAMETER)
"""Faults that no rewrite of the code mends: the advice is about the numbers."""


def incident_text(incident: Incident, *, verbose: bool = False) -> str:
    """Several lines, ending in a newline: what, where, why, fix, proof. ``verbose``: everything that is known."""
    lines = [_headline(incident)]
    told = list(dict.fromkeys(tuple(_culprit_lines(culprit)) for culprit in incident.culprits))
    shown = len(told) if verbose else MAX_SHOWN
    lines += [line for culprit in told[:shown] for line in culprit]
    if len(told) > shown:
        lines.append(f"  and {len(told) - shown} more operations that made NaN or infinity (--verbose)")
    lines += _spread(incident)
    if verbose or not incident.found_by.is_sure:
        lines.append(f"  found by: {incident.found_by} ({incident.found_by.certainty})")
    lines += [f"  note: {note}" for note in incident.notes]
    lines += [f"  not this code: {incident.not_code}"] if incident.not_code else []
    lines += _fix_lines(incident, verbose=verbose)
    return "\n".join([*lines, *_file_lines(incident, verbose=verbose)]) + "\n"


def _spread(incident: Incident) -> list[str]:
    """What the culprit made bad."""
    lines = []
    if incident.chain:
        links = (f"{item.operation} {item.site.short} gave {item.kind}" for item in incident.chain)
        lines.append(f"  then {', '.join(links)}")
    if incident.terms:
        terms = (f"{term.name} = {term.value:.6g}" for term in incident.terms)
        lines.append(f"  terms of the loss: {', '.join(terms)}")
    return lines + ([f"  {_gradients(incident)}"] if incident.bad_gradients else [])


def _file_lines(incident: Incident, *, verbose: bool) -> list[str]:
    lines = []
    if incident.capture:
        closer = f"look closer: {incident.closer}" if incident.closer else "tensors of that operation"
        lines.append(f"  written: {incident.capture} ({closer})")
    if incident.replay:
        lines.append(f"  repeat the step: nanhunt run --replay {incident.replay}")
    elif verbose and incident.not_saved:
        lines.append(f"  the step was not saved: {incident.not_saved}")
    return lines


def _headline(incident: Incident) -> str:
    process = f"process {incident.process} · " if incident.process else ""
    rank = process if incident.rank is None else f"rank {incident.rank} · "
    where = f" at {incident.noticed.short}" if incident.noticed else ""
    return f"nanhunt: {rank}step {incident.step} · {incident.what}{where}"


def _culprit_lines(culprit: Culprit) -> list[str]:
    place = f" at {culprit.site.short} in {culprit.site.function}" if culprit.site else ""
    module = f", module {culprit.module}" if culprit.module else ""
    lines = [f"  {_verb(culprit, place)}{module}"]
    if culprit.site and culprit.site.source:
        lines.append(f"    {culprit.site.line} | {culprit.site.source}")
    if culprit.own:
        lines.append(f"    called from your line {culprit.own.short} | {culprit.own.source}")
    lines += [f"    from {_inputs(culprit.inputs)}"] if culprit.inputs else []
    lines.append(f"    {culprit.rule + ' ' if culprit.rule else ''}{culprit.name}: {culprit.reason}")
    return lines


def _verb(culprit: Culprit, place: str) -> str:
    made = _counts(culprit.out) if culprit.out else "a value that is not finite"
    inside = f" (inside: {culprit.detail})" if culprit.detail else ""
    match culprit.phase:
        case Phase.INPUT:
            return f"the input {culprit.operation} holds {made}, first read{place}"
        case Phase.PARAMETER:
            return f"the parameter {culprit.operation} holds {made}, first read{place}"
        case Phase.OPTIMIZER:
            return f"{culprit.operation}{place} left {made} in {', '.join(culprit.tensor_names[:3])}"
        case Phase.BACKWARD:
            return f"the backward of {culprit.operation}{inside}{place} made {made}"
        case Phase.FORWARD:
            return f"{culprit.operation}{inside}{place} made {made}"


def _counts(numbers: Numbers) -> str:
    kinds = ((numbers.nan, "NaN"), (numbers.posinf, "inf"), (numbers.neginf, "-inf"))
    counted = ", ".join(f"{count:,} {kind}" for count, kind in kinds if count)
    return f"{counted} out of {numbers.values:,}{_rows(numbers)}"


def _rows(numbers: Numbers) -> str:
    if len(numbers.shape) < 1 or not numbers.rows:
        return ""
    more = ", ..." if numbers.bad_rows > len(numbers.rows) else ""
    return f" ({'row' if numbers.bad_rows == 1 else 'rows'} {', '.join(map(str, numbers.rows))}{more})"


def _inputs(inputs: Sequence[Numbers]) -> str:
    return " and ".join(_extremes(item) for item in inputs)


def _extremes(numbers: Numbers) -> str:
    kind = "finite" if numbers.finite else "partly infinite"
    if numbers.min is None or numbers.max is None:
        return f"{kind} {numbers.dtype} {list(numbers.shape)}"
    zeros = f", {numbers.zero:,} zeros" if numbers.zero else ""
    return (
        f"{kind} {numbers.dtype} {list(numbers.shape)} (min {numbers.min:.6g}, max {numbers.max:.6g}{zeros})"
    )


def _gradients(incident: Incident) -> str:
    count, first = len(incident.bad_gradients), incident.bad_gradients[0]
    if count == 1:
        return f"of {incident.parameters} gradients only that of {first} is bad"
    return f"{count} of {incident.parameters} gradients are bad; the first to be was that of {first}"


def _fix_lines(incident: Incident, *, verbose: bool) -> list[str]:
    """The patch, or proven remedies where they were run, else the advice for the cause, which says so."""
    tried = list(map(_each, incident.tried)) if verbose else _tried(incident.tried)
    if incident.patch is not None:
        return [*_patch_lines(incident.patch, incident.step), *tried]
    lines = []
    for remedy in incident.remedies if not incident.not_code else ():
        if remedy.works:
            lines.append(f"  fix, proven on {remedy.rows:,} captured {_row(remedy.rows)}: {remedy.title}")
            lines += [f"      {line}" for line in remedy.snippet.strip().splitlines()]
            break
    else:
        given = [one for one in incident.culprits if not incident.not_code or one.phase in _BROUGHT]
        fixes = dict.fromkeys(culprit.fix for culprit in given if culprit.fix)
        lines += [f"  fix (not run): {fix}" for fix in fixes]
    lines += tried
    failing = [remedy for remedy in incident.remedies if not remedy.works and not incident.not_code]
    lines += [
        f"  does not help: {item.title}, {item.bad_rows_after:,} of {item.rows:,} {_row(item.rows)} still bad"
        for item in (failing if verbose else failing[:2])
    ]
    return lines


def _patch_lines(patch: Patch, step: int) -> list[str]:
    proof = patch.proof
    sound = f"loss {proof.loss:.6g}, {proof.finite_gradients:,} of {proof.gradients:,} gradients finite"
    sound = sound if proof.gradients else "the output is finite"
    lines = [f"  fix: {patch.title}", f"    proven by repeating step {step}: {sound}, {_others(proof)}"]
    lines += [f"    changes the objective: {patch.bends}"] if patch.bends else []
    lines += [f"    no edit is offered: {patch.why_no_diff}; in your words:"] if not patch.diff else []
    changed = [line for line in patch.diff.splitlines() if not line.startswith((" ", "+++"))]
    lines += [f"    {line}" for line in changed or patch.snippet.splitlines()]
    return lines + (
        ["    (nanhunt run --patch FILE.diff SCRIPT.py writes this for git apply)"] if patch.diff else []
    )


def _others(proof: Proof) -> str:
    """What else the repair does to the step."""
    if not proof.compared:
        return "nothing was finite before"
    if not proof.changed:
        return f"nothing else changed ({proof.compared:,} values compared)"
    return (
        f"{proof.changed:,} of {proof.compared:,} values that were finite before changed, "
        f"by up to {proof.largest_change:.2g}"
    )


def _tried(tried: Sequence[Tried]) -> list[str]:
    """One line: what was tried, by what it leaves; JSON has them all."""
    outcomes: dict[str, list[str]] = {}
    for one in tried:
        outcomes.setdefault(one.outcome, []).append(one.title)
    told = [f"{_some(titles)} ({outcome})" for outcome, titles in outcomes.items()]
    return [f"  does not help: {'; '.join(told[:MAX_SHOWN])}"] if told else []


def _some(titles: Sequence[str]) -> str:
    """Those of one outcome; long ones are cut at what follows the comma: that says why they might have helped."""
    short = list(dict.fromkeys(title.partition(",")[0] for title in titles))
    more = f" and {len(short) - MAX_TRIED} more" if len(short) > MAX_TRIED else ""
    return ", ".join(short[:MAX_TRIED]) + more


def _each(tried: Tried) -> str:
    return f"  does not help: {tried.title}: {tried.outcome}"


def _row(count: int) -> str:
    return "row" if count == 1 else "rows"


def all_clear(
    steps: int, every_op: bool, code: int = 0, processes: int = 1, unlooked: Unlooked | None = None
) -> str:
    """The line for a run without a bad value, and notes of what the script read itself.

    A script that failed for another reason is not all clear, nor is one with parts that nobody looked at.
    """
    unlooked = unlooked or Unlooked()
    ended = f"; the script ended with exit code {code}" if code else ""
    rest = f"{unlooked.sentence()}{ended}\n{unlooked.notes()}"
    if not steps and not every_op:
        nothing = "no step was seen, so nothing was checked (--every-op looks at inference too)"
        return f"nanhunt: {nothing}{unlooked.sentence()}\n{unlooked.notes()}"
    counted = f"{steps:,} step{'' if steps == 1 else 's'}"
    counted += f" of {processes} processes" if processes > 1 else ""
    if unlooked:
        return f"nanhunt: no NaN or infinity in the loss and gradients of {counted}{rest}"
    return f"nanhunt: {'' if code else 'all clear, '}no NaN or infinity in {counted}{rest}"


def run_json(
    script: str,
    steps: int,
    incidents: Sequence[Incident | dict[str, Any]],
    exit_code: int,
    unlooked: Unlooked | None = None,
) -> str:
    """Strictly valid JSON: non-finite numbers are the strings "nan", "inf", "-inf".

    Incidents of child processes come as JSON has them.
    """
    unlooked = unlooked or Unlooked()
    body = {
        "format_version": FORMAT_VERSION,
        "script": script,
        "steps": steps,
        "not_looked_at": {
            "no_grad_calls": unlooked.no_grad,
            "func_grad_calls": unlooked.transforms,
            "scripted_modules": unlooked.scripted,
            "scripted_functions": unlooked.functions,
        },
        "values_read": list(unlooked.values.values()),
        "incidents": [encoded(incident) for incident in incidents],
        "exit_code": exit_code,
    }
    return json.dumps(body, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def patch_of(incident: Incident | dict[str, Any]) -> str:
    """The unified diff of an incident, "" where it has none; of child processes they come as JSON has them."""
    if isinstance(incident, dict):
        return str((incident.get("patch") or {}).get("diff", ""))
    return incident.patch.diff if incident.patch is not None else ""


def encoded(value: Any) -> Any:
    """Plain lists, dicts, numbers and strings of it, as JSON has them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: encoded(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [encoded(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value
