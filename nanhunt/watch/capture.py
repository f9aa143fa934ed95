"""The capture: tensors of the failing step in a file that ``nanhunt check`` reads, and the proof run on them."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import torch

from nanhunt.results.report import RemedyResult

from .incident import Incident
from .story import Exhibits

MAX_BYTES = 256 * 2**20
"""Rows beyond this are left out."""
MAX_TRIED = 64 * 2**20
"""Bytes of a capture on which `nanhunt check` is tried before it is recommended."""
MAX_PROVEN = 2**22
"""Logits on which remedies are run."""
_PROVABLE = ("NH0", "NH1", "NH2", "NH3")
_ABOUT_SOFTMAX = ("NH101", "NH102", "NH103")


def file_name(incident: Incident) -> str:
    """``step-37.pt``, with the rank or the name where there are several processes."""
    child = re.sub(r"[^\w.-]+", "-", f"-{incident.process}") if incident.process else ""
    rank = child if incident.rank is None else f"-rank-{incident.rank}"
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
    row = whole.element_size() * whole.numel() // max(len(whole), 1) if whole.dim() > 1 else 1
    rows = MAX_BYTES // max(row, 1)
    return whole[: max(rows, 1)].clone() if whole.dim() > 1 and rows < len(whole) else whole


def prove(exhibits: Exhibits, incident: Incident) -> tuple[RemedyResult, ...]:
    """Run the catalogue's remedies on the captured rows.

    Of cross entropy where the loss is that and nothing else; of softmax where it is written by hand. Empty for anything
    else: a remedy of another loss proves nothing about this one.
    """
    code = incident.culprits[0].rule if incident.culprits else None
    if exhibits.logits is None or code is None or not code.startswith(_PROVABLE):
        return ()
    if not exhibits.plain and not (exhibits.handwritten and code in _ABOUT_SOFTMAX):
        return ()
    import nanhunt

    logits = exhibits.logits.reshape(-1, exhibits.logits.shape[-1])
    kept = _widest(logits)
    labels, options = None, {}
    if exhibits.plain and exhibits.targets is not None:
        labels, options = exhibits.targets.reshape(-1)[kept].cpu(), exhibits.options
    report = nanhunt.check(logits[kept].cpu(), labels, **options)
    return next((finding.remedies for finding in report.findings if finding.code == code), ())


def look_closer(path: Path, exhibits: Exhibits, incident: Incident) -> str | None:
    """The command that judges the file, if what it says is what the report says; tried on the file itself."""
    code = incident.culprits[0].rule if incident.culprits else None
    if code is None or path.stat().st_size > MAX_TRIED:
        return None
    import nanhunt

    report = nanhunt.check(path, **exhibits.options)
    if not any(finding.code == code for finding in report.findings):
        return None
    flags = [f" --{name.replace('_', '-')} {value}" for name, value in exhibits.options.items()]
    return f"nanhunt check {path}{''.join(flags)}"


def _widest(logits: torch.Tensor) -> torch.Tensor:
    """Row numbers to prove a fix on: all of them, or of a large tensor those whose logits lie furthest apart."""
    rows = max(MAX_PROVEN // logits.shape[-1], 1)
    if rows >= len(logits):
        return torch.arange(len(logits), device=logits.device)
    spread = (logits.amax(-1) - logits.amin(-1)).nan_to_num(nan=torch.inf, posinf=torch.inf)
    return spread.topk(rows).indices.sort().values


def first_rank(folder: Path, since: float, patience: float) -> tuple[str, ...]:
    """Which rank of this run went bad first, by the captures in the folder, as a note.

    A rank that was only handed the bad gradients of another writes no capture; it waits ``patience`` seconds for the
    other's. Empty when nobody has written one.
    """
    deadline = time.monotonic() + patience
    found = _captures(folder, since)
    while not found and time.monotonic() < deadline:
        time.sleep(0.05)
        found = _captures(folder, since)
    if not found:
        return ()
    step, _, rank = min(found)
    return (f"rank {rank} was the first to go bad, at step {step}",)


def _captures(folder: Path, since: float) -> list[tuple[int, float, int]]:
    """(step, time, rank) of each capture written since."""
    found = []
    for file in folder.glob("step-*-rank-*.pt"):
        numbers = re.fullmatch(r"step-(\d+)-rank-(\d+)\.pt", file.name)
        if numbers and file.stat().st_mtime >= since:
            found.append((int(numbers[1]), file.stat().st_mtime, int(numbers[2])))
    return found
