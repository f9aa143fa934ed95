"""A tensor that was bad when the script loaded it: the report names the file, and what the file calls it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file

from nanhunt.watch.incident import Culprit, Incident, Phase
from nanhunt.watch.session import Session, Settings, Stopped

pytestmark = pytest.mark.filterwarnings("ignore")


def network() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))


def checkpoint(bad: float = float("nan"), prefix: str = "") -> dict[str, torch.Tensor]:
    state = {f"{prefix}{name}": tensor.clone() for name, tensor in network().state_dict().items()}
    state[f"{prefix}2.weight"][1, 2] = bad
    return state


def first_step(model: torch.nn.Module) -> None:
    model(torch.ones(3, 4)).sum().backward()


class Hunt:
    """Stops at the first incident."""

    def __init__(self, folder: Path) -> None:
        self.found: list[Incident] = []
        self.session = Session(Settings(capture_dir=str(folder / "capture")), self.found.append)

    def __enter__(self) -> Hunt:
        self.session.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> bool:
        self.session.__exit__(kind, *rest)
        return kind is Stopped

    @property
    def culprit(self) -> Culprit:
        [incident] = self.found
        [culprit] = incident.culprits
        return culprit


def test_a_checkpoint_of_torch_save(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save({"model": checkpoint(prefix="module."), "epoch": 3}, file)
    with Hunt(tmp_path) as hunt:
        model = network()
        state = torch.load(file)["model"]
        model.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
        first_step(model)
    assert hunt.culprit.phase is Phase.PARAMETER
    assert hunt.culprit.operation == "2.weight"
    assert hunt.culprit.reason.endswith(
        f"it was loaded so: tensor 'model.module.2.weight' of {file} holds the same"
    )
    assert hunt.culprit.fix == f"Load a sound file: `nanhunt check {file}` lists what this one holds."
    assert torch.load is torch.serialization.load
    assert torch.load.__module__ == "torch.serialization"


@pytest.mark.parametrize("assign", [False, True])
def test_a_safetensors_file(tmp_path: Path, assign: bool) -> None:
    file = str(tmp_path / "model.safetensors")
    save_file(checkpoint(float("inf")), file)
    with Hunt(tmp_path) as hunt:
        model = network()
        if assign:
            model.load_state_dict(load_file(file), assign=True)
        else:
            load_model(model, file)
        first_step(model)
    assert f"tensor '2.weight' of {file} holds the same" in hunt.culprit.reason


def test_a_row_that_is_read_later(tmp_path: Path) -> None:
    torch.save({"embedding": torch.tensor([[1.0], [2.0], [float("nan")]])}, tmp_path / "words.pt")
    with Hunt(tmp_path) as hunt:
        words = torch.nn.Embedding.from_pretrained(
            torch.load(tmp_path / "words.pt")["embedding"], freeze=False
        )
        optimizer = torch.optim.SGD(words.parameters(), lr=0.1)
        for word in (0, 1, 0, 2):
            optimizer.zero_grad()
            words(torch.tensor([word])).square().sum().backward()
            optimizer.step()
    assert hunt.found[0].step == 4
    assert "tensor 'embedding' of " in hunt.culprit.reason


def test_what_overflowed_in_the_cast(tmp_path: Path) -> None:
    file = str(tmp_path / "model.safetensors")
    save_file(checkpoint(1e5), file)
    with Hunt(tmp_path) as hunt:
        model = network().half()
        model.load_state_dict(load_file(file))
        first_step(model.float())
    assert f"'2.weight' of {file}, which is finite: 100000 overflowed when it was cast" in hunt.culprit.reason
    assert hunt.culprit.fix == "Load it in float32 or bfloat16, whose range holds it."


def test_a_sound_file_is_not_blamed(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "model.pt")
    with Hunt(tmp_path) as hunt:
        model = network()
        model.load_state_dict(torch.load(tmp_path / "model.pt"))
        model[2].weight.detach().numpy()[1, 2] = float("nan")
        first_step(model)
    assert "model.pt" not in hunt.culprit.reason


def test_nor_one_that_was_written_since(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "last.pt")
    with Hunt(tmp_path) as hunt:
        model = network()
        model.load_state_dict(torch.load(tmp_path / "last.pt"))
        model[2].weight.detach().numpy()[1, 2] = float("nan")
        torch.save({"state": model.state_dict()}, tmp_path / "last.pt")
        first_step(model)
    assert "last.pt" not in hunt.culprit.reason


def test_what_cannot_be_read_again_is_passed_over(tmp_path: Path) -> None:
    save_file(checkpoint(), tmp_path / "gone.safetensors")
    with Hunt(tmp_path) as hunt:
        model = network()
        model.load_state_dict(load_file(tmp_path / "gone.safetensors"))
        (tmp_path / "gone.safetensors").unlink()
        first_step(model)
    assert hunt.culprit.reason == "the parameter held it before the first operation of the step"


def test_nothing_waits_for_an_import_afterwards() -> None:
    before = list(sys.meta_path)
    imported = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("safetensors")}
    try:
        with Session(Settings(), pytest.fail):  # type: ignore[arg-type]
            assert len(sys.meta_path) == len(before) + 1
        assert sys.meta_path == before
    finally:
        sys.modules.update(imported)


def test_nanhunts_own_reading_is_not_noted(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "model.pt")
    with Session(Settings(), pytest.fail) as session:  # type: ignore[arg-type]
        with session.recorder.pause():
            torch.load(tmp_path / "model.pt")
        assert not session.loaded.files


def test_the_step_is_sound_without_the_bad_weight(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "model.pt")
    with Hunt(tmp_path) as hunt:
        model = network()
        model.load_state_dict(torch.load(tmp_path / "model.pt"))
        first_step(model)
    said = hunt.found[0].not_code
    assert said.startswith("with 0 for 1 bad value of 1 parameter the repeated step is finite (loss -")
    assert said.endswith(", 4 of 4 gradients): the numbers it began with are the cause")
    assert hunt.found[0].patch is None


def test_a_bad_row_that_nothing_reads_is_a_note(tmp_path: Path) -> None:
    with Hunt(tmp_path) as hunt:
        words = torch.nn.Embedding(3, 1)
        words.weight.data[2] = float("nan")
        optimizer = torch.optim.Adam(words.parameters())
        for word in (0, 1, 0):
            optimizer.zero_grad()
            words(torch.tensor([word])).square().sum().backward()
            optimizer.step()
    assert hunt.found == []
    [note] = hunt.session.unlooked.values.values()
    assert note.startswith("1 value of the parameters not finite before the first update at ")
