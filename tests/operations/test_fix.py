"""A fix is one text: what is rendered is what runs, with nothing defined but the tensors' roles, torch and F."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from nanhunt.operations.fix import Fix, run

SLOTS = {"cast": "", "logits": "logits{cast}", "targets": "targets", "options": ""}
CALL = "loss = F.cross_entropy({logits}, {targets}{options})"


def batch() -> dict[str, torch.Tensor]:
    """Two plain rows."""
    return {"logits": torch.tensor([[1.0, 2.0], [3.0, 1.0]]), "targets": torch.tensor([0, 1])}


def test_slots_are_filled_with_the_fixs_own_texts_inside_those_of_the_operation() -> None:
    assert Fix("plain", CALL).render(SLOTS) == "loss = F.cross_entropy(logits, targets)"
    wide = Fix("wide", CALL, slots={"cast": ".double()"})
    assert wide.render(SLOTS) == "loss = F.cross_entropy(logits.double(), targets)"


def test_a_slot_that_nobody_fills_is_an_error() -> None:
    with pytest.raises(KeyError):
        Fix("odd", "loss = {nothing}").render(SLOTS)


def test_the_text_is_run_forward_and_backward() -> None:
    tensors = batch()
    ran = run("loss = F.cross_entropy(logits, targets)", tensors, ["logits"])
    leaf = tensors["logits"].clone().requires_grad_()
    F.cross_entropy(leaf, tensors["targets"]).backward()
    assert ran.error == ""
    assert ran.result is not None
    assert ran.result.item() == F.cross_entropy(tensors["logits"], tensors["targets"]).item()
    assert leaf.grad is not None
    assert torch.equal(ran.gradients["logits"], leaf.grad)
    assert tensors["logits"].grad is None
    assert not tensors["logits"].requires_grad


def test_what_the_user_hands_back_reaches_the_gradient_even_of_an_infinite_loss() -> None:
    text = "loss = torch.where(logits > 2, torch.inf, logits).sum()"
    ran = run(text, batch(), ["logits"], upstream=0.25)
    assert ran.result == math.inf
    assert ran.gradients["logits"].tolist() == [[0.25, 0.25], [0.0, 0.25]]


def test_an_output_takes_a_gradient_of_its_shape() -> None:
    seed = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    ran = run("output = 2 * logits", batch(), ["logits"], upstream=seed)
    assert torch.equal(ran.gradients["logits"], 2 * seed)


def test_code_that_runs_backward_itself_keeps_its_gradients() -> None:
    text = "loss = (1000 * logits).sum()\nloss.backward()\ntorch.nn.utils.clip_grad_norm_(logits, 1.0)"
    ran = run(text, batch(), ["logits"])
    assert float(ran.gradients["logits"].norm()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("loss = F.cross_entropy(logits, targets + 7)", "IndexError"),
        ("loss = allowed", "NameError: name 'allowed' is not defined"),
        ("unrelated = 1", "KeyError"),
        ("loss = torch.tensor(1.0)", "RuntimeError"),
    ],
)
def test_code_that_raises_says_so_in_one_line(text: str, error: str) -> None:
    ran = run(text, batch(), ["logits"])
    assert ran.result is None
    assert ran.error.startswith(error)
    assert "\n" not in ran.error


def test_the_callers_modes_do_not_matter() -> None:
    with torch.no_grad():
        assert run("loss = logits.sum()", batch(), ["logits"]).gradients["logits"].sum() == 4
