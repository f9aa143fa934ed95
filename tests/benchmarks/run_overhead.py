"""What watching costs: step time and memory of two transformers, side by side in one run.

    python tests/benchmarks/run_overhead.py [--rounds 5] [--json FILE]

Variants take turns, a few steps at a time, so that whatever else the machine does hits all of them. The ratio is of
medians over rounds. ``hooks`` does what transformers' DebugUnderflowOverflow does: extremes of every module's weights,
inputs and outputs, and a test for NaN and infinity.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from nanhunt.watch.session import Session, Settings

REACH = {("large", "nanhunt run"): 1.05, ("tiny", "nanhunt run"): 1.4}
REACH_MIB = 32


@dataclass(frozen=True)
class Size:
    width: int
    layers: int
    batch: int
    length: int
    steps: int
    """Per round."""


SIZES = {"large": Size(256, 4, 8, 128, 3), "tiny": Size(64, 4, 2, 32, 40)}
CLASSES = 1000


class Block(torch.nn.Module):
    """A pre-norm transformer layer written out, as training scripts do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = 4
        self.first, self.second = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.mix, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)
        self.dropout = torch.nn.Dropout(0.1)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        query, key, value = (
            part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.mix(x).chunk(3, dim=-1)
        )
        scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = self.dropout(scores.masked_fill(mask, float("-inf")).softmax(-1))
        return self.out((weights @ value).transpose(1, 2).reshape(batch, length, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attend(self.first(x))
        return x + self.dropout(self.down(F.gelu(self.up(self.second(x)))))


class Training:
    """A model, its optimizer, and one step."""

    def __init__(self, size: Size) -> None:
        torch.manual_seed(0)
        self.size = size
        self.model = torch.nn.Sequential(
            torch.nn.Embedding(CLASSES, size.width),
            *[Block(size.width) for _ in range(size.layers)],
            torch.nn.Linear(size.width, CLASSES),
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)

    def step(self) -> None:
        tokens = torch.randint(0, CLASSES, (self.size.batch, self.size.length))
        loss = F.cross_entropy(self.model(tokens).flatten(0, 1), tokens.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def plain(training: Training) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext()


def watched(training: Training) -> contextlib.AbstractContextManager[Any]:
    return Session(Settings(), _unexpected)


def every_op(training: Training) -> contextlib.AbstractContextManager[Any]:
    return Session(Settings(every_op=True), _unexpected)


def _unexpected(incident: object) -> None:
    raise AssertionError(f"a healthy model was reported: {incident}")


def anomaly(training: Training) -> contextlib.AbstractContextManager[Any]:
    return torch.autograd.detect_anomaly()


@contextlib.contextmanager
def hooks(training: Training) -> Iterator[None]:
    frames: deque[tuple[str, float, float]] = deque(maxlen=21)

    def look(name: str, tensor: object) -> None:
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
            size = tensor.detach().abs()
            frames.append((name, float(size.min()), float(size.max())))
            assert not tensor.isnan().any() and not tensor.isinf().any()

    def hook(module: torch.nn.Module, inputs: tuple[object, ...], output: object) -> None:
        for name, weight in module.named_parameters(recurse=False):
            look(name, weight)
        for item in (*inputs, output):
            look(type(module).__name__, item)

    handles = [module.register_forward_hook(hook) for module in training.model.modules()]
    yield
    for handle in handles:
        handle.remove()


VARIANTS: dict[str, Callable[[Training], contextlib.AbstractContextManager[Any]]] = {
    "plain": plain,
    "nanhunt run": watched,
    "nanhunt run --every-op": every_op,
    "detect_anomaly": anomaly,
    "hooks": hooks,
}


def times(size: Size, rounds: int) -> dict[str, float]:
    """Milliseconds per step of each variant: the median over rounds."""
    trainings = {name: Training(size) for name in VARIANTS}
    seen: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for turn in range(rounds + 1):
        for name, variant in VARIANTS.items():
            training = trainings[name]
            with variant(training):
                training.step()
                start = time.perf_counter()
                for _ in range(size.steps):
                    training.step()
                if turn:  # the first is for warming up
                    seen[name].append((time.perf_counter() - start) / size.steps * 1e3)
    return {name: statistics.median(values) for name, values in seen.items()}


def memory(name: str, size: str) -> tuple[float, float]:
    """MiB at the peak after 15 steps, and after 45, in a process of its own."""
    command = [sys.executable, __file__, "--child", name, "--size", size]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(found[0]), float(found[1])


def _child(name: str, size: str) -> None:
    torch.set_num_threads(2)
    training = Training(SIZES[size])
    peaks = []
    with VARIANTS[name](training):
        for steps in (15, 30):
            for _ in range(steps):
                training.step()
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(*peaks)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=VARIANTS)
    parser.add_argument("--size", choices=SIZES, default="large")
    arguments = parser.parse_args()
    if arguments.child:
        _child(arguments.child, arguments.size)
        return
    torch.set_num_threads(2)
    result: dict[str, Any] = {}
    for label, size in SIZES.items():
        print(
            f"{label}: {size.layers} layers, width {size.width}, batch {size.batch} x {size.length}, CPU, 2 threads"
        )
        taken = times(size, arguments.rounds)
        for name, value in taken.items():
            ratio, reach = value / taken["plain"], REACH.get((label, name))
            print(f"  {name:24} {value:8.2f} ms  {ratio:5.3f}x" + (f"  (reach: {reach}x)" if reach else ""))
        result[label] = taken
    for name in ("plain", "nanhunt run"):
        result[f"memory {name}"] = early, late = memory(name, "large")
        print(f"peak memory, large, {name:12} {early:8.1f} MiB after 15 steps, {late:8.1f} MiB after 45")
    extra = result["memory nanhunt run"][1] - result["memory plain"][1]
    print(f"more memory: {extra:.1f} MiB (reach: {REACH_MIB} MiB)")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
