"""A capture holds the failing operation alone, under the names of its roles, and is judged as the run was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_faults import HERE, hunt

import nanhunt


@pytest.mark.parametrize(
    ("script", "operation", "roles"),
    [
        ("vae_log_variance", "gaussian-kl", {"mu", "logvar"}),
        ("pixels_log_sigmoid", "bce", {"logits", "targets"}),
        ("spectral_phase", "call", {"self", "other"}),
        ("nan_written", "values", {"result"}),
        ("token_types", "call", {"self"}),
        ("ppo_ratio", "ppo", {"log_probs", "old_log_probs", "advantages"}),
        ("cosine_of_zero", "norm", {"hidden_states"}),
        ("sqrt_at_zero", "distance", {"a"}),
        ("articles_softmax", "cross-entropy", {"logits", "targets"}),
        ("nan_parameter", "values", {"2.weight"}),
        ("temperature_zero", "call", {"self"}),
        ("in_place_division", "call", {"self", "other"}),
    ],
)
def test_roles_are_named_as_the_operation_names_them(
    script: str, operation: str, roles: set[str], tmp_path: Path
) -> None:
    [incident], _ = hunt(HERE / "faults" / f"{script}.py", tmp_path)
    assert incident.capture is not None
    held = torch.load(incident.capture, weights_only=True)
    assert held.pop("nanhunt")["op"] == operation
    assert set(held) == roles
    judged = nanhunt.check(incident.capture)
    assert {tensor.operation for tensor in judged.tensors} == {operation}
    assert not judged.ok
    assert incident.closer == f"nanhunt check {incident.capture}"


def test_the_options_of_the_call_are_in_the_file(tmp_path: Path) -> None:
    [incident], _ = hunt(HERE / "faults" / "ignored_labels_minus_one.py", tmp_path)
    assert incident.capture is not None
    [judged] = nanhunt.check(incident.capture).tensors
    assert judged.targets is not None
    assert judged.targets.ignored == 2
    assert incident.closer == f"nanhunt check {incident.capture}"  # without --ignore-index -1


def test_so_are_those_of_nll_loss_on_a_softmax_by_hand(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import torch\n"
        "logits = torch.tensor([[200.0, 1.0], [0.0, 1.0]], requires_grad=True)\n"
        "p = logits.exp() / logits.exp().sum(-1, keepdim=True)\n"
        "torch.nn.functional.nll_loss(p.log(), torch.tensor([0, -1]), ignore_index=-1).backward()\n"
    )
    [incident], _ = hunt(script, tmp_path)
    assert incident.capture is not None
    [judged] = nanhunt.check(incident.capture).tensors
    assert judged.targets is not None
    assert judged.targets.ignored == 1
    assert incident.closer == f"nanhunt check {incident.capture}"


def test_numbers_alone_are_not_recommended_where_an_operation_made_them(tmp_path: Path) -> None:
    [incident], _ = hunt(HERE / "faults" / "ctc_target_too_long.py", tmp_path)
    assert incident.capture is not None
    held = torch.load(incident.capture, weights_only=True)
    assert held["nanhunt"]["op"] == "values"
    assert incident.closer is None


def test_a_scalar_that_goes_bad_brings_no_megabytes(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import torch\n"
        "logits = torch.randn(1000, 2000, requires_grad=True)\n"
        "count = torch.zeros(())\n"
        "loss = (logits.softmax(-1).sum() * 0) / count\n"
        "loss.backward()\n"
    )
    [incident], _ = hunt(script, tmp_path / "capture")
    assert incident.capture is not None
    assert Path(incident.capture).stat().st_size < 4096
