"""What people dump, and what is said of it: the loss that is judged is the user's, or none is.

Every dump is hot: as a softmax it breaks, so that a word about one where there is none would be seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nanhunt
from nanhunt.render import render

RNG = np.random.default_rng(11)
HOT = 300.0


def normal(*shape: int) -> torch.Tensor:
    return HOT * torch.from_numpy(RNG.standard_normal(shape).astype(np.float32))


def integers(high: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.integers(0, high, shape))


TOKENS = integers(50, 3, 12)
CAUSAL = normal(3, 12, 12).masked_fill(torch.ones(12, 12, dtype=torch.bool).triu(1), -torch.inf)
IMAGES = normal(2, 5, 6, 7)

DUMPS: dict[str, tuple[Any, str | None, str]] = {
    # name: (what is saved, the labels judged; None: the softmax alone; "": numbers only), what is said
    "transformers causal": (
        {"logits": normal(3, 12, 50), "labels": TOKENS, "input_ids": TOKENS},
        "labels", "label t + 1",
    ),
    "transformers outputs and batch": (
        {"out": {"logits": normal(3, 12, 50)}, "batch": {"labels": TOKENS, "input_ids": TOKENS}},
        "batch.labels", "the labels are batch.input_ids themselves",
    ),
    "transformers without inputs": ({"logits": normal(3, 12, 50), "labels": TOKENS}, None, "--no-shift or --shift"),
    "masked language model": (
        {"logits": normal(3, 12, 50), "labels": torch.where(TOKENS % 6 == 0, TOKENS + 1, -100), "input_ids": TOKENS},
        "labels", "",
    ),
    "classifier on tokens": ({"logits": normal(3, 4), "labels": integers(4, 3), "input_ids": TOKENS}, "labels", ""),
    "nanoGPT": ({"logits": normal(36, 50), "targets": TOKENS.flatten()}, "targets", ""),
    "Keras": ({"y_pred": normal(8, 4), "y_true": integers(4, 8, 1)}, "y_true", "assumed to be logits"),
    "Keras, binary": ({"y_pred": normal(8, 1), "y_true": integers(2, 8, 1).float()}, "", "one class a row"),
    "segmentation": ({"logits": IMAGES, "labels": integers(5, 2, 6, 7)}, "labels", "class axis 1"),
    "segmentation without labels": ({"logits": IMAGES}, None, "for images: --class-axis 1"),
    "segmentation, binary": ({"logits": IMAGES[:, :1], "masks": (IMAGES[:, 1:2] > 0).float()}, "", "no probabilities"),
    "multi-label": ({"logits": normal(8, 6), "labels": (normal(8, 6) > 0).float()}, "", "--op bce"),
    "regression": ({"pred": normal(8, 3), "target": normal(8, 3)}, "", "looks like a regression"),
    "regression of one number": ({"pred": normal(8, 1), "target": normal(8, 1)}, "", "one class a row"),
    "reward model": ({"logits": normal(8, 1)}, "", "one class a row"),
    "rewards": ({"scores": normal(8)}, "", ""),
    "contrastive": ({"logits_per_image": normal(8, 8), "logits_per_text": normal(8, 8)}, None, "no targets"),
    "similarity": ({"similarity": normal(8, 8)}, None, "assumed to be logits"),
    "attention": ({"attn_scores": CAUSAL[:, None], "labels": integers(2, 3)}, None, "does not fit"),
    "distillation": ({"teacher_logits": normal(8, 4), "labels": integers(4, 8)}, None, "not taken for its own"),
    "tuple": ((normal(8, 4), integers(4, 8)), "1", "assumed to be logits"),
    "tuple under a key": ({"step_7": (normal(8, 4), integers(4, 8))}, "step_7.1", "assumed to be logits"),
    "tuples by step": ({f"s{i}": (normal(8, 4), integers(4, 8)) for i in range(3)}, "s0.1", "assumed to be logits"),
    "segmentation, cubic": (
        {"logits": normal(2, 5, 5, 5), "labels": integers(5, 2, 5, 5)},
        "labels", "class axis 1, where F.cross_entropy has it",
    ),
    "segmentation with a mask": ({"logits": IMAGES, "mask": integers(5, 2, 6, 7)}, "mask", "class axis 1"),
    "a tuple of segmentation": ((IMAGES, integers(5, 2, 6, 7)), "1", "class axis 1"),
    "attention's mask is no label": (
        {"logits": normal(3, 12, 50), "attention_mask": torch.ones(3, 12, dtype=torch.int64)}, None, "no targets",
    ),
    "a NumPy array in a dict": ({"logits": normal(8, 4).numpy(), "labels": integers(4, 8).numpy()}, "labels", ""),
    "prefixes": (
        {f"step{i}_{name}": value for i in range(2) for name, value in
         (("logits", normal(8, 4)), ("labels", integers(4, 8)))},
        "step0_labels", "",
    ),
    "list of steps": ([{"logits": normal(8, 4), "labels": integers(4, 8)}] * 2, "0.labels", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", DUMPS)
def test_no_word_about_a_loss_that_is_not_the_users(name: str, tmp_path: Path) -> None:
    content, labels, words = DUMPS[name]
    path = tmp_path / "dump.pt"
    torch.save(content, path)
    report = nanhunt.check(path)
    assert not report.errors
    first = report.tensors[0]
    assert words in "\n".join(first.notes)
    assert first.role == ("values" if labels == "" else "logits")
    assert (first.targets.source if first.targets else None) == (f"{path}:{labels}" if labels else None)
    assert bool(first.findings) == (first.role == "logits")  # hot: each softmax breaks, and nothing else does
    assert ("F.cross_entropy" in render(report, "text")) == bool(labels)
