"""A remedy's code as the user's tensors need it: remedies are written for rows of classes, (rows, classes)."""

from __future__ import annotations

from nanhunt.job import Job

_MASKING = "logits = logits.masked_fill("
"""Begins code that masks in whatever shape the logits have."""


def in_layout(job: Job, snippet: str) -> str:
    """``snippet`` behind a line that makes rows of classes of the user's logits and targets, where they are none."""
    rows = _rows(job)
    if not rows or "logits" not in snippet:
        return snippet
    if not snippet.startswith(_MASKING):
        return f"{rows}\n{snippet}"
    mask, _, rest = snippet.partition("\n")
    return f"{mask}\n{rows}\n{rest}"


def _rows(job: Job) -> str:
    """E.g. ``logits, targets = logits.flatten(0, -2), targets.flatten()``; "" where nothing is to be done."""
    dimensions = len(job.tensor.shape)
    axis = job.options.class_axis % dimensions
    logits = _as_rows("logits", dimensions, axis)
    if job.targets is None:
        moved = f"logits.movedim({axis}, -1)"
        return f"logits = {moved}  # softmax over the last dimension" if axis < dimensions - 1 else ""
    if job.targets.labels is None:
        targets = _as_rows("targets", dimensions, axis)
    else:
        targets = {1: "targets.reshape(1)", 2: "targets"}.get(dimensions, "targets.flatten()")
    return "" if logits == "logits" else f"logits, targets = {logits}, {targets}  # one row each"


def _as_rows(name: str, dimensions: int, axis: int) -> str:
    if dimensions == 1:
        return f"{name}[None]"
    moved = name if axis == dimensions - 1 else f"{name}.movedim({axis}, -1)"
    return moved if dimensions == 2 else f"{moved}.flatten(0, -2)"
