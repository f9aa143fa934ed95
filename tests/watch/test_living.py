"""A step whose beginning is gone is repeated from what is still in memory, and from nothing that is not as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import rerun
import torch
from test_faults import hunt

from nanhunt.watch.incident import FoundBy
from nanhunt.watch.living import living_part
from nanhunt.watch.recorder import Recorder

FREED = """
import torch

torch.manual_seed(0)
weight = torch.randn(4, 3, requires_grad=True)
for step in range(2):
    logits = torch.randn(5, 4) @ weight * (1000 if step else 1)
    held = weight.untyped_storage()
    size = held.size()
    held.resize_(0)  # as FSDP does with parameters that it has gathered
    probability = logits.exp() / logits.exp().sum(-1, keepdim=True)
    loss = -probability[:, 0].log().mean()
    loss.backward()
    held.resize_(size)
    weight.data.copy_(torch.randn(4, 3))
"""


def test_a_loss_is_mended_though_a_parameter_was_freed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "freed.py"
    script.write_text(FREED)
    monkeypatch.chdir(tmp_path)
    [incident], _ = hunt(script, tmp_path / "capture")
    assert (incident.step, incident.found_by) == (2, FoundBy.REPETITION)
    assert {culprit.site.line for culprit in incident.culprits if culprit.site} == {11}
    assert any("still in memory" in note and "freed" in note for note in incident.notes)
    assert incident.patch is not None
    assert "torch.softmax(logits" in incident.patch.diff
    rerun.apply(incident.patch.diff, tmp_path)
    assert rerun.faults(script) == []


def test_a_result_that_is_bad_or_was_written_to_is_no_beginning() -> None:
    recorder = Recorder(lambda *_: None)
    with recorder:
        weight = torch.ones(3)
        sound = weight.clone()
        spoilt = torch.log(weight - 1)
        written = weight * 2
        written.add_(1)
        roots = [one * torch.inf for one in (sound, spoilt, written)]
    given = [recorder.tape.find(one) for one in (sound, spoilt, written)]
    found = []
    for root in roots:
        slot = recorder.tape.find(root)
        assert slot is not None
        part = living_part(recorder.tape, [slot], least=True)
        assert part is not None
        found.append([one in part.inputs for one in given])
    assert found == [[True, False, False], [False, False, False], [False, False, False]]
