"""A patch is proven on the repeated step; here it is applied by git, and the script run again without nanhunt."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path

import pytest
import rerun
from test_faults import hunt
from typer.testing import CliRunner

from nanhunt.cli.app import app
from nanhunt.watch.incident import Incident
from nanhunt.watch.message import incident_text

pytestmark = pytest.mark.filterwarnings("ignore")
HERE = Path(__file__).parent


def mended(script: Path, monkeypatch: pytest.MonkeyPatch) -> Incident:
    """Hunt in the script's folder, apply the patch there, and see that nothing is left."""
    monkeypatch.chdir(script.parent)
    assert rerun.faults(script)
    [incident], _ = hunt(script, script.parent / "capture")
    assert incident.patch is not None
    assert incident.patch.proof.sound
    rerun.apply(incident.patch.diff, script.parent)
    assert rerun.faults(script) == []
    return incident


@pytest.mark.parametrize(
    "name",
    [
        *(
            "vae_log_variance",
            "where_bad_branch",
            "pixels_log_sigmoid",
            "logsumexp_by_hand",
            "contrastive_temperature",
        ),
        *("float16_scores", "temperature_zero", "zero_times_infinity"),
    ],
)
def test_a_patched_script_has_no_nan(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mended(Path(shutil.copy(HERE / "faults" / f"{name}.py", tmp_path)), monkeypatch)


@pytest.mark.parametrize(
    "name",
    [
        *("softmax_module_then_log", "sigmoid_by_hand_gradient", "triplet_pairwise", "stable_softmax_masked"),
        *("group_of_one", "selected_cross_entropy", "token_entropy_masked", "attention_padding"),
    ],
)
def test_a_naive_spelling_is_patched(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mended(Path(shutil.copy(HERE / "corpus" / f"{name}.py", tmp_path)), monkeypatch)


def test_the_edits_of_a_pattern_may_be_in_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (HERE / "corpus" / "loss_in_a_module").glob("*.py"):
        shutil.copy(file, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    mended(tmp_path / "main.py", monkeypatch)
    assert "torch.log_softmax(self.layer(x), dim=1)" in (tmp_path / "network.py").read_text()
    assert "torch.log(" not in (tmp_path / "losses.py").read_text()


def mended_text(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The script after the patch."""
    script = folder / "train.py"
    script.write_text(textwrap.dedent(text))
    mended(script, monkeypatch)
    return script.read_text()


def test_the_edit_is_in_the_users_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
        import torch as th

        def loss(scores, y):
            π = th.softmax(scores[:, :2] * 100, dim=1)
            return -th.log(π).gather(1, y[:, None]).mean()

        x = th.nn.Parameter(th.tensor([[0.0, 9.0, 1.0]]))
        loss(x, th.tensor([0])).backward()
    """
    new = mended_text(text, tmp_path, monkeypatch)
    assert "-th.log_softmax(scores[:, :2] * 100, dim=1).gather(1, y[:, None]).mean()" in new


def test_what_is_needed_twice_and_costs_gets_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
        import torch
        x = torch.nn.Parameter(torch.tensor([[0.0, 900.0], [1.0, 2.0]]))
        e = torch.exp(torch.relu(x))
        p = e / e.sum(1, keepdim=True)
        (e[0] / e[0].sum()).sum().backward()
    """
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(text))
    mended(script, monkeypatch)


def test_the_option_writes_what_git_applies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "train.py"
    lines = ["import torch", "x = torch.nn.Parameter(torch.tensor([1.0, 100.0]))", "x.exp().sum().backward()"]
    script.write_bytes("\r\n".join(lines).encode())  # Windows' line ends, and none at the end
    done = CliRunner().invoke(app, ["run", "--patch", "fix.diff", "train.py"])
    assert done.exit_code == 1
    rerun.apply((tmp_path / "fix.diff").read_bytes().decode(), tmp_path)
    assert b"x.clamp(max=20).exp()" in script.read_bytes()
    assert rerun.faults(script) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("nan_input", "with row 9 of the batch replaced by a sound one the repeated step is finite (loss"),
        ("dataloader_workers", "sample 6 of the data set"),
        ("articles_softmax", "the parameters grew 42.9-fold in 2 steps (norm 3.86 to 166; loss 2.34, 19.5)"),
    ],
)
def test_where_code_is_not_the_cause_that_is_shown(name: str, shown: str, tmp_path: Path) -> None:
    [incident], _ = hunt(HERE / "faults" / f"{name}.py", tmp_path)
    assert shown in incident.not_code
    assert incident.patch is None
    assert "proven" not in incident_text(incident)
