"""The truth of bce, ppo and attention, and its gradient, against mpmath with 140 digits: both sides of every cliff."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mpmath
import pytest
import torch

from nanhunt.load.memory import tensor_of
from nanhunt.operations.judge import run_truth
from nanhunt.operations.problem import problem_of, read_block
from nanhunt.operations.registry import OPERATIONS

mpf = mpmath.mpf
Numbers = Mapping[str, Any]
Exact = Callable[[Mapping[str, list[Any]]], list[Any]]
"""(numbers by role, flat) -> the values, flat."""
TOLERANCE = 2e-12
"""Relative: some thousand roundings of float64, and of a number that this is the difference of."""


def truth_of(op: str, numbers: Numbers, options: Numbers) -> tuple[list[float], dict[str, list[float]]]:
    """(values, gradients of their sum by role), flat, as the operation has them in float64."""
    operation = OPERATIONS[op]
    tensors = {
        name: torch.tensor(each, dtype=None if name in ("mask", "attn_mask") else torch.float64)
        for name, each in numbers.items()
    }
    given = {name: tensor_of(each, name) for name, each in tensors.items()}
    problem = problem_of(operation, given, "float64", operation.options(**options), frozenset())
    ran = run_truth(operation, read_block(problem, 0, problem.plan.group_count), 1.0)
    gradients = {name: each.reshape(-1).tolist() for name, each in ran.gradients.items()}
    return ran.value.reshape(-1).tolist(), gradients


def flat(numbers: Any) -> list[Any]:
    return [one for each in numbers for one in flat(each)] if isinstance(numbers, list) else [numbers]


def close(found: Sequence[float], exact: Sequence[Any], size: Any = 0) -> bool:
    """Within TOLERANCE of the number, or of ``size``; 1e-110 is as good as 0."""
    return all(
        abs(one - two) <= TOLERANCE * max(abs(two), size) + mpf("1e-110")
        for one, two in zip(found, exact, strict=True)
    )


def compare(op: str, numbers: Numbers, options: Numbers, exact: Exact, size: Any = 0) -> None:
    """Values and gradients; ``exact`` is differentiated entry by entry."""
    values, gradients = truth_of(op, numbers, options)
    with mpmath.workdps(140):
        high = {
            name: [mpf(x) if not isinstance(x, bool) else x for x in flat(each)]
            for name, each in numbers.items()
        }
        assert close(values, exact(high), size)
        for name, found in gradients.items():
            slopes = [slope(exact, high, name, at) for at in range(len(high[name]))]
            assert close(found, slopes, size), (name, found, slopes)


def slope(exact: Exact, numbers: Mapping[str, list[Any]], name: str, at: int) -> Any:
    """How the sum of the values changes with that number; each value by itself, since their sizes are far apart."""
    step = mpf("1e-60")
    above, below = (
        exact({**numbers, name: [*numbers[name][:at], numbers[name][at] + each, *numbers[name][at + 1 :]]})
        for each in (step, -step)
    )
    return mpmath.fsum((one - two) / (2 * step) for one, two in zip(above, below, strict=True))


CLIFFS = (
    0.0, 5.3, 6.25, 8.32, 16.63, 16.64, 27.6, 36.7, 37.5, 88.7, 88.73, 103.9, 104.1, 709.7, 709.8, 745.2,
)  # fmt: skip
"""Where sigmoid, its logarithm or an exp leaves one of the four formats."""


def softplus(x: Any) -> Any:
    return mpmath.log1p(mpmath.exp(x))


def weighted(x: Any, y: Any, gamma: Any, weight: Any) -> Any:
    up, down = softplus(-x), softplus(x)
    return weight * y * up * mpmath.exp(-gamma * down) + (1 - y) * down * mpmath.exp(-gamma * up)


@pytest.mark.parametrize(("gamma", "weight"), [(0.0, 1.0), (2.0, 1.0), (0.5, 1.0), (0.0, 3.0)])
@pytest.mark.parametrize("y", [0.0, 1.0, 0.3])
def test_bce(y, gamma, weight):
    x = [sign * each for each in CLIFFS for sign in (1.0, -1.0)]

    def exact(t):
        return [weighted(one, two, mpf(gamma), mpf(weight)) for one, two in zip(*t.values(), strict=True)]

    compare("bce", {"logits": x, "targets": [y] * len(x)}, {"gamma": gamma, "pos_weight": weight}, exact)


@pytest.mark.parametrize("last", [0.0, 0.3])
def test_bce_of_infinite_logits_is_the_same_beside_hard_and_soft_labels(last):
    x = [math.inf, -math.inf, math.inf, -math.inf, 2.0]
    numbers = {"logits": x, "targets": [1.0, 0.0, 0.0, 1.0, last]}
    values, gradients = truth_of("bce", numbers, {})
    assert values[:4] == [0.0, 0.0, math.inf, math.inf]
    assert gradients["logits"][:4] == [0.0, 0.0, 1.0, -1.0]


def test_a_preference():
    margins = [*CLIFFS, *(-each for each in CLIFFS)]
    numbers = {
        "chosen": [each - 200 for each in margins], "rejected": [-200.0] * len(margins),
        "ref_chosen": [-3.5] * len(margins), "ref_rejected": [-3.25] * len(margins),
    }  # fmt: skip

    def exact(t):
        return [softplus(-mpf(0.1) * (a - b - (c - d))) for a, b, c, d in zip(*t.values(), strict=True)]

    compare("bce", numbers, {"beta": 0.1}, exact)


RATIOS = (
    0.0,
    0.17,
    0.19,
    -0.2,
    -0.23,
    5.0,
    11.0,
    11.2,
    19.0,
    21.0,
    88.7,
    88.8,
    103.0,
    300.0,
    -88.7,
    -104.0,
    -700.0,
)


def surrogate(d: Any, a: Any, low: Any, high: Any, dual: Any) -> Any:
    """Schulman et al. 2017, eq. 7; Ye et al. 2020, eq. 5."""
    r = mpmath.exp(d)
    loss = -min(r * a, min(max(r, 1 - low), 1 + high) * a)
    return min(loss, -dual * a) if a < 0 and dual else loss


PENALTIES = {
    "k1": lambda k: -k,
    "k2": lambda k: k * k / 2,
    "k3": lambda k: mpmath.exp(k) - k - 1,
}


@pytest.mark.parametrize(
    "options",
    [
        {"kl": "none"}, {"kl": "none", "clip_low": 0.1, "clip_high": 0.28}, {"kl": "none", "clip_dual": 3.0},
        {"kl": "k1"}, {"kl": "k2"},
        {"kl": "k3", "beta": 0.04},
    ],
)  # fmt: skip
@pytest.mark.parametrize("advantage", [1.5, -0.75, 0.0])
def test_ppo(advantage, options):
    numbers = {
        "log_probs": [[each - 1000 for each in RATIOS], [-1.0] * len(RATIOS)],
        "old_log_probs": [[-1000.0] * len(RATIOS), [-2.0] * len(RATIOS)],
        "ref_log_probs": [[each * 0.9 - 1000 for each in RATIOS], [-1.5] * len(RATIOS)],
        "advantages": [advantage, -advantage],
        "mask": [[True] * len(RATIOS), [True] + [False] * (len(RATIOS) - 1)],
    }

    def exact(t):
        low, high = mpf(options.get("clip_low", 0.2)), mpf(options.get("clip_high", 0.2))
        found = []
        for at, new in enumerate(t["log_probs"]):
            a = t["advantages"][at // len(RATIOS)]
            loss = surrogate(new - t["old_log_probs"][at], a, low, high, mpf(options.get("clip_dual", 0)))
            if options["kl"] != "none":
                estimate = PENALTIES[options["kl"]](t["ref_log_probs"][at] - new)
                loss += mpf(options.get("beta", 0.1)) * estimate
            found.append(loss if t["mask"][at] else mpf(0))
        return found

    compare("ppo", numbers, options, exact)


def test_a_ratio_beyond_float64_is_clipped_or_masked_before_it_is_formed():
    numbers = {
        "log_probs": [[-1.0, -1.0]], "old_log_probs": [[-900.0, -900.0]], "advantages": [1.5],
        "mask": [[True, False]],
    }  # fmt: skip
    compare("ppo", numbers, {}, lambda t: [-mpf(1.2) * t["advantages"][0], mpf(0)])


def test_ppo_of_sequences():
    numbers = {
        "log_probs": [[-1.0, -3.0, -90.0], [-1.0, -2.0, -7.0]],
        "old_log_probs": [[-1.5, -2.0, 0.0], [-1.25, -200.0, -1.0]],
        "advantages": [2.0, -1.0], "mask": [[True, True, False], [True, True, True]],
    }  # fmt: skip

    def exact(t):
        found = []
        for row in range(2):
            kept = [at for at in range(3 * row, 3 * row + 3) if t["mask"][at]]
            d = mpmath.fsum(t["log_probs"][at] - t["old_log_probs"][at] for at in kept) / len(kept)
            found.append(surrogate(d, t["advantages"][row], mpf(0.2), mpf(0.2), mpf(0)))
        return found

    compare("ppo", numbers, {"level": "sequence"}, exact)


def attention(t: Mapping[str, list[Any]], cap: Any) -> list[Any]:
    """Two queries, two keys and values of size two, in floats of any length."""
    q, k, v = ([t[name][:2], t[name][2:]] for name in ("query", "key", "value"))
    found = []
    for row, one in enumerate(q):
        scores = [mpmath.fsum(a * b for a, b in zip(one, other, strict=True)) / mpmath.sqrt(2) for other in k]
        scores = [cap * mpmath.tanh(each / cap) for each in scores] if cap else scores
        kept = [at for at in range(2) if t["attn_mask"][2 * row + at]]
        parts = {at: mpmath.exp(scores[at]) for at in kept}
        total = mpmath.fsum(parts.values())
        found += [mpmath.fsum(parts[at] / total * v[at][axis] for at in kept) for axis in range(2)]
    return found


@pytest.mark.parametrize("cap", [0.0, 30.0])
@pytest.mark.parametrize("size", [0.1, 1.0, 9.0, 90.0, 255.0, 257.0])
@pytest.mark.parametrize("mask", [[[True, True], [True, True]], [[True, False], [True, True]]])
def test_attention(mask, size, cap):
    numbers = {
        "query": [[size, 0.5], [-0.25, size]], "key": [[size, 1.0], [size - 0.125, -1.0]],
        "value": [[1.0, -2.0], [0.5, 4.0]], "attn_mask": mask,
    }  # fmt: skip
    # A score of size**2 is exact to u size**2, and so is what it moves: the output, and times size its gradients.
    compare("attention", numbers, {"softcap": cap}, lambda t: attention(t, mpf(cap)), 1 + size**3 / 100)


def test_a_query_without_keys_is_zero_and_has_no_gradient():
    numbers = {
        "query": [[1.0, 0.5], [2.0, 1.0]], "key": [[1.0, 1.0], [0.5, -1.0]], "value": [[1.0, -2.0], [0.5, 4.0]],
        "attn_mask": [[False, False], [True, True]],
    }  # fmt: skip
    values, gradients = truth_of("attention", numbers, {})
    assert values[:2] == [0.0, 0.0]
    assert gradients["query"][:2] == [0.0, 0.0]
