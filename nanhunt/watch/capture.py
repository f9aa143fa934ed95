"""The capture: tensors of the failing step in a file that ``nanhunt check`` reads, and the proof run on them."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nanhunt.operations.call.rules import GOES_BAD
from nanhunt.operations.registry import OPERATIONS
from nanhunt.operations.values.rules import NON_FINITE
from nanhunt.results.finding import RemedyResult

from .incident import Incident, Phase
from .story import Exhibits
from .subject import MAX_BYTES, Subject

MAX_TRIED = 64 * 2**20
"""Bytes of a capture on which `nanhunt check` is tried before it is recommended."""
MAX_PROVEN = 2**22
"""Logits on which remedies are run."""
_ABOUT_SOFTMAX = ("exp-overflow", "sum-overflow", "sum-underflow")
_RULES = {"call": GOES_BAD, "values": NON_FINITE.code}
"""Findings that say by themselves that the operation, or the tensor, is what went bad."""


def file_name(incident: Incident, suffix: str = "") -> str:
    """``step-37.pt``, ``step-37-replay.pt``, with the rank or the name where there are several processes."""
    child = re.sub(r"[^\w.-]+", "-", f"-{incident.process}") if incident.process else ""
    rank = child if incident.rank is None else f"-rank-{incident.rank}"
    return f"step-{incident.step}{rank}{suffix}.pt"


def write(folder: Path, exhibits: Exhibits, incident: Incident) -> Incident:
    """The incident with the path of its capture and, where ``nanhunt check`` says the same of it, that command.

    Of the ways to look at the failing operation the first is written that is judged as the run was; it is tried on
    the file itself. Raises OSError where the folder cannot be written to.
    """
    path = folder / file_name(incident)
    fitting = [subject for subject in exhibits.subjects if subject.size <= MAX_BYTES]
    for subject in fitting:
        _save(path, subject, incident)
        with contextlib.suppress(Exception):  # what cannot be judged is not recommended
            if _judged_alike(path, subject, incident):
                return replace(incident, capture=str(path), closer=f"nanhunt check {path}")
    if not fitting:
        return incident
    _save(path, fitting[0], incident)
    return replace(incident, capture=str(path))


def _save(path: Path, subject: Subject, incident: Incident) -> None:
    """Write plain tensors and texts, readable with ``weights_only=True``."""
    culprit = incident.culprits[0] if incident.culprits else None
    said = {
        "op": subject.operation,
        "options": json.dumps(dict(subject.options)),
        "call": subject.call,
        "what": incident.what,
        "where": culprit.site.short if culprit and culprit.site else "",
        "why": f"{culprit.name}: {culprit.reason}" if culprit else "",
        "not_saved": incident.not_saved,
    }
    told: dict[str, Any] = {"step": incident.step, **{key: text for key, text in said.items() if text}}
    content = {"nanhunt": told, **{role: _plain(tensor) for role, tensor in subject.tensors.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """On the CPU, owning no more memory than it shows."""
    return tensor.detach().cpu().clone()


def _judged_alike(path: Path, subject: Subject, incident: Incident) -> bool:
    """Whether ``nanhunt check`` says of the file what the report says."""
    import nanhunt

    if path.stat().st_size > MAX_TRIED:
        return False
    report = nanhunt.check(path)
    code = incident.culprits[0].rule if incident.culprits else None
    if subject.operation == "cross-entropy":
        return any(finding.code == code for finding in report.findings)
    if subject.operation == "values" and _is_made(incident):
        return False  # of what an operation made of finite numbers, the result says nothing
    if subject.operation in _RULES:
        return any(finding.code == _RULES[subject.operation] for finding in report.findings)
    return any(finding.severity.rank for finding in report.findings)


def _is_made(incident: Incident) -> bool:
    """Whether an operation computed the bad numbers: they were not given, not written and not an optimizer's."""
    culprit = incident.culprits[0] if incident.culprits else None
    return (
        culprit is not None
        and culprit.phase in (Phase.FORWARD, Phase.BACKWARD)
        and culprit.name not in ("written", "masked-value-in-the-loss")
    )


def prove(exhibits: Exhibits, incident: Incident) -> tuple[RemedyResult, ...]:
    """Run the catalogue's remedies on the captured rows.

    Of cross entropy where the loss is that and nothing else; of softmax where it is written by hand. Empty for anything
    else: a remedy of another loss proves nothing about this one.
    """
    culprit = incident.culprits[0] if incident.culprits else None
    provable = {rule.code for rule in OPERATIONS["cross-entropy"].rules}
    if exhibits.logits is None or culprit is None or culprit.rule not in provable:
        return ()
    if not exhibits.plain and not (exhibits.handwritten and culprit.name in _ABOUT_SOFTMAX):
        return ()
    import nanhunt

    logits = exhibits.logits.reshape(-1, exhibits.logits.shape[-1])
    kept = _widest(logits)
    labels, options = None, {}
    if exhibits.plain and exhibits.targets is not None:
        labels, options = exhibits.targets.reshape(-1)[kept].cpu(), exhibits.options
    report = nanhunt.check(logits[kept].cpu(), labels, **options)
    return next((finding.remedies for finding in report.findings if finding.code == culprit.rule), ())


def _widest(logits: torch.Tensor) -> torch.Tensor:
    """Row numbers to prove a fix on: all of them, or of a large tensor those whose logits lie furthest apart."""
    rows = max(MAX_PROVEN // logits.shape[-1], 1)
    if rows >= len(logits):
        return torch.arange(len(logits), device=logits.device)
    spread = (logits.amax(-1) - logits.amin(-1)).nan_to_num(nan=torch.inf, posinf=torch.inf)
    return spread.topk(rows).indices.sort().values
