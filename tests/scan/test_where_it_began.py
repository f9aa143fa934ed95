"""The answer stands above every list, in every format, whatever else is wrong with the run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_series import trainer, weights
from safetensors.torch import save_file
from typer.testing import CliRunner

import nanhunt
from nanhunt.cli.app import app
from nanhunt.errors import NanhuntError
from nanhunt.render import render as rendered
from nanhunt.results.series import beginnings, runs


def printed(*arguments: str) -> str:
    """Standard output of nanhunt check, its lines joined."""
    return " ".join(CliRunner().invoke(app, ["check", *arguments]).stdout.split())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five checkpoints of the Trainer, bad from the third on."""
    trainer(tmp_path / "run", range(10, 60, 10), bad_from=30)
    monkeypatch.chdir(tmp_path)
    return Path("run")


BEGAN = "last good: run/checkpoint-20, first bad: run/checkpoint-30 (model 1 of 3, optimizer 1 of 3 tensors)"


def test_before_any_list_in_text(run: Path) -> None:
    text = printed(str(run))
    assert text.startswith("ERROR ")
    assert f"run: 5 steps from 10 to 50, 3 layers; order: step, layer {BEGAN}" in text
    assert "first bad: step 30, model.layers.1.mlp.weight: 1 NaN of 16 values, the first at [1, 2]" in text
    assert text.index(BEGAN) < text.index("The worst 2:") < text.index("All of it: -v")


@pytest.mark.parametrize("kind", ["markdown", "html"])
def test_before_any_list_in_pages(run: Path, kind: str) -> None:
    text = printed(str(run), "--format", kind)
    assert text.index("last good: run/checkpoint-20, first bad: run/checkpoint-30") < text.index("NH501")


def test_before_any_list_in_json(run: Path) -> None:
    body = json.loads(CliRunner().invoke(app, ["check", str(run), "--format", "json"]).stdout)
    assert list(body)[:2] == ["format_version", "where_it_began"]
    assert body["where_it_began"][0]["path"] == "run/checkpoint-30"


def test_a_file_that_cannot_be_read_does_not_hide_it_and_is_not_called_good(run: Path) -> None:
    broken = run / "checkpoint-20" / "model.safetensors"
    broken.write_bytes(broken.read_bytes()[:-8])
    text = printed(str(run))
    assert "last good: run/checkpoint-10, first bad: run/checkpoint-30" in text
    assert "NOT READ run/checkpoint-20/model.safetensors" in text


def test_a_threshold_at_infinity_is_never_the_beginning(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        kept = {"callbacks": {"ModelCheckpoint": {"kth_value": torch.tensor(torch.inf)}}}
        torch.save({"state_dict": weights(bad=step == 3), **kept}, tmp_path / f"epoch=0-step={step}.ckpt")
    (began,) = beginnings(nanhunt.check(tmp_path))
    assert (began.step, began.tensor) == (3, "state_dict.model.layers.1.mlp.weight")


def test_activations_alone_in_their_files_are_no_logits(tmp_path: Path) -> None:
    folder = tmp_path / "step_1" / "rank_0"
    folder.mkdir(parents=True)
    hot = torch.full((4, 8), 500.0)
    save_file({"data": hot}, folder / "model.layers.0.mlp_outputs.safetensors")
    torch.save({"value": hot}, folder / "step=1___rank=0___dump_index=1___name=attn_out.pt")
    np.save(folder / "layers.3.npy", hot.numpy())
    torch.save({"value": hot}, folder / "step=1___rank=0___dump_index=2___name=logits.pt")
    report = nanhunt.check(tmp_path)
    assert [Path(tensor.file).name[-14:] for tensor in report.tensors if tensor.role == "logits"] == [
        "name=logits.pt"
    ]


def test_a_layout_says_which_number_is_the_rank(tmp_path: Path) -> None:
    for rank in (0, 1):
        for step in (4, 5):
            save_file(weights(bad=(rank, step) == (1, 5)), tmp_path / f"x_{step}_{rank}.safetensors")
    (began,) = beginnings(nanhunt.check(tmp_path, layout="x_{step}_{rank}.safetensors"))
    assert (began.step, began.ranks, began.clean_step) == (5, ("1",), 4)
    with pytest.raises(NanhuntError, match="fits no file"):
        nanhunt.check(tmp_path, layout="y_{step}.pt")


def test_state_alone_in_its_file_is_no_logits_and_ranks_are_counted_once(tmp_path: Path) -> None:
    """ZeRO: the weights lie in a file of all data-parallel ranks, each one's master weights in its own."""
    for step in (1, 2):
        folder = tmp_path / f"global_step{step}"
        folder.mkdir()
        torch.save({"module": weights()}, folder / "mp_rank_00_model_states.pt")
        for rank in range(2):
            flat = torch.tensor([1.0, torch.nan if (step, rank) == (2, 1) else 2.0])
            torch.save(
                {"fp32_flat_groups": [flat]}, folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
            )
    report = nanhunt.check(tmp_path)
    assert {tensor.role for tensor in report.tensors} == {"values"}
    (run,) = runs(report)
    assert run.ranks == ("dp 0 tp 0", "dp 1 tp 0")
    assert nanhunt.check(tmp_path, first=True).assumed[0].startswith("opened 2 of 2 checkpoints")


def test_a_bad_input_was_made_earlier(tmp_path: Path) -> None:
    """TransformerEngine dumps what goes into a layer, and calls it activation."""
    folder = tmp_path / "tensor_dumps" / "rank_0" / "iter_000001"
    folder.mkdir(parents=True)
    for layer in range(2):
        value = torch.full((2, 2), torch.nan if layer else 1.0)
        torch.save({"high_precision": value}, folder / f"decoder_layers_{layer}_fc1_activation.pt")
    text = printed(str(tmp_path))
    assert "first bad: step 1, rank 0, decoder_layers_1_fc1 input: 4 NaN of 4 values" in text
    assert "An input of it is bad already: it was made earlier, by what was not dumped." in text


def test_tensors_are_counted_alike_on_top_and_by_step(tmp_path: Path) -> None:
    """Step counters of an optimizer among them, which are healthy when everything else is bad."""
    for step in (1, 2, 3):
        nan = torch.nan if step > 1 else 1.0
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"layers.0.w": torch.full((2, 2), nan)}, folder / "model.safetensors")
        state = {0: {"step": torch.tensor(1.0), "exp_avg": torch.full((2, 2), nan)}}
        torch.save({"state": state, "param_groups": [{"params": [0]}]}, folder / "optimizer.pt")
    report = nanhunt.check(tmp_path)
    told = " ".join(str(report).split())
    assert "ERROR 4 of 9 tensors have findings" in told
    assert "2 of 3 tensors bad at step 2, all but step counters at step 3" in told
    assert "(model 1 of 1, optimizer 1 of 1 tensors)" in told


def test_what_stays_bad_is_named_once_and_what_paths_have_in_common_too(run: Path) -> None:
    text = printed(str(run))
    worst = text[text.index("The worst") : text.index("non-finite-values (NH501), error:")]
    assert worst.startswith(
        "The worst 2: ERROR run/checkpoint-30/model.safetensors:model.layers.1.mlp.weight "
    )
    assert worst.count(", and at 2 more steps") == 2
    lines = rendered(nanhunt.check(run), "text", width=60).splitlines()
    assert "The worst 2, in run/checkpoint-30:" in lines
    assert "  ERROR model.safetensors:model.layers.1.mlp.weight" in lines
    lines = rendered(nanhunt.check(run / "checkpoint-30"), "text", width=60).splitlines()
    assert not any("more step" in line for line in lines)


def test_what_lies_beside_weights_is_no_layer_that_never_changes(tmp_path: Path) -> None:
    """Lightning keeps the score of its callbacks, accelerate the states of its generators."""
    for step in range(1, 6):
        content = {
            "state_dict": {f"layers.{n}.weight": torch.full((2, 2), 1.0 + step * (n > 0)) for n in range(3)},
            "callbacks": {"ModelCheckpoint": {"kth_value": torch.tensor(0.5)}},
        }
        torch.save(content, tmp_path / f"epoch=0-step={step}.ckpt")
    text = printed(str(tmp_path))
    assert "never changes: 1 of 3 layers (layer 0)" in text


def test_a_layer_whose_extremes_stay_while_its_weights_move_is_not_one_that_never_changes(
    tmp_path: Path,
) -> None:
    """In bfloat16 the largest weights often round to what they were; weight 0 of both layers is the largest."""
    for step in range(1, 7):
        weights = {n: torch.tensor([1.0, 0.5, 0.25], dtype=torch.bfloat16) for n in range(2)}
        weights[1][2] += step / 128
        file = tmp_path / f"step-{step}.safetensors"
        save_file({f"layers.{n}.weight": value for n, value in weights.items()}, file)
    assert "never changes: 1 of 2 layers (layer 0)" in printed(str(tmp_path))


def test_the_layer_is_told_where_the_name_does_not_say_it(tmp_path: Path) -> None:
    """SGLang's files say it beside the name, a --layout in front of it, DeepSpeed's of experts for all in them."""
    for step in range(2):
        for layer in range(3):
            value = torch.full((2, 2), torch.nan if (step, layer) == (1, 2) else 1.0)
            name = f"step={step}___rank=0___dump_index={layer}___name=attn_out___layer_id={layer}.pt"
            torch.save({"value": value, "meta": {}}, tmp_path / name)
    assert "first bad: step 1, rank 0, layer 2 attn_out: 4 NaN of 4 values" in printed(str(tmp_path))


def test_an_activation_that_says_its_layer_is_no_logits_for_being_alone(tmp_path: Path) -> None:
    for step in range(2):
        torch.save(
            {"layers.3.out": torch.full((4, 9), torch.nan if step else 1.0)}, tmp_path / f"step{step}.pt"
        )
    text = printed(str(tmp_path))
    assert "first bad: step 1, layers.3.out: 36 NaN of 36 values" in text
