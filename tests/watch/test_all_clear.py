"""\"All clear\" is said only of what was looked at; the rest is counted, and values read by the script are noted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import grad, vmap
from warm import Warm

from nanhunt.watch.incident import Incident
from nanhunt.watch.message import all_clear, run_json
from nanhunt.watch.session import Session, Settings
from nanhunt.watch.unlooked import Unlooked

pytestmark = pytest.mark.filterwarnings("ignore")


def unexpected(incident: Incident) -> None:
    raise AssertionError(incident)


def watched(body: Callable[[], object], every_op: bool = False) -> Unlooked:
    with Session(Settings(every_op=every_op), unexpected) as session:
        body()
    return session.unlooked


def train() -> None:
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        loss = vmap(torch.sum)(layer(torch.ones(3, 2))).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
        loss.item()


def validate() -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with torch.no_grad():
        layer(torch.ones(1, 2))
    with torch.inference_mode():
        layer(torch.ones(1, 2))


def differentiate() -> None:
    grad(lambda x: x.exp().sum())(torch.ones(2))


def differentiate_forward() -> None:
    def loss(x: torch.Tensor) -> torch.Tensor:
        return (x * 2).log().sum()

    torch.func.jvp(loss, (torch.zeros(3),), (torch.ones(3),))
    torch.ones(1) + 1
    torch.func.jacfwd(loss)(torch.zeros(3))


def run_scripted_function() -> None:
    double = torch.jit.script(_doubled)
    for _ in range(2):
        double(torch.ones(2, requires_grad=True)).sum().backward()


def _doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def run_scripted() -> None:
    module = torch.jit.script(torch.nn.Linear(2, 2))
    for _ in range(3):
        module(torch.ones(1, 2)).sum().backward()


def test_of_a_training_that_was_looked_at_nothing_is_left() -> None:
    assert not watched(train)
    assert all_clear(2, False, unlooked=Unlooked()) == all_clear(2, False)


@pytest.mark.parametrize(
    ("body", "every_op", "sentence"),
    [
        (
            validate,
            False,
            "; not looked at: 2 module calls under torch.no_grad (--every-op looks at them)",
        ),
        (validate, True, ""),
        (differentiate, False, "; not looked at: 1 call of torch.func.grad or jvp"),
        (differentiate, True, "; not looked at: 1 call of torch.func.grad or jvp"),
        (differentiate_forward, False, "; not looked at: 2 calls of torch.func.grad or jvp"),
        (run_scripted, False, "; not looked at: 1 scripted module"),
        (run_scripted, True, ""),
        (run_scripted_function, False, "; not looked at: 1 scripted function"),
    ],
)
def test_what_was_not_looked_at_is_counted(body: Callable[[], object], every_op: bool, sentence: str) -> None:
    assert watched(body, every_op).sentence() == sentence


def test_every_op_does_look_into_scripted_modules(tmp_path: Path) -> None:
    found: list[Incident] = []
    module = torch.jit.trace(torch.sqrt, torch.ones(2))
    scripted = torch.jit.script(torch.nn.Sequential(torch.nn.LogSigmoid(), torch.nn.LogSoftmax(0)))
    settings = Settings(every_op=True, keep_going=True, capture_dir=str(tmp_path))
    with Session(settings, found.append), torch.no_grad():
        for _ in range(4):
            scripted(module(torch.tensor([-1.0, 1.0])))
    assert [item.what for item in found][:1] == ["the model's output holds nan"]


@pytest.mark.parametrize("read", [torch.Tensor.item, float])
def test_a_value_that_the_script_reads_is_noted_once(read: Callable[[torch.Tensor], float]) -> None:
    def metrics() -> None:
        for _ in range(3):
            read(torch.tensor(1.0))
            read(torch.tensor(float("inf")))  # the best so far

    unlooked = watched(metrics)
    [note] = unlooked.values.values()
    assert note.startswith("inf was read at tests/watch/test_all_clear.py:")
    assert note.endswith(' | read(torch.tensor(float("inf")))  # the best so far')
    assert all_clear(4, False, unlooked=unlooked) == (
        f"nanhunt: no NaN or infinity in the loss and gradients of 4 steps\n  note: {note}\n"
    )


def test_many_lines_that_read_bad_values_are_counted() -> None:
    code = compile("pass", "eval.py", "exec")
    unlooked = Unlooked(values={(code, line): f"nan was read at eval.py:{line}" for line in range(6)})
    assert unlooked.notes().splitlines()[-1] == "  and 2 more lines that read NaN or infinity"


def test_all_clear_is_not_said_of_what_was_not_looked_at() -> None:
    unlooked = Unlooked(no_grad=1200, transforms=1, scripted=3)
    assert all_clear(9, False, unlooked=unlooked) == (
        "nanhunt: no NaN or infinity in the loss and gradients of 9 steps; not looked at: 1,200 module calls "
        "under torch.no_grad (--every-op looks at them), 1 call of torch.func.grad or jvp, "
        "3 scripted modules\n"
    )
    assert all_clear(9, False, code=2, unlooked=unlooked).endswith(
        "3 scripted modules; the script ended with exit code 2\n"
    )
    assert all_clear(0, False, unlooked=Unlooked(transforms=2)) == (
        "nanhunt: no step was seen, so nothing was checked (--every-op looks at inference too); not looked at: 2 calls "
        "of torch.func.grad or jvp\n"
    )


def test_json_has_the_counts() -> None:
    body = json.loads(run_json("train.py", 9, [], 0, Unlooked(no_grad=2, scripted=1)))
    assert body["not_looked_at"] == {
        "no_grad_calls": 2,
        "func_grad_calls": 0,
        "scripted_modules": 1,
        "scripted_functions": 0,
    }
    assert body["values_read"] == []


SCRIPT = """
import torch
layer = torch.nn.Linear(2, 2)
layer(torch.ones(1, 2)).sum().backward()
def validate():
    with torch.no_grad():
        layer(torch.ones(1, 2))
validate()
process = torch.multiprocessing.get_context("fork").Process(target=validate)
process.start()
process.join()
print(torch.tensor(float("nan")).item())
"""


def test_a_healthy_script_ends_as_without_us_and_its_children_are_counted(warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    done = warm.run(["run", "train.py"], tmp_path)
    assert (done.returncode, done.stdout) == (0, "nan\n")
    assert done.stderr == (
        "nanhunt: no NaN or infinity in the loss and gradients of 1 step; not looked at: 2 module calls under "
        "torch.no_grad (--every-op looks at them)\n"
        '  note: nan was read at train.py:12 | print(torch.tensor(float("nan")).item())\n'
    )


@pytest.mark.parametrize("read", [torch.Tensor.tolist, torch.Tensor.numpy, np.asarray])
def test_arrays_that_the_script_reads_are_looked_at_where_it_reads_them(
    read: Callable[[torch.Tensor], object],
) -> None:
    def body() -> None:
        read(torch.tensor([1.0, 2.0]))
        read(torch.tensor([1.0, -torch.inf]))
        read(torch.tensor([1, 2]))

    [line] = watched(body).values.values()
    assert line.startswith("-inf was read at ")
    assert line.endswith("read(torch.tensor([1.0, -torch.inf]))")
