"""Every line of code that a report prints runs as it is pasted, on the dump's tensors under the names of the roles."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import nanhunt

INF, NAN = torch.inf, torch.nan
LABELS = torch.tensor([0, 1, 1])
X = torch.tensor([[0.0, 17.0, -17.0], [300.0, -1.0, 90.0], [-120.0, 95.0, 12.0]])
MASK = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 1]])
LOWEST = torch.finfo(torch.float32).min
HEADS = torch.full((1, 2, 3, 4), 150.0)
CASES: tuple[tuple[str, dict[str, Any], dict[str, torch.Tensor]], ...] = (
    *(("bce", {"gamma": gamma, "pos_weight": weight}, {"logits": X, "targets": targets})
      for gamma in (0.0, 0.5) for weight in (1.0, 3.0)
      for targets in (MASK.float(), MASK, MASK.bool(), MASK.to(torch.uint8), MASK.double())),
    ("bce", {"beta": 1.0, "reduction": "sum"}, {"chosen": X[0] - 90, "rejected": X[1]}),
    ("bce", {}, {"chosen": X[0] - 990, "rejected": X[1], "ref_chosen": X[0], "ref_rejected": X[1]}),
    *(("ppo", {"kl": kl, "level": level, "clip_dual": dual},
       {"log_probs": X - 100, "old_log_probs": X.flip(0) - 100, "advantages": advantages, "mask": mask,
        "ref_log_probs": X - 30})
      for kl in ("none", "k3") for level in ("token", "sequence") for dual in (0.0, 3.0)
      for advantages, mask in ((X, MASK), (X[:, 0], MASK.bool()), (X[:, :1], MASK.float()))),
    ("attention", {}, {"query": HEADS, "key": HEADS, "value": HEADS / 1e3}),
    ("attention", {"causal": True}, {"query": HEADS, "key": HEADS[:, :1], "value": HEADS[:, :1] / 1e3}),
    ("attention", {}, {"query": HEADS / 99, "key": HEADS / 99, "attn_mask": torch.full((3, 3), -INF)}),
    ("attention", {}, {"query": HEADS / 99, "key": HEADS / 99, "attn_mask": MASK * 0}),
    ("attention", {"mask_drops": True}, {"query": HEADS / 99, "key": HEADS / 99, "attn_mask": MASK.bool() | True}),
    ("attention", {"softcap": 20.0}, {"query": HEADS, "key": HEADS, "value": HEADS / 1e3}),
    ("attention", {}, {"scores": X.masked_fill(X < 1, -INF).masked_fill(X > 299, -INF)}),
    ("attention", {}, {"scores": X, "attn_mask": MASK * 0, "value": X}),
    ("entropy", {}, {"logits": X.masked_fill(X < 0, -INF)}),
    ("softmax", {}, {"logits": X}),
    ("logsumexp", {}, {"logits": X.clone().index_fill(0, torch.tensor([1]), -INF)}),
    ("kl", {}, {"log_probs": X.log_softmax(-1), "target": X.flip(0).softmax(-1)}),
    ("kl", {"log_target": True}, {"logits": X, "target": torch.tensor([[0.0, -INF, -INF]]).expand(3, 3).contiguous()}),
    *(("norm", {"norm": norm, "eps": eps}, {"hidden_states": rows, **weight})
      for norm in ("rms", "layer", "l2", "cosine") for eps in (None, 0.0)
      for rows in (torch.cat([X * 3, X * 0]),) for weight in ({}, {"weight": torch.ones(3)})),
    ("masked-mean", {}, {"values": X.masked_fill(X > 200, NAN), "mask": MASK * 0}),
    ("masked-mean", {"std": True, "eps": 0.0}, {"values": torch.ones(3, 3), "mask": MASK}),
    ("masked-mean", {}, {"values": X[0], "groups": LABELS}),
    ("distance", {}, {"a": X * 0}),
    ("distance", {"p": 3.0}, {"a": X * 1e13, "b": X}),
    ("contrastive", {"temperature": 0.01}, {"features": X / 100, "labels": LABELS * 0}),
    ("contrastive", {"temperature": 0.01}, {"features": torch.cat([X, X]) / 100}),
    ("contrastive", {"temperature": 0.01, "reduction": "sum"}, {"sim": X, "labels": LABELS}),
    ("contrastive", {"temperature": 0.01}, {"sim": X}),
    ("gaussian-kl", {}, {"mu": X, "logvar": X}),
    ("log1mexp", {}, {"log_probs": torch.tensor([-1e-9, -1e-5, -0.5, -90.0])}),
    ("gumbel-softmax", {"tau": 0.1}, {"logits": X, "noise": MASK * 0.999999}),
    ("gumbel-softmax", {"draws": 30_000, "seed": 1}, {"logits": X / 100}),
    ("cross-entropy", {}, {"logits": X, "targets": LABELS}),
)  # fmt: skip


def pasted(code: str, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    scope: dict[str, Any] = {"torch": torch, "F": F}
    for name, each in tensors.items():
        scope[name] = each.clone().requires_grad_(each.is_floating_point())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.std of one value warns
        exec(code, scope)
    made: torch.Tensor = scope["loss"] if "loss" in scope else scope["output"]
    return made


@pytest.mark.parametrize(("op", "options", "tensors"), CASES)
def test_what_is_printed_runs_as_it_is_pasted(op, options, tensors):
    printed = 0
    for dtype in ("float32", "float16"):
        (report,) = nanhunt.check(tensors, op=op, dtype=dtype, **options).tensors
        (compared,) = nanhunt.compare(tensors, op=op, dtype=dtype, **options).tensors
        assert report.findings == compared.findings  # though a check runs fewer ways of writing it
        assert report.implementations.keys() <= compared.implementations.keys()
        cast = {
            name: each.to(getattr(torch, dtype)) if each.is_floating_point() and name != "mask" else each
            for name, each in tensors.items()
        }
        for finding in report.findings:
            for fix in finding.remedies:
                if not fix.works and "torch.distributions" in fix.snippet:
                    continue  # which refuses a scale that is infinite, and is not recommended for that
                printed += 1
                made = pasted(fix.snippet, cast)
                if fix.works and finding.count == report.rows:
                    assert bool(made.isfinite().all()), fix.snippet
    assert printed
