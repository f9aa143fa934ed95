"""The capture: tensors of the failing step in a file that ``nanhunt check`` reads, and the proof run on them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from nanhunt.report import RemedyResult

from .incident import Incident
from .investigation import Exhibits

MAX_BYTES = 256 * 2**20
"""Rows beyond this are left out; the bad ones are kept."""
_PROVABLE = ("NH0", "NH1", "NH2", "NH3")


def file_name(incident: Incident) -> str:
    """``step-37.pt``, with the rank where there are several processes."""
    rank = "" if incident.rank is None else f"-rank-{incident.rank}"
    return f"step-{incident.step}{rank}.pt"


def save(path: Path, exhibits: Exhibits, incident: Incident) -> None:
    """Write plain tensors and strings, readable with ``weights_only=True``.

    Raises OSError where the folder cannot be written to.
    """
    content: dict[str, Any] = {"nanhunt": {"step": incident.step, "what": incident.what}}
    for n, tensor in enumerate(exhibits.culprit_inputs):
        content.setdefault("inputs", {})[str(n)] = _plain(tensor)
    if exhibits.logits is not None:
        content["logits"] = _plain(exhibits.logits)
    if exhibits.targets is not None:
        content["targets"] = _plain(exhibits.targets)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """On the CPU, owning no more memory than it shows."""
    whole = tensor.detach().cpu().clone()
    rows = MAX_BYTES // max(whole.element_size() * whole[0].numel(), 1) if whole.dim() > 1 else MAX_BYTES
    return whole[: max(rows, 1)].clone() if whole.dim() > 1 and rows < len(whole) else whole


def prove(exhibits: Exhibits, incident: Incident) -> tuple[RemedyResult, ...]:
    """Run the catalogue's remedies on the captured logits; empty where the incident is not about a softmax."""
    code = next((culprit.rule for culprit in incident.culprits if culprit.rule), None)
    if exhibits.logits is None or code is None or not code.startswith(_PROVABLE):
        return ()
    import nanhunt

    report = nanhunt.check(_rows(exhibits.logits), _labels(exhibits.targets))
    return next((finding.remedies for finding in report.findings if finding.code == code), ())


def _rows(logits: torch.Tensor) -> torch.Tensor:
    return logits.reshape(-1, logits.shape[-1]).cpu()


def _labels(targets: torch.Tensor | None) -> torch.Tensor | None:
    return None if targets is None else targets.reshape(-1).cpu()


def other_ranks(path: Path, since: float) -> tuple[str, ...]:
    """Which rank of this run went bad first, by the captures in the folder; empty with one process."""
    found = []
    for file in path.parent.glob("step-*-rank-*.pt"):
        numbers = re.fullmatch(r"step-(\d+)-rank-(\d+)\.pt", file.name)
        if numbers and file.stat().st_mtime >= since:
            found.append((int(numbers[1]), file.stat().st_mtime, int(numbers[2])))
    if not found:
        return ()
    step, _, rank = min(found)
    return (f"rank {rank} was the first to go bad, at step {step}",)
