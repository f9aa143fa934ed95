"""Writes the sample files beside itself, or into the folder given: `python samples/make.py [FOLDER]`.

The same seed gives the same values, so a test can tell whether the files are still what this script writes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

SEED = 20261121
ROWS, CLASSES = 64, 1000
STEPS = 12
IGNORED = -100
INF = float("inf")

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


def articles_batch() -> tuple[Floats, Labels]:
    """The 3 x 3 batch that articles on the softmax use: logits (3, 3), labels (3,)."""
    logits = np.array([[2.0, 1.0, 0.1], [1000.0, 1.0, -1000.0], [3.0, 2.0, 1.0]], dtype=np.float32)
    return logits, np.array([0, 2, 1])


def language_model_batch(rng: np.random.Generator) -> tuple[Floats, Labels]:
    """Healthy next-token logits (64, 1000) and labels (64,): one unigram slope, a few likely tokens a row."""
    unigram = -np.round(4 * np.log1p(np.arange(CLASSES))) / 4
    logits = np.tile(unigram, (ROWS, 1)).astype(np.float32)
    labels = np.empty(ROWS, dtype=np.int64)
    for row in logits:
        row[rng.choice(CLASSES, 20, replace=False)] += rng.integers(8, 40, 20) / 4
    for number, row in enumerate(logits):
        # Stable: how ties are ordered otherwise differs from processor to processor.
        labels[number] = rng.choice(np.argsort(row, kind="stable")[-40:])
    return logits, labels


def plant_faults(logits: Floats, labels: Labels) -> None:
    """One fault in each of these rows; rows 42 and 43 look odd and are legal."""
    logits[5, 17] = 95.0  # exp(95) is beyond float32
    logits[9, 100:104] = 88.5  # each exp is finite, their sum is not
    logits[14] -= 130.0  # every exp is 0
    logits[20, :2] = 60.0, -60.0  # the label's probability is 0
    labels[20] = 1
    logits[26, :2] = 50.0, -48.0  # the label's probability is not 0, but 1/p is inf
    labels[26] = 1
    logits[31, 7] = np.nan
    logits[37] = -INF  # a row of padding that a mask emptied
    logits[42, CLASSES // 2 :] = -INF  # legal: half of the vocabulary is masked, the label is not
    labels[42] = 3
    labels[43] = IGNORED  # legal
    labels[47] = CLASSES  # a padding token that the model has no output for
    logits[50, labels[50]] = -INF  # the mask forbids the label
    logits[53, 8] = INF  # the loss ignores the row, the backward pass does not
    labels[53] = IGNORED
    logits[58, 12] = 40.0  # so certain that loss and gradient round to 0
    labels[58] = 12
    logits[61, 30] = 85.0  # still finite, not for long


def attention_scores(rng: np.random.Generator) -> torch.Tensor:
    """bfloat16 (2 sequences, 2 heads, 8 queries, 8 keys), causal; three faults."""
    values = torch.from_numpy(rng.integers(-12, 12, (2, 2, 8, 8)) / 4).to(torch.bfloat16)
    future = torch.ones(8, 8, dtype=torch.bool).triu(1)
    scores = values.masked_fill(future, -INF)
    scores[1, :, :2, :2] = -INF  # left padding leaves nothing for query 0 and 1 of the second sequence
    scores[0, 1, 6, 2] = 89.0  # the largest bfloat16 with a finite exp is 88.5
    return scores


def policy_batch() -> dict[str, torch.Tensor]:
    """A GRPO step under TRL's names, 3 completions of 6 tokens; three log-ratios beyond exp's limit, 88.72."""
    new = -torch.arange(1, 19).reshape(3, 6) / 8
    old = new - torch.tensor([[0.0, 0.125, -0.25, 0.0, 0.25, -0.125]])
    old[0, 2] = -100.0  # advantage above 0: the loss is finite, its gradient NaN
    old[1, 4] = -90.0  # padding
    old[2, 1] = -101.0  # advantage below 0: beyond float32 however it is written
    mask = torch.ones(3, 6, dtype=torch.int64)
    mask[1, 3:] = 0
    advantages = torch.tensor([1.0, 0.5, -1.5])
    return {
        "per_token_logps": new, "old_per_token_logps": old, "advantages": advantages, "completion_mask": mask
    }  # fmt: skip


def preference_batch() -> dict[str, torch.Tensor]:
    """Four pairs of a DPO step under TRL's names; with beta 0.1 the margin of pair 2 is -95.5, of pair 3 170."""
    zero = torch.tensor([-20.0, -31.5, -45.0, -40.0])
    return {
        "chosen_logps": torch.tensor([-18.0, -32.0, -1000.0, -36.0]), "ref_chosen_logps": zero.clone(),
        "rejected_logps": torch.tensor([-25.0, -31.0, -45.0, -1736.0]), "ref_rejected_logps": zero.clone(),
    }  # fmt: skip


def checkpoint(rng: np.random.Generator) -> dict[str, Any]:
    """A Lightning-like checkpoint: weights, one of them NaN, and Adam moments too small for float16."""

    def values(*shape: int, scale: float) -> torch.Tensor:
        return torch.from_numpy(rng.integers(-64, 64, shape) * scale / 64).float()

    head = values(16, 8, scale=0.25)
    head[5, 3] = float("nan")
    weights = {"embed.weight": values(16, 8, scale=0.5), "head.weight": head, "head.bias": torch.zeros(16)}
    moments = {
        number: {"step": torch.tensor(300.0), "exp_avg_sq": values(16, 8, scale=1e-4).square()}
        for number in range(2)
    }
    return {
        "epoch": 3,
        "global_step": 300,
        "state_dict": {f"model.{name}": tensor for name, tensor in weights.items()},
        "optimizer_states": [{"state": moments}],
    }


def optimizer_state() -> dict[str, Any]:
    """Adam's state of two weights: one second moment is negative, and those of the other were saved as float16."""
    first = torch.arange(1, 9).reshape(2, 4) / 4096
    second = first.square()
    broken = second.clone()
    broken[1, 2] = -broken[1, 2]
    small = first / 64
    return {
        "state": {
            0: {"step": torch.tensor(900.0), "exp_avg": first, "exp_avg_sq": broken},
            1: {"step": torch.tensor(900.0), "exp_avg": small, "exp_avg_sq": small.square().half().float()},
        },
        "param_groups": [{"lr": 1e-3, "eps": 1e-8, "params": [0, 1]}],
    }


def dump_of_step(step: int, rng: np.random.Generator) -> tuple[Floats, Labels]:
    """Logits (8, 40) whose scale grows by half each step, as with a learning rate that is too high."""
    logits = rng.integers(-16, 17, (8, 40)) / 16 * 1.5**step
    return logits.astype(np.float32), rng.integers(0, 40, 8)


def operations(rng: np.random.Generator) -> dict[str, dict[str, torch.Tensor]]:
    """Small tensors by role, a file for each operation, with one or two faults that are said beside them."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.integers(-12, 13, shape).astype(np.float32) / 4)

    masked, scores, mixture = normal(6, 8), normal(6, 8), normal(6, 8)
    masked[2, 5:] = -INF  # actions that are not legal
    scores[1] *= 60  # exp overflows
    scores[4] = -INF  # a row of nothing
    hidden, latents = (normal(6, 16) * 8).half(), normal(6, 4)
    hidden[3, 7] = 300.0  # its square is beyond float16
    latents[5, 1] = 90.0  # a variance beyond float32
    teacher = torch.eye(8)[[0, 3, 1, 7]] * 0.75 + 0.25 * torch.eye(8)[[1, 2, 2, 0]]  # probabilities of 0
    losses, kept = normal(4, 6).abs(), torch.ones(4, 6, dtype=torch.bool)
    losses[1, 5] = float("nan")  # padding that was never computed
    kept[1, 4:] = False
    kept[3] = False  # a response of nothing
    anchors, positives = normal(5, 8), normal(5, 8)
    positives[2] = anchors[2]  # the same example twice
    unlikely = -normal(6).abs() - 0.25
    unlikely[4] = -1e-9  # a probability of 1, all but
    noise = torch.from_numpy(rng.integers(1, 64, (4, 8)).astype(np.float32) / 64)
    noise[1, 3] = 1.0  # what a uniform number near 1 is in half precision
    return {
        "entropy": {"logits": masked},
        "logsumexp": {"logits": scores},
        "softmax": {"logits": masked},
        "norm": {"hidden_states": hidden},
        "gaussian-kl": {"mu": normal(6, 4), "logvar": latents},
        # In float64 and rounded once: the last digit of a float32 log_softmax is the processor's.
        "kl": {"log_probs": mixture[:4].double().log_softmax(-1).float(), "target": teacher},
        "masked-mean": {"values": losses, "mask": kept},
        "distance": {"a": anchors, "b": positives},
        "log1mexp": {"log_probs": unlikely},
        "contrastive": {"sim": torch.from_numpy(np.where(np.eye(6), 1.0, 0.125)).half()},  # t = 0.07
        "gumbel-softmax": {"logits": normal(4, 8), "noise": noise},
    }


def write(folder: Path) -> None:
    """Writes all samples into ``folder``."""
    rng = np.random.default_rng(SEED)
    (folder / "steps").mkdir(parents=True, exist_ok=True)
    logits, labels = articles_batch()
    np.save(folder / "logits.npy", logits)
    np.save(folder / "labels.npy", labels)
    logits, labels = language_model_batch(rng)
    plant_faults(logits, labels)
    np.savez_compressed(folder / "batch.npz", logits=logits, labels=labels)
    save_file({"layers.0.attn.scores": attention_scores(rng)}, folder / "attention.safetensors")
    save_file(policy_batch(), folder / "policy.safetensors")
    save_file(preference_batch(), folder / "preference.safetensors")
    torch.save(checkpoint(rng), folder / "checkpoint.pt")
    (folder / "operations").mkdir(exist_ok=True)
    for name, tensors in operations(np.random.default_rng(SEED)).items():
        save_file(tensors, folder / "operations" / f"{name}.safetensors")
    torch.save(optimizer_state(), folder / "optimizer.pt")
    for step in range(1, STEPS + 1):
        logits, labels = dump_of_step(step, rng)
        np.savez(folder / "steps" / f"step-{step}.npz", logits=logits, labels=labels)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
