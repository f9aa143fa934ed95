"""Watching changes nothing: not the numbers, not the random state, not what torch can do."""

from __future__ import annotations

import copy
import gc
import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, vmap

from nanhunt.watch.incident import FoundBy, Incident
from nanhunt.watch.message import incident_text
from nanhunt.watch.session import Session, Settings
from nanhunt.watch.stopping import Stopped
from nanhunt.watch.tripwire import SKIPS_WITHOUT_END

pytestmark = pytest.mark.filterwarnings("ignore")


def unexpected(incident: Incident) -> None:
    raise AssertionError(incident)


def train(steps: int = 4) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 8),
        torch.nn.BatchNorm1d(8),
        torch.nn.Dropout(0.3),
        torch.nn.GELU(),
        torch.nn.Linear(8, 3),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(steps):
        loss = F.cross_entropy(model(torch.randn(5, 6)), torch.randint(0, 3, (5,)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return copy.deepcopy(model.state_dict()), torch.random.get_rng_state()


@pytest.mark.parametrize("every_op", [False, True])
def test_the_same_numbers_bit_for_bit(every_op: bool) -> None:
    weights, state = train()
    with Session(Settings(every_op=every_op), unexpected) as session:
        watched, watched_state = train()
    assert session.steps == 4
    assert torch.equal(state, watched_state)
    assert all(torch.equal(weights[name], watched[name]) for name in weights)


def test_continuing_after_a_report_leaves_the_random_state_alone(tmp_path: Path) -> None:
    def run() -> torch.Tensor:
        torch.manual_seed(0)
        x = torch.nn.Parameter(torch.tensor([-1.0]))
        F.dropout(x, 0.1).sqrt().sum().backward()
        return torch.rand(3)

    plain, found = run(), []
    with Session(Settings(keep_going=True, capture_dir=str(tmp_path)), found.append):
        watched = run()
    assert len(found) == 1
    assert torch.equal(plain, watched)


LAYER = torch.nn.Linear(2, 2)
USES: dict[str, Any] = {
    "vmap of grad": lambda: vmap(grad(lambda x: functional_call(LAYER, {}, (x,)).sum()))(torch.randn(3, 2)),
    "hessian": lambda: torch.autograd.functional.hessian(lambda x: (x**3).sum(), torch.randn(2)),
    "gradcheck": lambda: torch.autograd.gradcheck(
        torch.sin, (torch.randn(2, dtype=torch.float64, requires_grad=True),)
    ),
    "script": lambda: torch.jit.script(torch.nn.ReLU())(torch.ones(2, requires_grad=True)).sum().backward(),
    "trace": lambda: torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)),
    "fx": lambda: torch.fx.symbolic_trace(torch.nn.Linear(2, 2))(torch.ones(1, 2)),
    "inference mode": torch.inference_mode()(lambda: float(LAYER(torch.ones(1, 2)).sum())),
    "complex": lambda: (torch.ones(2, dtype=torch.complex64, requires_grad=True) * 2j).abs().sum().backward(),
    "default device": lambda: torch.set_default_device(None),
    "save": lambda: torch.save(torch.nn.Linear(2, 2)(torch.ones(2)).detach(), io.BytesIO()),
    "spectral norm": lambda: torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(2, 2))(
        torch.ones(1, 2)
    ),
    "lstm": lambda: torch.nn.LSTM(2, 3)(torch.ones(4, 1, 2))[0].sum().backward(),
}


@pytest.mark.parametrize("every_op", [False, True])
@pytest.mark.parametrize("use", USES)
def test_what_torch_can_do_it_still_can(use: str, every_op: bool) -> None:
    with Session(Settings(every_op=every_op), unexpected):
        USES[use]()


def test_a_repeated_step_leaves_the_gradients_of_a_compiled_module_alone(tmp_path: Path) -> None:
    layer, head = torch.nn.Linear(3, 1, bias=False), torch.nn.Parameter(torch.zeros(2))
    compiled = torch.compile(layer, backend="eager")
    found: list[Incident] = []
    with Session(Settings(keep_going=True, capture_dir=str(tmp_path)), found.append):
        (compiled(torch.ones(2, 3)).sum() + head.sqrt().sum()).backward()
    assert found[0].found_by is FoundBy.REPETITION, found[0].notes
    assert layer.weight.grad.tolist() == [[2.0, 2.0, 2.0]]


def test_the_tape_is_empty_after_every_step() -> None:
    with Session(Settings(), unexpected) as session:
        layer = torch.nn.Linear(2, 2)
        layer(torch.ones(1, 2)).sum().backward()
        tape = session.recorder.tape
        assert (tape.entries, tape.inputs, tape.slots, tape.held_bytes) == ([], [], {}, 0)


def test_a_fault_of_ours_becomes_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("nanhunt.watch.session.investigate", broken)
    found: list[Incident] = []
    with pytest.raises(Stopped), Session(Settings(capture_dir=str(tmp_path)), found.append):
        for _ in range(200):
            torch.nn.Parameter(torch.tensor([-1.0])).sqrt().sum().backward()
    [incident] = found
    assert incident.found_by is FoundBy.NOTICED
    assert incident.what == "the loss is nan"
    assert "KeyError: 'ours'" in incident.notes[0]


def test_modules_made_anew_in_every_step_do_not_pile_up() -> None:
    with Session(Settings(), unexpected) as session:
        for _ in range(5):
            torch.nn.MSELoss()(torch.ones(2, requires_grad=True), torch.zeros(2)).backward()
        gc.collect()
        assert len(session.recorder.roots) <= 1


def test_a_loss_that_is_only_scaled_does_not_pile_up() -> None:
    scaler = torch.amp.GradScaler("cpu")
    with Session(Settings(), unexpected) as session:
        for _ in range(5):
            scaler.scale(torch.ones(1, requires_grad=True).sum())
        assert len(session.wire.scaled) <= 1


def test_the_last_update_is_looked_at_when_the_script_ends(tmp_path: Path) -> None:
    found: list[Incident] = []
    with Session(Settings(capture_dir=str(tmp_path)), found.append):
        weight = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        for rate in (0.1, 0.1, 3e38):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            (weight * 10).sum().backward()
            optimizer.step()
    [incident] = found
    assert (incident.step, incident.culprits[0].operation) == (3, "SGD.step")
    assert incident.culprits[0].tensor_names == ("weight",)
    assert incident.culprits[0].site is not None
    assert incident.culprits[0].site.source == "optimizer.step()"


def test_a_gradient_spoilt_after_backward_is_noticed_before_the_update(tmp_path: Path) -> None:
    found: list[Incident] = []
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with Session(Settings(keep_going=True, capture_dir=str(tmp_path)), found.append):
        weight.sum().backward()
        weight.grad.div_(0)
        optimizer.step()
    [incident] = found
    assert incident.what == "the gradient of weight has become inf between backward and the optimizer's step"
    assert incident.found_by is FoundBy.NOTICED


@pytest.mark.parametrize(
    "leaf",
    [
        lambda: torch.zeros(3, requires_grad=True),
        lambda: torch.zeros(3).requires_grad_(),
        lambda: torch.zeros(3).detach().requires_grad_(),
    ],
)
def test_a_leaf_made_in_the_first_step_has_its_gradient_looked_at(leaf: Any, tmp_path: Path) -> None:
    found: list[Incident] = []
    with Session(Settings(keep_going=True, capture_dir=str(tmp_path)), found.append):
        x = leaf()
        torch.sqrt(x).sum().backward()
    assert [incident.what for incident in found] == ["the loss is finite, the gradient of x is inf"]


def test_a_gradient_that_was_returned_is_not_said_to_be_nan(tmp_path: Path) -> None:
    found: list[Incident] = []
    with Session(Settings(keep_going=True, capture_dir=str(tmp_path)), found.append):
        x = torch.zeros(3, requires_grad=True)
        (slope,) = torch.autograd.grad(torch.sqrt(x).sum(), x)
    assert slope.isinf().all()
    assert [incident.what for incident in found] == ["the loss is finite, the gradient of x is not"]


def test_parameters_that_a_fault_has_spoilt_are_said_once(tmp_path: Path) -> None:
    found: list[Incident] = []
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    sound = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters())
    with Session(Settings(keep_going=True, capture_dir=str(tmp_path)), found.append):
        for step in range(12):
            if step == 8:
                model.load_state_dict(sound)
                optimizer.state.clear()
            out = model(torch.randn(5, 4))
            if step in (2, 10):
                out = out / torch.zeros(5, 1)
            optimizer.zero_grad()
            out.pow(2).mean().backward()
            optimizer.step()
    assert [(item.step, item.found_by) for item in found] == [
        (3, FoundBy.REPETITION),
        (4, FoundBy.CONSEQUENCE),
        (11, FoundBy.REPETITION),
        (12, FoundBy.CONSEQUENCE),
    ]
    assert (
        found[1].what == "since the fault of step 3, 6 of 6 parameters (0.weight among them) are not finite"
    )


def test_a_fault_after_sound_steps_is_no_consequence(tmp_path: Path) -> None:
    found: list[Incident] = []
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with Session(Settings(keep_going=True, capture_dir=str(tmp_path)), found.append):
        for step in range(6):
            loss = (weight * (0 if step in (1, 3) else 1)).abs().sqrt().sum()
            optimizer.zero_grad()
            loss.backward()
            if weight.grad.isfinite().all():
                optimizer.step()
    assert [item.step for item in found] == [2, 3]


def spoiling_update(folder: Path, steps: int, bad_update: int, fault: int = 0) -> list[Incident]:
    """``spare`` overflows in one update and is not read again; the loss of step ``fault`` is NaN, and not applied."""
    found: list[Incident] = []
    weight, spare = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([{"params": [weight]}, {"params": [spare]}], lr=0.1)
    with Session(Settings(keep_going=True, capture_dir=str(folder)), found.append):
        for step in range(1, steps + 1):
            optimizer.param_groups[1]["lr"] = 3e38 if step == bad_update else 0.1
            loss = (weight * (torch.nan if step == fault else 1)).sum()
            if step <= bad_update:
                loss = loss + (spare * 10).sum()
            optimizer.zero_grad()
            loss.backward()
            if step != fault:
                optimizer.step()
    return found


def test_parameters_are_looked_at_every_ten_updates(tmp_path: Path) -> None:
    """Not in each, which would cost, and not only at the end, which would blame the last."""
    [incident] = spoiling_update(tmp_path, steps=15, bad_update=11)
    assert (incident.step, incident.culprits[0].operation) == (11, "SGD.step")
    assert incident.culprits[0].tensor_names == ("spare",)


def test_updates_are_looked_at_again_once_gradients_are_sound(tmp_path: Path) -> None:
    found = spoiling_update(tmp_path, steps=12, bad_update=12, fault=2)
    assert [each.step for each in found] == [2, 12]


def test_an_update_is_not_blamed_for_a_bad_loss_inside_its_closure(tmp_path: Path) -> None:
    found: list[Incident] = []
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (weight / 0 * 0).sum()
        loss.backward()
        return loss

    with Session(Settings(keep_going=True, capture_dir=str(tmp_path)), found.append):
        optimizer.step(closure)
    assert [[culprit.operation for culprit in each.culprits] for each in found] == [["div"]]


def test_a_bad_parameter_is_the_fault_of_the_update_that_made_it(tmp_path: Path) -> None:
    """Not of the first operation to read it; and not of an update after which the script wrote it itself."""
    for written in (False, True):
        found: list[Incident] = []
        weight = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.SGD([weight], lr=0.1)
        with Session(Settings(keep_going=True, capture_dir=str(tmp_path)), found.append):
            for step in (1, 2, 3):
                optimizer.param_groups[0]["lr"] = 3e38 if step == 2 and not written else 0.1
                optimizer.zero_grad()
                (weight * 10).sum().backward()
                optimizer.step()
                if step == 2 and written:
                    with torch.no_grad():
                        weight.fill_(torch.nan)
        assert [culprit.operation for culprit in found[0].culprits] == ["fill_" if written else "SGD.step"]


@pytest.mark.parametrize(("steps", "told"), [(SKIPS_WITHOUT_END - 1, 0), (SKIPS_WITHOUT_END, 1)])
def test_a_loss_scaled_to_infinity_by_hand_is_no_fault_until_every_step_is_skipped(
    tmp_path: Path, steps: int, told: int
) -> None:
    found: list[Incident] = []
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with Session(Settings(keep_going=True, capture_dir=str(tmp_path)), found.append):
        for _ in range(steps):
            optimizer.zero_grad()
            ((weight * 10).sum() * 2.0**127).backward()
            if weight.grad.isfinite().all():
                optimizer.step()
    assert len(found) == told
    assert not found or "skipped" in found[0].what


def test_two_losses_of_one_graph_are_two_backward_passes_of_one_tape(tmp_path: Path) -> None:
    found: list[Incident] = []
    weight = torch.nn.Parameter(torch.ones(2))
    with Session(Settings(keep_going=True, capture_dir=str(tmp_path)), found.append):
        hidden = weight * 2
        first, second = hidden.sum(), hidden.sum() / 0
        first.backward(retain_graph=True)
        second.backward()
    assert [[culprit.operation for culprit in each.culprits] for each in found] == [["div"]]


TOOLBOX = """
import torch

def root(x):
    return x.sqrt()

class Inner(torch.nn.Module):
    def forward(self, x):
        return root(x)

class Outer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(Inner())

    def forward(self, x):
        return self.layers(x) + 1
"""


@pytest.mark.parametrize("way", ["module", "function", "function in a module of the user's"])
def test_a_line_in_an_installed_package_has_the_users_own_beside_it(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "toolbox.py").write_text(TOOLBOX)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    import toolbox

    class Own(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            outer(x + 5)
            return toolbox.root(x)  # own: function in a module of the user's

    found: list[Incident] = []
    x, outer = torch.nn.Parameter(torch.tensor([-1.0])), toolbox.Outer()
    with Session(Settings(keep_going=True, capture_dir=str(tmp_path)), found.append):
        match way:
            case "module":
                out = outer(x)  # own: module
            case "function":
                out = toolbox.root(x)  # own: function
            case _:
                out = Own()(x)
        out.sum().backward()
    culprit = found[0].culprits[0]
    assert culprit.site is not None and culprit.own is not None
    assert culprit.site.file.endswith("toolbox.py")
    assert culprit.own.source.endswith(f"# own: {way}")
    assert f"    called from your line {culprit.own.short} | " in incident_text(found[0])
