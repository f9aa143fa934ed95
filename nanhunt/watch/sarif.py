"""What a run has found, as SARIF: each finding has a file, a line and a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nanhunt.literal import literal_lines
from nanhunt.render.sarif import location, log, rule

from .incident import Incident
from .message import encoded


def document(incidents: Sequence[Incident | Mapping[str, Any]]) -> str:
    """A log with one result for each culprit; those of child processes come as JSON has them."""
    found = [one if isinstance(one, Mapping) else encoded(one) for one in incidents]
    results = [_result(incident, culprit) for incident in found for culprit in incident["culprits"]]
    results += [_unexplained(incident) for incident in found if not incident["culprits"]]
    names = {_code(one): one["name"] for incident in found for one in incident["culprits"]}
    return log([rule(code, name) for code, name in sorted(names.items())], results)


def _code(culprit: Mapping[str, Any]) -> str:
    """The catalogue's, or the name of a cause that the catalogue does not have."""
    return str(culprit["rule"] or culprit["name"])


def _result(incident: Mapping[str, Any], culprit: Mapping[str, Any]) -> dict[str, Any]:
    place = culprit["own"] or culprit["site"]  # what the user can edit is what a reviewer looks at
    said = [
        f"step {incident['step']}: {incident['what']}",
        f"{culprit['operation']} ({culprit['phase']}): {culprit['reason']}",
        *([f"module {culprit['module']}"] if culprit["module"] else []),
        *_way_out(incident, culprit),
    ]
    others = [culprit["site"]] if culprit["own"] else []
    others += [link["site"] for link in incident["chain"]]
    return {
        "ruleId": _code(culprit),
        "level": "error",
        "message": {"text": literal_lines("\n".join(said))},
        "locations": [_at(place)] if place else [],
        "relatedLocations": [{**_at(site), "id": number} for number, site in enumerate(others) if site],
        "partialFingerprints": {"nanhunt-run/v1": literal_lines(_fingerprint(culprit, place))},
    }


def _unexplained(incident: Mapping[str, Any]) -> dict[str, Any]:
    said = "\n".join([f"step {incident['step']}: {incident['what']}", *incident["notes"]])
    noticed = incident["noticed"]
    return {
        "ruleId": "non-finite",
        "level": "error",
        "message": {"text": literal_lines(said)},
        "locations": [_at(noticed)] if noticed else [],
    }


def _way_out(incident: Mapping[str, Any], culprit: Mapping[str, Any]) -> list[str]:
    """The proven patch, or the advice."""
    patch = incident["patch"]
    if patch:
        return [f"Fix, proven by repeating the step: {patch['title']}", patch["diff"] or patch["snippet"]]
    if incident["not_code"]:
        return [f"Not this code: {incident['not_code']}"]
    return [f"Fix (not run): {culprit['fix']}"] if culprit["fix"] else []


def _at(site: Mapping[str, Any]) -> dict[str, Any]:
    region = {"startLine": site["line"]}
    region |= {"startColumn": site["column"]} if site["column"] else {}
    region |= {"endColumn": site["end_column"]} if site["column"] and site["end_column"] else {}
    return location(site["file"], region)


def _fingerprint(culprit: Mapping[str, Any], place: Mapping[str, Any] | None) -> str:
    """The same for the same line of code, wherever it has moved to."""
    where = f"{place['file']} {place['function']} {place['source']}" if place else ""
    return f"{_code(culprit)} {where}"
