"""The tape keeps what a repetition needs, and nothing alive that it should not."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F

from nanhunt.watch.recorder import Recorder
from nanhunt.watch.second_look import CannotRepeat, repeat
from nanhunt.watch.tape import MAX_ENTRIES, MAX_HELD_BYTES


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(lambda tensor, value: None)


def test_an_intermediate_dies_as_early_as_without_the_tape(recorder: Recorder) -> None:
    x = torch.ones(3)
    with recorder:
        intermediate = x * 2
        gone = weakref.ref(intermediate)
        _ = intermediate.clone()
        del intermediate
    gc.collect()
    assert gone() is None
    assert len(recorder.tape.entries) == 2


def test_inputs_beyond_the_limit_are_held_weakly(recorder: Recorder) -> None:
    small, large = torch.ones(3), torch.ones(MAX_HELD_BYTES // 4 + 1)
    with recorder:
        _ = small.sum(), large.sum()
    assert [slot.held is not None for slot in recorder.tape.inputs] == [True, False]
    del large
    with pytest.raises(CannotRepeat, match="no longer in memory"):
        repeat(recorder.tape, [], backward=False)


def test_a_loop_without_backward_does_not_grow(recorder: Recorder) -> None:
    x = torch.ones(1)
    with recorder:
        for _ in range(MAX_ENTRIES + 10):
            _ = x + 1
    assert len(recorder.tape.entries) <= MAX_ENTRIES
    assert recorder.tape.cut_short
    with pytest.raises(CannotRepeat, match="too many calls"):
        repeat(recorder.tape, [], backward=False)


def test_the_line_is_the_users_even_inside_modules_and_composite_functions(recorder: Recorder) -> None:
    layer = torch.nn.Linear(2, 2)
    with recorder:
        F.relu(layer(torch.ones(1, 2)))
    assert {entry.code.co_name for entry in recorder.tape.entries} == {
        "test_the_line_is_the_users_even_inside_modules_and_composite_functions"
    }


def test_a_node_inside_a_composite_call_is_known_by_its_call(recorder: Recorder) -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    with recorder:
        doubled = logits * 2
        loss = F.cross_entropy(doubled, torch.tensor([0, 1]))
    inner = loss.grad_fn.next_functions[0][0]
    assert inner.name() == "LogSoftmaxBackward0"
    assert recorder.tape.entry_of(inner).func is F.cross_entropy
    assert recorder.tape.entry_of(doubled.grad_fn).func is torch.Tensor.mul
    recorder.tape.cut()
    assert recorder.tape.entry_of(inner) is None


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_a_repetition_draws_the_same_numbers_and_leaves_the_generator_alone(
    recorder: Recorder, p: float
) -> None:
    torch.manual_seed(3)
    layer = torch.nn.Linear(4, 4)
    with recorder:
        noise = torch.randn(8, 4)
        out = F.dropout(layer(noise), p).sum()
    state = torch.random.get_rng_state()
    look = repeat(recorder.tape, [], backward=False)
    assert torch.equal(look.values[recorder.tape.find(out)], out)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_repetition_gives_the_same_gradients_and_touches_no_parameter(recorder: Recorder) -> None:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh())
    with recorder:
        loss = model(torch.randn(8, 4)).pow(2).mean()
    running = model[1].running_mean.clone()
    look = repeat(recorder.tape, [(recorder.tape.find(loss), None)], backward=True)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model[1].running_mean, running)
    loss.backward()
    again = {slot.tensor: copy.grad for slot, copy in look.inputs.items() if copy.grad is not None}
    for parameter in model.parameters():
        torch.testing.assert_close(again[parameter], parameter.grad, rtol=0, atol=0)


def test_a_hand_written_update_is_not_repeated_on_top_of_itself(recorder: Recorder) -> None:
    weight = torch.ones(2, requires_grad=True)
    with recorder:
        with torch.no_grad():
            weight -= 0.5
        out = weight * 2
    look = repeat(recorder.tape, [], backward=False)
    assert look.values[recorder.tape.find(out)].tolist() == [1.0, 1.0]
