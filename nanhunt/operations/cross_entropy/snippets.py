"""A remedy's code as the user's tensors and loss need it: remedies are written for (rows, classes) and a plain loss."""

from __future__ import annotations

from nanhunt.operations.cross_entropy.job import Job

_MASKING = "logits = logits.masked_fill("
"""Begins code that masks in whatever shape the logits have."""
_CALL = "F.cross_entropy("


def for_job(job: Job, snippet: str) -> str:
    """``snippet`` with the loss's own options, behind a line that makes rows of classes where there are none."""
    if "logits" not in snippet:
        return snippet
    lines = [job.targets.code if job.targets else "", _rows(job)]
    if job.options.temperature != 1 and "temperature" not in snippet:
        lines.append(f"logits = logits / {job.options.temperature!r}")
    mask, rest = "", _with_options(job, snippet)
    if rest.startswith(_MASKING):
        mask, _, rest = rest.partition("\n")
    return "\n".join(line for line in (mask, *lines, rest) if line)


def _with_options(job: Job, snippet: str) -> str:
    """Every call of F.cross_entropy, with the options that the rows were run with."""
    options = job.options
    ignored = str(options.ignore_index)
    before, *calls = snippet.replace("-100", ignored).split(_CALL)
    extra = {
        "weight": "weight" if job.weights is not None else "",
        "ignore_index": ignored if options.ignore_index != -100 else "",
        "label_smoothing": repr(options.label_smoothing) if options.label_smoothing else "",
        "reduction": '"sum"' if options.reduction == "sum" else "",
    }
    for call in calls:
        end = _closing(call)
        given = call[:end]
        missing = [name for name, value in extra.items() if value and f", {name}" not in given]
        added = [f", {name}={extra[name]}" for name in missing]
        before += f"{_CALL}{given}{''.join(added)}{call[end:]}"
    return before


def _closing(call: str) -> int:
    """Where the parenthesis closes that was open at the start."""
    depth = 1
    for index, character in enumerate(call):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return index
    raise ValueError(f"not a whole call: {call}")


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
