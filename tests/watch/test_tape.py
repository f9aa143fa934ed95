"""The tape keeps what a repetition needs, and nothing alive that it should not."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F

from nanhunt.watch.names import operation
from nanhunt.watch.recorder import Recorder
from nanhunt.watch.second_look import CannotRepeat, Step, repeat
from nanhunt.watch.tape import MAX_ENTRIES, MAX_HELD_BYTES, slot_of


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
        total = small.sum() + large.sum()
    assert [slot.held is not None for slot in recorder.tape.inputs] == [True, False]
    del large
    with pytest.raises(CannotRepeat, match="no longer in memory"):
        repeated(recorder, total)


def test_a_loop_without_backward_does_not_grow(recorder: Recorder) -> None:
    x = torch.ones(1)
    with recorder:
        first = x * 3
        for _ in range(MAX_ENTRIES + 10):
            _ = x + 1
        loss = first * 2
    assert len(recorder.tape.entries) < 100
    assert len(recorder.tape.slots) < 100
    assert repeated(recorder, loss).tolist() == [6.0]


def test_what_feeds_a_living_tensor_is_dropped_only_where_there_is_too_much(recorder: Recorder) -> None:
    x = torch.ones(1, requires_grad=True)
    with recorder:
        for _ in range(MAX_ENTRIES + 10):
            x = x + 1
    assert len(recorder.tape.entries) <= MAX_ENTRIES
    with pytest.raises(CannotRepeat, match="too many calls"):
        repeated(recorder, x)


def test_what_does_not_feed_the_loss_is_not_the_step(recorder: Recorder) -> None:
    layer = torch.nn.Linear(3, 3)
    with recorder:
        torch.nn.init.orthogonal_(layer.weight)
        for _ in range(3):
            layer(torch.ones(2, 3)).sum()
        doubled = layer.weight * 2
        doubled[0].fill_(7.0)
        loss = doubled.sum()
    tape = recorder.tape
    assert [operation(entry.func) for entry in Step.of(tape, [tape.find(loss)]).entries] == [
        "mul",
        "index",
        "fill_",
        "sum",
    ]


def test_numbers_drawn_before_a_slice_do_not_shift_those_in_it(recorder: Recorder) -> None:
    torch.manual_seed(1)
    layer = torch.nn.Linear(3, 3)
    with recorder:
        torch.nn.init.normal_(layer.weight)
        for _ in range(3):
            F.dropout(layer(torch.randn(2, 3)))
        torch.randn(5)
        recorder.tape.read_state()  # as where an outermost module is called
        out = F.dropout(layer(torch.randn(2, 3))).sum()
    assert torch.equal(repeated(recorder, out), out)
    tape = recorder.tape
    assert len(Step.of(tape, [tape.find(out)]).entries) < len(tape.entries)


def test_an_input_written_to_by_the_step_is_not_given(recorder: Recorder) -> None:
    batch = torch.ones(3)
    with recorder:
        batch[1] = torch.nan
        loss = batch.sum()
    look = repeat(recorder.tape, [(recorder.tape.find(loss), None)], backward=False)
    assert [item.op for item in look.observer.by_memory.values() if not item.parents] == ["copy_"]


def repeated(recorder: Recorder, root: torch.Tensor) -> torch.Tensor:
    """What the root is in a repetition."""
    slot = recorder.tape.find(root)
    return repeat(recorder.tape, [(slot, None)], backward=False).values[slot]


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
    assert torch.equal(repeated(recorder, out), out)
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
    assert repeated(recorder, out).tolist() == [1.0, 1.0]


def test_a_slot_is_compared_as_an_object_not_by_its_tensors_values() -> None:
    tensor = torch.ones(3)
    one, other = slot_of(tensor), slot_of(tensor)
    assert one() is other() is tensor
    assert one != other
    assert len({one, other}) == 2
    del tensor
    assert one() is None
    assert one in {one}


def test_entries_asked_for_twice_are_the_same_and_in_order() -> None:
    recorder = Recorder(lambda *_: None)
    with recorder:
        x = torch.ones(2)
        y = x + 1
        first = list(recorder.tape.entries)
        z = y * 2
    assert recorder.tape.entries[: len(first)] == first
    assert [entry.order for entry in recorder.tape.entries] == list(range(len(recorder.tape.entries)))
    assert recorder.tape.entries[-1].out is recorder.tape.find(z)
