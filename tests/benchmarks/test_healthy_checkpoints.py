"""Fresh and trained checkpoints of public model families raise no alarm; a fault planted in one does."""

from __future__ import annotations

import pytest
import torch
from healthy_checkpoints import OPTIMIZERS, alarms, checkpoints

pytest.importorskip("transformers")


@pytest.mark.parametrize("family", ["GPT-2", "Llama", "T5", "ViT", "Mixtral", "Whisper", "ResNet"])
def test_no_alarm_fresh_or_trained(family, tmp_path):
    for name in ("AdamW", "SGD with momentum", "Adafactor"):
        for checkpoint in checkpoints(family, OPTIMIZERS[name], 1):
            assert alarms(checkpoint, tmp_path / "checkpoint.pt") == [], name


def test_a_planted_fault_is_told(tmp_path):
    *_, checkpoint = checkpoints("Llama", OPTIMIZERS["AdamW"], 1)
    checkpoint["optimizer"]["state"][3]["exp_avg_sq"][0, 0] = -1e-9
    (alarm,) = alarms(checkpoint, tmp_path / "checkpoint.pt")
    assert "optimizer.state.3.exp_avg_sq: NH505" in alarm


def test_optimizer_state_is_no_matter_of_a_cast(tmp_path):
    for name, make in OPTIMIZERS.items():
        *_, checkpoint = checkpoints("T5", make, 2)
        told = alarms(checkpoint, tmp_path / "checkpoint.pt", dtype="float16")
        assert not [alarm for alarm in told if alarm.startswith("optimizer")], name


def test_pruned_and_tied_weights_are_healthy(tmp_path):
    *_, checkpoint = checkpoints("GPT-2", OPTIMIZERS["AdamW"], 2)
    for weights in checkpoint["model"].values():
        if weights.dim() > 1:
            weights[weights.abs() < weights.abs().median()] = 0.0
            weights[0] = 0.0
    assert alarms(checkpoint, tmp_path / "checkpoint.pt") == []
    shared = torch.nn.Parameter(checkpoint["model"]["lm_head.weight"])
    assert alarms({"model": {"embed": shared, "head": shared}}, tmp_path / "tied.pt", dtype="float16") == []
