"""Whole processes: ``nanhunt check FILE --op NAME`` beside plain torch that runs the naive and the fused form once.

``python tests/benchmarks/operations_speed.py [MiB]`` writes one file an operation, healthy and all bad, and prints the
seconds of both and their ratio; 512 MiB unless told otherwise. The file was just written, so it is in memory.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from processes import FOUND, medians, nanhunt

LOAD = """
import sys, numpy as np, torch, torch.nn.functional as F
t = {name: torch.from_numpy(each) for name, each in np.load(sys.argv[1]).items()}
"""
"""Plain torch reads the file whole."""
RUN = """
for form in (naive, fused):
    x = t[MAIN].clone().requires_grad_()
    form(x).sum().backward()
    print(bool(x.grad.isfinite().all()))
"""
PLAIN = {
    "entropy": (
        "logits",
        "def naive(x):\n    p = x.softmax(-1)\n    return -(p * p.log()).sum(-1)\n"
        "def fused(x):\n    return torch.distributions.Categorical(logits=x, validate_args=False).entropy()\n",
    ),
    "bce": (
        "logits",
        "y = t['targets']\n"
        "def naive(x):\n    s = x.sigmoid()\n    return -(y * s.log() + (1 - y) * (1 - s).log())\n"
        "def fused(x):\n    return F.binary_cross_entropy_with_logits(x, y, reduction='none')\n",
    ),
    "norm": (
        "hidden_states",
        "def naive(x):\n    return x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()\n"
        "def fused(x):\n    return F.rms_norm(x, x.shape[-1:], eps=1e-6)\n",
    ),
    "ppo": (
        "log_probs",
        "old, a = t['old_log_probs'], t['advantages']\n"
        "def naive(x):\n    r = (x - old).exp()\n    return -torch.minimum(r * a, r.clamp(0.8, 1.2) * a)\n"
        "fused = naive\n",
    ),
}


def tensors(op: str, size: int, bad: bool) -> dict[str, np.ndarray]:
    """float32 tensors of ``size`` bytes together, healthy or with every row bad."""
    rng = np.random.default_rng(0)
    count = size // 4
    if op in ("entropy", "norm"):
        x = rng.standard_normal((count // 4096, 4096), np.float32)
        if bad:
            x[:, 0] = -np.inf if op == "entropy" else np.nan
        return {PLAIN[op][0]: x}
    if op == "bce":
        y = (rng.random(count // 2, np.float32) < 0.5).astype(np.float32)
        x = rng.standard_normal(count // 2, np.float32)
        return {"logits": np.where(y == 1, 30, -120).astype(np.float32) if bad else x, "targets": y}
    shape = (count // 3 // 512, 512)
    new = -rng.random(shape, np.float32)
    old = new - 100 if bad else new + rng.standard_normal(shape, np.float32) * 0.1
    return {
        "log_probs": new,
        "old_log_probs": old.astype(np.float32),
        "advantages": np.ones(shape, np.float32),
    }


def main(size: int) -> None:
    """Prints a line for each operation and each of healthy and bad."""
    with tempfile.TemporaryDirectory() as folder:
        for op, (role, code) in PLAIN.items():
            for bad in (False, True):
                path = str(Path(folder) / f"{op}.npz")
                np.savez(path, **tensors(op, size << 20, bad))
                torch = [sys.executable, "-c", LOAD + code + RUN.replace("MAIN", repr(role)), path]
                check = nanhunt("check", path, "--op", op, "--quiet")
                plain, ours = medians(1, torch, check, expected={1: FOUND if bad else 0})
                state = "all bad" if bad else "healthy"
                print(
                    f"{op:8} {state}  torch {plain:6.2f} s  nanhunt {ours:6.2f} s  {ours / plain:5.2f}x",
                    flush=True,
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 512)
