"""Where a tensor stands in a run, read from its names: the step of a dump, the rank that wrote it, its layer."""

from __future__ import annotations

import re

_WORDS = {
    "step": "step", "steps": "step", "globalstep": "step", "global_step": "step", "checkpoint": "step",
    "iter": "step", "iteration": "step", "epoch": "epoch", "rank": "rank",
    "layer": "layer", "layers": "layer", "block": "layer", "blocks": "layer", "h": "layer",
}  # fmt: skip
"""What names say, and what it is called here. ``checkpoint-500`` is transformers', ``global_step500`` DeepSpeed's,
``epoch=3-step=500`` Lightning's, ``h.11`` GPT-2's."""
_NUMBERED = re.compile(r"(?<![a-z])([a-z]+(?:_step)?)[-_=.]?([0-9]{1,18})(?![0-9])")


def coordinates(file: str, tensor: str) -> dict[str, int]:
    """E.g. {"step": 20, "layer": 3} for "dumps/step-20.pt" and "layers.3.attn"; of two steps, the innermost."""
    found: dict[str, int] = {}
    for name, number in _NUMBERED.findall(f"{file}\n{tensor}".lower()):
        word = _WORDS.get(name)
        if word == "layer" and word in found:
            continue  # in "layers.3.experts.h.1" the first is the layer
        if word:
            found[word] = int(number)
    return dict(sorted(found.items()))
