"""Where in a run a tensor stands, as the names of real dumps and checkpoints say it."""

from __future__ import annotations

import pytest

from nanhunt.results.coordinates import coordinates


@pytest.mark.parametrize(
    ("file", "tensor", "expected"),
    [
        ("dumps/step-20.npz", "logits", {"step": 20}),
        ("out/checkpoint-500/model.safetensors", "model.layers.11.mlp.weight", {"layer": 11, "step": 500}),
        ("epoch=3-step=1200.ckpt", "head.weight", {"epoch": 3, "step": 1200}),
        ("global_step10/zero_pp_rank_0.pt", "", {"rank": 0, "step": 10}),
        ("run/rank_3/step_7.pt", "transformer.h.0.attn", {"layer": 0, "rank": 3, "step": 7}),
        ("step-1/step-2.npy", "", {"step": 2}),
        ("footstep3.npy", "sublayers.4", {}),
        ("model-00001-of-00005.safetensors", "w", {}),
        ("step-" + "9" * 40 + ".npy", "", {}),
    ],
)
def test_names(file: str, tensor: str, expected: dict[str, int]) -> None:
    assert coordinates(file, tensor) == expected
