"""Rule 1 over many rows: an error where what F.cross_entropy computes is not finite, a warning where the naive form's
is not, and nowhere else; every other verdict and count as PyTorch gives them, too.

    python tests/benchmarks/verdicts.py                  # 10^6 rows over fresh seeds; about an hour on one core
    python tests/benchmarks/verdicts.py --rows 20000 --seed 7

Draws logits near every cliff of every dtype, in both layouts, with labels, probabilities and none, under all options,
and holds check and compare against tests/property/oracle.py. Prints every problem that differs, with its seed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "property"))

from oracle import Problem
from test_verdicts import FLOAT8, NUDGES, assert_verdicts_are_true, cliffs, verdicts_alone

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, *FLOAT8)
CLASSES = (1, 2, 3, 5, 17, 130, 300)
INNER = (0, 0, 0, 1, 2, 7, 15, 16, 17, 33, 63, 64, 65, 127, 129, 1000)
"""d of (N, C, d); 0: (N, C)."""


def pick(rng: np.random.Generator, values: object) -> object:
    """One of them, as it is."""
    chosen = list(values)  # type: ignore[call-overload]
    return chosen[int(rng.integers(len(chosen)))]


def problem(seed: int) -> Problem:
    """Logits of one kind, and a loss."""
    rng = np.random.default_rng(seed)
    stored = pick(rng, DTYPES)
    dtype = stored if rng.random() < 0.7 else pick(rng, DTYPES)
    classes, inner = int(pick(rng, CLASSES)), int(pick(rng, INNER))
    rows = max(1, min(int(rng.integers(1, 400)), 60_000 // classes // max(1, inner)))
    shape = (rows, classes, inner) if inner else (rows, classes)
    leading = (rows, inner) if inner else (rows,)
    labels = torch.from_numpy(rng.integers(0, classes, leading))
    logits = _near_cliffs(rng, shape, labels, dtype)
    found = Problem(logits.to(stored), dtype, axis=1 if inner else -1, reduction=pick(rng, ("mean", "sum")))
    kind = pick(rng, ("labels", "labels", "soft", "none"))
    if kind == "labels":
        ignored = torch.from_numpy(rng.random(leading) < pick(rng, (0.0, 0.0, 0.1)))
        found.labels = labels.masked_fill(ignored, found.ignore)
    elif kind == "soft":
        y = torch.from_numpy(rng.standard_normal(shape) * 3).softmax(1)
        found.probabilities = y.where(y > pick(rng, (0.0, 0.2 / classes)), 0.0).float()
        found.probabilities /= found.probabilities.sum(1, keepdim=True)
    if rng.random() < 0.5:
        found.smoothing = float(pick(rng, (0.0, 0.1, 0.1, 1.0)))
        found.temperature = float(pick(rng, (1.0, 1.0, 0.5, 2.0, 0.01)))
        if kind != "none" and rng.random() < 0.5:
            found.weights = torch.from_numpy(rng.random(classes) * (rng.random(classes) < 0.9))
    return found


def _near_cliffs(
    rng: np.random.Generator, shape: tuple[int, ...], labels: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """float64: noise, and in every row the label, one class or all of them at a cliff; sometimes a mask."""
    one = (shape[0], 1, *shape[2:])
    at = rng.choice(cliffs(dtype, shape[1]), one) + rng.choice(NUDGES, one) * rng.choice((-1, 1), one)
    x, shift = (
        torch.from_numpy(rng.standard_normal(shape) * rng.choice((1e-3, 0.1, 1.0, 5.0))),
        torch.from_numpy(at),
    )
    where = pick(rng, ("all", "label", "any"))
    if where == "all":
        x = x + shift
    else:
        index = labels.unsqueeze(1) if where == "label" else torch.from_numpy(rng.integers(0, shape[1], one))
        x = x.scatter_add(1, index, shift)
    share = pick(rng, (0.0, 0.0, 0.0, 0.02))
    return x.masked_fill(torch.from_numpy(rng.random(shape) < share), -np.inf)


def main() -> int:
    """Exit code 1 if anything differed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10**6)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    seed, rows, problems, differing = asked.seed, 0, 0, []
    while rows < asked.rows:
        drawn = problem(seed)
        try:
            with verdicts_alone():
                assert_verdicts_are_true(drawn)
        except AssertionError as error:
            differing.append(seed)
            print(
                f"seed {seed}: {drawn.stored.dtype} {tuple(drawn.stored.shape)} in {drawn.dtype}: {error}",
                flush=True,
            )
        rows, problems, seed = rows + drawn.stored.numel() // drawn.stored.shape[1], problems + 1, seed + 1
    print(f"{rows:,} rows of {problems:,} problems from seed {asked.seed}: {len(differing)} problems differ")
    return int(bool(differing))


if __name__ == "__main__":
    raise SystemExit(main())
