"""The checkpoint to go on from: the newest that is whole and finite, and nothing older is opened."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from checkpoint_series import deepspeed, lightning, moments, opened_files, trainer, weights

from nanhunt.cli import process
from nanhunt.cli.app import app
from nanhunt.errors import NanhuntError
from nanhunt.load.checkpoints import checkpoints
from nanhunt.scan.last_good import LastGood, last_good


def found(run: Path) -> LastGood:
    return last_good(checkpoints(str(run)))


def good(run: Path) -> str:
    """Its path inside the run."""
    checkpoint = found(run).checkpoint
    assert checkpoint is not None
    return " ".join(str(Path(path).relative_to(run)) for path in checkpoint.paths)


def test_the_newest_finite_one_and_nothing_older(tmp_path: Path) -> None:
    trainer(tmp_path, range(10, 130, 10), bad_from=110)
    with opened_files(tmp_path) as opened:
        assert good(tmp_path) == "checkpoint-100"
    assert {name.split("/")[0] for name in opened} == {"checkpoint-120", "checkpoint-110", "checkpoint-100"}


def test_checkpoint_100_is_newer_than_checkpoint_20(tmp_path: Path) -> None:
    trainer(tmp_path, (20, 100))
    assert good(tmp_path) == "checkpoint-100"


def optimizer_bad(run: Path) -> None:
    torch.save(moments(bad=True), run / "checkpoint-30" / "optimizer.pt")


def truncated(run: Path) -> None:
    path = run / "checkpoint-30" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-20])


def file_gone(run: Path) -> None:
    (run / "checkpoint-30" / "optimizer.pt").unlink()


def file_empty(run: Path) -> None:
    (run / "checkpoint-30" / "trainer_state.json").write_text("")


def shard_gone(run: Path) -> None:
    folder = run / "checkpoint-30"
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    for other in run.iterdir():
        (other / "model.safetensors.index.json").write_text(json.dumps(index))
        (other / "model.safetensors").unlink(missing_ok=True)
        if other != folder:
            from safetensors.torch import save_file

            save_file({"a": torch.ones(2)}, other / "model-00001-of-00002.safetensors")
            save_file({"b": torch.ones(2)}, other / "model-00002-of-00002.safetensors")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (optimizer_bad, "optimizer.pt:state.1.exp_avg: 1 +inf of 16 values, the first at [0, 0]"),
        (truncated, "model.safetensors"),
        (file_gone, "optimizer.pt is missing, and every other one has it"),
        (file_empty, "trainer_state.json is empty"),
        (shard_gone, "model-00001-of-00002.safetensors"),
    ],
)
def test_what_is_not_whole_or_not_finite_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], why: str
) -> None:
    trainer(tmp_path, (10, 20, 30))
    damage(tmp_path)
    answer = found(tmp_path)
    assert answer.checkpoint is not None
    assert answer.checkpoint.step == 20
    (refused,) = answer.refused
    assert refused.step == 30
    assert why in refused.why


@pytest.mark.parametrize("gone", [0, 2, 3])
def test_a_rank_is_missing(tmp_path: Path, gone: int) -> None:
    deepspeed(tmp_path, (10, 20))
    (tmp_path / "global_step20" / f"bf16_zero_pp_rank_{gone}_mp_rank_00_optim_states.pt").unlink()
    assert good(tmp_path) == "global_step10"


def test_a_gap_between_ranks_shows_in_a_single_checkpoint(tmp_path: Path) -> None:
    deepspeed(tmp_path, (10,))
    (tmp_path / "global_step10" / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    (refused,) = found(tmp_path).refused
    assert "only 3 of 4 ranks are there" in refused.why


def test_the_world_size_in_a_name_counts(tmp_path: Path) -> None:
    folder = tmp_path / "global_step_5" / "actor"
    folder.mkdir(parents=True)
    for rank in range(3):
        torch.save(weights(), folder / f"model_world_size_4_rank_{rank}.pt")
    (refused,) = found(tmp_path).refused
    assert "only 3 of 4 ranks" in refused.why


def test_one_file_a_checkpoint(tmp_path: Path) -> None:
    lightning(tmp_path / "c", range(10, 60, 10), bad_from=50)
    shutil.copy(tmp_path / "c" / "epoch=5-step=50.ckpt", tmp_path / "c" / "last.ckpt")
    assert good(tmp_path / "c") == "epoch=4-step=40.ckpt"


def test_a_folder_a_rank_is_one_checkpoint(tmp_path: Path) -> None:
    for rank in (0, 1):
        (tmp_path / f"rank_{rank}").mkdir()
        for step in (1, 2):
            torch.save(weights(bad=rank == 1 and step == 2), tmp_path / f"rank_{rank}" / f"step_{step}.pt")
    assert good(tmp_path) == "rank_0/step_1.pt rank_1/step_1.pt"


def test_a_layout_names_what_is_called_otherwise(tmp_path: Path) -> None:
    for step in (5, 12):
        (tmp_path / "saved" / f"x{step}").mkdir(parents=True)
        torch.save(weights(bad=step == 12), tmp_path / "saved" / f"x{step}" / "w.pt")
    assert not checkpoints(str(tmp_path))
    series = checkpoints(str(tmp_path), "saved/x{step}/w.pt")
    assert [each.step for each in series] == [5, 12]
    answer = last_good(series)
    assert answer.checkpoint == series[0]


def test_a_best_score_that_starts_at_infinity_is_no_fault(tmp_path: Path) -> None:
    tmp_path.joinpath("c").mkdir()
    content = {
        "state_dict": weights(),
        "callbacks": {"EarlyStopping": {"best_score": np.inf, "kth_value": torch.tensor(torch.inf)}},
    }
    torch.save(content, tmp_path / "c" / "epoch=0-step=1.ckpt")
    assert good(tmp_path / "c") == "epoch=0-step=1.ckpt"


def test_several_runs_are_not_mixed(tmp_path: Path) -> None:
    trainer(tmp_path / "a", (10,))
    trainer(tmp_path / "b", (10,))
    with pytest.raises(NanhuntError, match="holds several runs: a, b"):
        checkpoints(str(tmp_path))


# ---------------------------------------------------------------------------------------------- the command


class Ran(NamedTuple):
    """What a command wrote, and how it ended."""

    exit_code: int
    stdout: str
    stderr: str


def ran(*arguments: str) -> Ran:
    """nanhunt last-good; older CliRunners mix the two streams."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = process.run(app, ["last-good", *arguments])
    return Ran(code, out.getvalue(), err.getvalue())


def test_the_command_prints_a_path_for_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer(tmp_path / "run", (10, 20), bad_from=20)
    monkeypatch.chdir(tmp_path)
    done = ran("run")
    assert (done.exit_code, done.stdout) == (0, "run/checkpoint-10\n")
    assert (
        "not run/checkpoint-20: run/checkpoint-20/model.safetensors:model.layers.1.mlp.weight: 1 NaN"
        in done.stderr
    )


def test_none_is_exit_code_1_and_nothing_on_standard_output(tmp_path: Path) -> None:
    trainer(tmp_path / "run", (10, 20), bad_from=5)
    done = ran(str(tmp_path / "run"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.count("nanhunt: not ") == 2


def test_no_checkpoints_at_all_is_told(tmp_path: Path) -> None:
    done = ran(str(tmp_path))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "--layout" in done.stderr


def test_steps_in_several_places_are_not_two_lines_for_the_shell(tmp_path: Path) -> None:
    for rank in (0, 1):
        trainer(tmp_path / "run" / f"rank_{rank}", (10, 20), bad_from=20)
    done = ran(str(tmp_path / "run"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "step 10 is good, and lies in 2 places" in done.stderr
    assert f"nanhunt last-good {tmp_path}/run/rank_0 and so on" in done.stderr
    one = ran(str(tmp_path / "run" / "rank_0"))
    assert one.stdout == f"{tmp_path}/run/rank_0/checkpoint-10\n"
    told = json.loads(ran(str(tmp_path / "run"), "--json").stdout)
    assert len(told["last_good"]["paths"]) == 2


@pytest.mark.parametrize(
    "name",
    [
        "rank_0/iter_000030/decoder_layers_0_linear_fc1_activation.pt",
        "exp/step=30___rank=0___dump_index=3___name=attn_out___layer_id=2.pt",
        "TP0_PP0_Rank0_pid100/Pass00030.pt",
        "step30/rank0/dump_tensor_data/Functional.exp.0.forward.output.0.pt",
    ],
)
def test_dumps_are_no_checkpoints(tmp_path: Path, name: str) -> None:
    file = tmp_path / "run" / name
    file.parent.mkdir(parents=True)
    torch.save({"value": torch.ones(3)}, file)
    done = ran(str(tmp_path / "run"))
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no checkpoints to resume from" in done.stderr


def test_as_json(tmp_path: Path) -> None:
    trainer(tmp_path / "run", (10, 20), bad_from=20)
    done = ran(str(tmp_path / "run"), "--json")
    told = json.loads(done.stdout)
    assert told["last_good"]["step"] == 10
    assert [each["step"] for each in told["refused"]] == [20]


@pytest.mark.parametrize(("name", "why"), [("gone", "does not exist"), ("file.pt", "is no folder")])
def test_what_is_no_run_is_refused(tmp_path: Path, name: str, why: str) -> None:
    torch.save(weights(), tmp_path / "file.pt")
    with pytest.raises(NanhuntError, match=why):
        checkpoints(str(tmp_path / name))


@pytest.mark.parametrize("steps", [(1, 2), (1, 2, 3), (0, 1, 2, 3, 5)])
def test_a_rank_whose_number_is_that_of_the_step_is_not_missing(
    tmp_path: Path, steps: tuple[int, ...]
) -> None:
    """As "__2_0.distcp" of rank 2 at step 2; a step in a name is another in every checkpoint."""
    for step in steps:
        folder = tmp_path / f"step-{step}"
        folder.mkdir()
        for rank in range(3):
            np.save(folder / f"__{rank}_0.npy", np.ones(4))
        np.save(folder / f"model_at_{step}.npy", np.ones(4))
    assert good(tmp_path) == f"step-{steps[-1]}"
    assert found(tmp_path).refused == ()
    for gone, told in (("__2_0.npy", "__2_0.npy is missing"), (f"model_at_{steps[-1]}.npy", "model_at_")):
        kept = tmp_path / f"step-{steps[-1]}" / gone
        kept.unlink()
        assert told in found(tmp_path).refused[0].why
        np.save(kept, np.ones(4))
