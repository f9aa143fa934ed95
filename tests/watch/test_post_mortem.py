"""A NaN that makes the script raise is found, whatever raises; an exception about something else is none."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from nanhunt.watch.incident import Incident
from nanhunt.watch.runner import Script, exit_code, prepare
from nanhunt.watch.session import Session, Settings

pytestmark = pytest.mark.filterwarnings("ignore")

START = """
import math
import numpy as np
import torch
import torch.nn.functional as F
from torch.distributions import Categorical, Distribution, Normal
from scipy.optimize import linear_sum_assignment

Distribution.set_default_validate_args(True)  # the default, which another script in this process may have changed
model = torch.nn.Linear(3, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(3):
    x = torch.ones(3, 3)
    optimizer.zero_grad()
    model(x).pow(2).mean().backward()
    optimizer.step()
x = x - 2  # negative
"""
BAD = "    made = (model(x) * 0 - 1).sqrt()  # the fault\n"
RAISING = {
    "multinomial": "torch.multinomial(made, 1)",
    "categorical": "Categorical(logits=made)",
    "normal": "Normal(made, torch.ones(3))",
    "cholesky": "torch.linalg.cholesky(made @ made.T)",
    "eigvalsh": "torch.linalg.eigvalsh(made @ made.T)",
    "assignment": "linear_sum_assignment(made.detach().numpy())",
    "assignment of a copy": "made = made.detach().numpy() * 1; linear_sum_assignment(made)",
    "index": "made = made.long(); torch.ones(3)[made]",
    "binary cross entropy": "F.binary_cross_entropy(made, torch.ones(3, 3))",
    "numpy guard": "made = made.sum().detach().numpy().copy()\n"
    "    if np.isnan(made): raise FloatingPointError('diverged')",
    "own exception": "class Diverged(Exception): pass\n    raise Diverged('loss is NaN')",
    "assertion": "assert torch.isfinite(made).all()",
    "exit with a word": "raise SystemExit('the loss is nan')",
    "integer of a number": "int(made.sum())",
}


def run(text: str, folder: Path, *, every_op: bool = False) -> tuple[int, list[Incident]]:
    """Exit code and what was found."""
    (folder / "train.py").write_text(textwrap.dedent(START) + text)
    found: list[Incident] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.path", ["", *__import__("sys").path])
        patch.setattr("sys.argv", [])
        patch.setitem(__import__("sys").modules, "__main__", __import__("sys").modules["__main__"])
        patch.setattr("sys.excepthook", lambda *error: None)
        start = prepare(Script(str(folder / "train.py")))
        session = Session(Settings(every_op=every_op, capture_dir=str(folder)), found.append)
        with session:
            code = exit_code(start, session.raised)
    return code, found


@pytest.mark.parametrize("grad", ["torch.enable_grad()", "torch.no_grad()"])
@pytest.mark.parametrize("raising", RAISING)
def test_what_the_script_raised_over_is_found(raising: str, grad: str, tmp_path: Path) -> None:
    code, [incident] = run(f"with {grad}:\n{BAD}    {RAISING[raising]}\n", tmp_path)
    assert code == 1
    assert incident.step == 4
    assert "was raised" in incident.what or incident.what.startswith("the loss is")
    culprit = incident.culprits[0]
    assert culprit.site is not None
    assert (culprit.operation, culprit.site.source) == ("sqrt", BAD.strip())
    assert incident.noticed is not None
    assert incident.noticed.line > culprit.site.line


ELSE = {
    "nothing bad": "raise ValueError('a wrong option')",
    "a missing key": "made = (x * 0 / 0).mean()\n{}['missing']",
    "a legal mask": "made = model(x).masked_fill(x < 0, -math.inf)\nraise ValueError('a wrong option')",
    "a caught one": "try:\n    torch.multinomial(x / 0, 1)\nexcept RuntimeError:\n    pass\n"
    "model(x)\nraise KeyError('nan')",
    "a good end": "made = (x * 0 / 0).mean()\nraise SystemExit(0)",
    "wrong shapes": "model(torch.ones(7))",
}


@pytest.mark.parametrize("raising", ELSE)
def test_an_exception_about_something_else_is_no_alarm(raising: str, tmp_path: Path) -> None:
    _, found = run(ELSE[raising] + "\n", tmp_path)
    assert found == []


def test_parameters_that_went_bad_in_the_last_update(tmp_path: Path) -> None:
    text = (
        "optimizer.param_groups[0]['lr'] = 1e38\n"
        "model(x * 100).pow(2).mean().backward()\n"
        "optimizer.step()\n"
        "raise ValueError('weights left the range')\n"
    )
    _, [incident] = run(text, tmp_path)
    assert incident.culprits[0].operation == "SGD.step"


POLICIES = {
    "conversions that return their argument": "F.linear(x.float().flatten(1), model.weight)",
    "one that returns a view's": "F.linear(x[:, :].float(), model.weight)",
    "another tensor was written in that memory": "model(x)",
}


@pytest.mark.parametrize("policy", POLICIES)
def test_an_observation_in_a_rollout_is_the_culprit(policy: str, tmp_path: Path) -> None:
    text = (
        "def act(observation):\n"
        "    model(torch.ones(1, 3)).relu_()  # its memory is free again\n"
        "    x = torch.as_tensor(observation)\n"
        f"    return Categorical(logits={POLICIES[policy]}).sample().numpy()\n"
        "for n in range(64):\n"
        "    observation = np.ones((1, 3), 'float32')\n"
        "    if n == 50: observation[0, 1] = math.nan\n"
        "    with torch.no_grad(): act(observation)\n"
    )
    _, [incident] = run(text, tmp_path)
    culprit = incident.culprits[0]
    assert (culprit.operation, culprit.rule, incident.notes) == ("x", "NH501", ())
