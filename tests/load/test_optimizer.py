"""Whose state an optimizer keeps under a number, told by the model beside it or not at all."""

from __future__ import annotations

import pytest
import torch

import nanhunt
from nanhunt.load import open_path

NAN = float("nan")


def model() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2), torch.nn.LayerNorm(2)
    )


def stepped(net, optimizer):
    net(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def owners(path, content):
    torch.save(content, path)
    return {name: tensor.owner for name, tensor in open_path(str(path)).tensors.items() if tensor.owner}


def decayed(net):
    parameters = list(net.parameters())
    return [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": 0.1},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)])
def test_numbers_are_those_of_the_models_parameters(tmp_path, grouped, kind):
    net = model()
    optimizer = kind(decayed(net) if grouped else net.parameters())
    state = stepped(net, optimizer)
    found = owners(tmp_path / "x.pt", {"model": net.state_dict(), "optim": [state]})
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    flat = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(flat):
        kept = {name for name in found if name.startswith(f"optim.0.state.{number}.")}
        assert kept
        assert {found[name] for name in kept} == {names[id(parameter)]}


def test_named_parameters_need_no_model(tmp_path):
    net = model()
    state = stepped(net, torch.optim.AdamW(net.named_parameters()))
    found = owners(tmp_path / "x.pt", state)
    assert found["state.2.exp_avg"] == "1.weight"


def test_what_does_not_fit_is_not_named(tmp_path):
    net, other = model(), torch.nn.Linear(4, 8)
    state = stepped(net, torch.optim.AdamW(net.parameters()))
    assert not owners(tmp_path / "x.pt", {"optimizer": state})
    assert not owners(tmp_path / "x.pt", {"model": other.state_dict(), "optimizer": state})
    twins = {"a": net.state_dict(), "b": {f"b.{name}": each for name, each in net.state_dict().items()}}
    assert not owners(tmp_path / "x.pt", {**twins, "optimizer": state})


def test_the_finding_names_the_parameter(tmp_path):
    net = model()
    state = stepped(net, torch.optim.AdamW(net.parameters()))
    state["state"][4]["exp_avg"][1, 3] = NAN
    torch.save({"state_dict": net.state_dict(), "optimizer_states": [state]}, tmp_path / "x.ckpt")
    (finding,) = nanhunt.check(tmp_path / "x.ckpt").findings
    assert finding.message == "1 NaN of 16 values, the first at [1, 3]; state of the parameter 2.weight"


def test_a_callbacks_settings_are_no_part_of_a_name(tmp_path):
    key = "ModelCheckpoint{'monitor': None, 'mode': 'min'}"
    scores = {"best_model_score": torch.tensor(NAN)}
    torch.save({"state_dict": {"w": torch.ones(2)}, "callbacks": {key: scores, "Early{x}": {"a": torch.ones(1)}}},
               tmp_path / "x.ckpt")  # fmt: skip
    report = nanhunt.check(tmp_path / "x.ckpt")
    assert [tensor.tensor for tensor in report.tensors if tensor.findings] == [
        "callbacks.ModelCheckpoint.best_model_score"
    ]
    assert report.findings[0].message == "its only value is NaN"
    assert "callbacks.Early{x}.a" in {tensor.tensor for tensor in report.tensors}


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch on saving without other ranks
@pytest.mark.parametrize("named", [False, True])
def test_a_distributed_checkpoint_names_them_too(tmp_path, named):
    from torch.distributed import checkpoint

    net = model()
    optimizer = torch.optim.AdamW(net.named_parameters() if named else net.parameters(), eps=1e-3)
    saved = {"model": net.state_dict(), "optim": stepped(net, optimizer)}
    checkpoint.save(saved, checkpoint_id=tmp_path / "ckpt", no_dist=True)
    tensors = open_path(str(tmp_path / "ckpt")).tensors
    numbers = enumerate(name for name, _ in net.named_parameters())
    for number, name in numbers:
        assert tensors[f"optim.state.{number}.exp_avg"].owner == name
        assert tensors[f"optim.state.{number}.exp_avg"].eps == 1e-3
    assert tensors["model.0.weight"].owner == ""
