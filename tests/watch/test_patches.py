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
        *(
            "float16_scores",
            "temperature_zero",
            "zero_times_infinity",
            "gan_batch_norm",
            "checkpointing_reentrant",
            "spectral_phase",
            "autocast_attention",
        ),
    ],
)
def test_a_patched_script_has_no_nan(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mended(Path(shutil.copy(HERE / "faults" / f"{name}.py", tmp_path)), monkeypatch)


@pytest.mark.parametrize(
    "name",
    [
        "bce_both_ends",
        *("softmax_module_then_log", "sigmoid_by_hand_gradient", "triplet_pairwise", "stable_softmax_masked"),
        *("group_of_one", "selected_cross_entropy", "token_entropy_masked", "attention_padding"),
        *(
            "vae_returned_pair",
            "softmax_of_functions",
            "softmax_over_lines",
            "softmax_lambda",
            "coupling_flow",
            "softmax_custom_function",
            "softmax_constructed",
            "half_products",
            "student_t_degrees",
        ),
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


@pytest.mark.parametrize(
    "imported",
    [
        'import pytest\ntorch = pytest.importorskip("torch")',
        'import importlib\ntorch = importlib.import_module("torch")',
        'import sys\nimport torch as _\ntorch = sys.modules["torch"]',
    ],
)
def test_torch_is_not_taken_for_a_receiver(
    imported: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        w = torch.full((4, 3), 60.0, requires_grad=True)
        p = torch.exp(w * 2); p = p / p.sum(-1, keepdim=True)
        loss = -torch.log(p[:, 0]).mean()
        loss.backward()
        """
    mended = mended_text(imported + textwrap.dedent(text), tmp_path, monkeypatch)
    assert "torch.exp(w * 2); p = torch.softmax(w * 2, dim=-1)" in mended.replace(
        "_.softmax", "torch.softmax"
    )


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


def test_popular_fixes_are_tried_and_what_they_leave_is_told(tmp_path: Path) -> None:
    [incident], _ = hunt(HERE / "faults" / "vae_log_variance.py", tmp_path)
    tried = {one.title: one.outcome for one in incident.tried}
    assert tried["gradient clipping"] == "the loss is still inf"
    for title in ("nan_to_num after exp", "clamp after exp", "nan_to_num on the loss"):
        assert tried[title] == "2 of 4 gradients still not finite"
    [told] = [line for line in incident_text(incident).splitlines() if "does not help" in line]
    assert told.startswith(
        "  does not help: gradient clipping (the loss is still inf); nan_to_num after exp, "
    )


def test_an_eps_that_half_precision_cannot_hold_and_xlogy_are_tried(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("""import torch
x = torch.nn.Parameter(torch.tensor([0.0, 300.0]).half())
p = torch.softmax(x, 0)
(p * torch.log(p)).sum().backward()
""")
    [incident], _ = hunt(script, tmp_path)
    tried = {one.title: one.outcome for one in incident.tried}
    assert tried["eps in half precision under log"] == "the loss is still nan"
    assert tried["torch.xlogy for the product"] == "1 of 1 gradients still not finite"


def test_the_proof_counts_what_else_changes(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("""import torch
x = torch.nn.Parameter(torch.tensor([1e-20, 0.0, 1.0]))
other = torch.nn.Parameter(torch.tensor([2.0]))
(torch.log(x).sum() + other * 3).sum().backward()
""")
    [incident], _ = hunt(script, tmp_path)
    assert incident.patch is not None
    proof = incident.patch.proof
    # log(x) and x.grad at 1e-20, where the floor is 1e-12; not: other * 3 and its gradient.
    assert (proof.changed, proof.finite_gradients, proof.gradients) == (2, 2, 2)
    assert "values that were finite before changed, by up to" in incident_text(incident)


def test_a_log_variance_is_bounded_where_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
        import torch
        torch.manual_seed(0)
        encode, decode = torch.nn.Linear(3, 4), torch.nn.Linear(2, 3)
        x = torch.tensor([[1.0, 2.0, 3.0], [900.0, -900.0, 900.0]])
        mu, logvar = encode(x).chunk(2, dim=-1)  # the posterior
        std = (0.5 * logvar).exp()
        out = decode(mu + std)
        loss = (out - x).pow(2).mean() + (logvar.exp() - logvar).mean()
        loss.backward()
    """
    new = mended_text(text, tmp_path, monkeypatch)
    assert "# the posterior\nlogvar = logvar.clamp(-20, 20)\n" in new


def test_code_in_a_compiled_region_is_patched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
        import torch
        layer = torch.nn.Linear(3, 3)

        @torch.compile(backend="eager")
        def probabilities(x):
            e = torch.exp(layer(x))
            return e / e.sum(1, keepdim=True)

        torch.nn.init.constant_(layer.weight, 40.0)
        probabilities(torch.ones(2, 3)).pow(2).sum().backward()
    """
    assert "return torch.softmax(logits, dim=1)" in mended_text(text, tmp_path, monkeypatch)


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_any_kind_of_file_is_patched(
    start: bytes, end: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        *("import torch", "def loss(z):", "\te = z.exp()  # \u03c0", "\f", "\treturn e.sum(1).log().sum()"),
        "loss(torch.nn.Parameter(torch.tensor([[1.0, 100.0]]))).backward()",
    ]
    script = tmp_path / "train.py"
    script.write_bytes(start + end.join(line.encode() for line in lines))  # no line end at the last
    mended(script, monkeypatch)
    assert b"\treturn torch.logsumexp(z, dim=1).sum()" + end in script.read_bytes()


def test_inference_is_mended_without_a_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(shutil.copy(HERE / "faults" / "inference_every_op.py", tmp_path))
    monkeypatch.chdir(tmp_path)
    [incident], _ = hunt(script, tmp_path / "capture")
    assert incident.patch is not None
    assert "+        return torch.softmax(logits, dim=-1)" in incident.patch.diff
    assert "the output is finite, nothing else changed (22 values compared)" in incident_text(incident)


def test_what_a_repair_bends_is_counted_over_all_runs(tmp_path: Path) -> None:
    [incident], _ = hunt(HERE / "corpus" / "coupling_flow.py", tmp_path)
    assert incident.patch is not None
    assert incident.patch.bends.startswith("2 of 128 values are bounded there")  # 16 rows of 2 in 4 layers


def test_what_is_more_than_an_exponent_is_not_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        import torch
        layer = torch.nn.Linear(2, 2)
        torch.nn.init.constant_(layer.weight, -60.0)
        x = layer(torch.ones(3, 2))
        swish = x / (1 + torch.exp(-x))
        swish.pow(2).sum().backward()
    """
    assert "x = layer(torch.ones(3, 2))\n" in mended_text(text, tmp_path, monkeypatch)


def test_a_module_is_not_exchanged_where_another_of_its_kind_is_constructed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edit would reach further than what was proven: the logarithm gets a floor."""
    text = (HERE / "corpus" / "sequential_softmax_then_log.py").read_text()
    script = tmp_path / "train.py"
    script.write_text(f"{text}attention = torch.nn.Softmax(-1)\n")
    incident = mended(script, monkeypatch)
    assert incident.patch is not None
    assert incident.patch.bends
    assert "LogSoftmax" not in incident.patch.diff
