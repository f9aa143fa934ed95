"""Words that all messages here share: names made printable, lists made short, guesses at what was meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nanhunt.literal import literal
from nanhunt.load.tensor import Tensor

LISTED = 12
"""How many tensors a message lists before it says "and N more"."""
printable = literal
READABLE = (
    ".npy, .npz, .pt/.pth/.bin/.ckpt, .safetensors, .gguf, .onnx, .h5, .parquet and more (.github/GUIDE.md)"
)


def described(tensor: Tensor) -> str:
    """A tensor in a list: ``logits float32 (4, 10)``."""
    name = f"{printable(tensor.name)} " if tensor.name else ""
    return f"{name}{tensor.dtype} {tensor.shape}"


def listed(items: Iterable[str]) -> str:
    """The first ``LISTED`` of them, then how many more."""
    items = list(items)
    more = f" and {len(items) - LISTED:,} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + more


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """``Did you mean "logits"? `` (with the space), or nothing when no name is near."""
    near = _near(word, [name for name in names if name])
    return f'Did you mean "{printable(near[0])}"? ' if near else ""


def _near(word: str, names: Sequence[str]) -> list[str]:
    # Loaded here because only a mistake needs it.
    from difflib import get_close_matches

    folded = {name.casefold(): name for name in reversed(names)}
    within = [name for name in names if word and word.casefold() in name.casefold()]
    close = get_close_matches(word.casefold(), folded, n=1)
    return [folded[close[0]]] if close else sorted(within, key=len)[:1]
