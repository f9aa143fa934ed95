"""Without --op an operation is chosen by a whole set of names, never by shapes; what was chosen is said, and why."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import nanhunt
from nanhunt.cli.app import app

HEADS = torch.zeros(1, 2, 4, 8)
TOKENS = torch.full((2, 3), -1.0)
POLICY = {"per_token_logps": TOKENS, "old_per_token_logps": TOKENS - 100.0, "advantages": torch.ones(2)}


@pytest.fixture
def saved(tmp_path):
    def save(tensors):
        path = tmp_path / "dump.pt"
        torch.save(tensors, path)
        return path

    return save


def judged_as(report) -> dict[str, str]:
    """The operation of each tensor that was judged, by name."""
    return {tensor.tensor: tensor.operation for tensor in report.tensors}


def test_a_whole_set_of_names_is_chosen_and_said(saved):
    report = nanhunt.check(saved({"step": {7: {**POLICY, "rewards": torch.ones(2)}}}))
    assert judged_as(report) == {"step.7.per_token_logps": "ppo", "step.7.rewards": "values"}
    (policy,) = [each for each in report.tensors if each.operation == "ppo"]
    assert policy.notes[0] == "--op ppo by name: log_probs, old_log_probs, advantages stand together"
    assert [finding.code for finding in policy.findings] == ["NH807"]


def test_in_memory_too():
    assert judged_as(nanhunt.check(POLICY)) == {"per_token_logps": "ppo"}
    assert judged_as(nanhunt.compare(POLICY)) == {"per_token_logps": "ppo"}


def test_logits_beside_it_stay_logits(saved):
    path = saved(
        {"logits": torch.zeros(3, 4), "labels": torch.tensor([0, 1, 2]), "query": HEADS, "key": HEADS}
    )
    assert judged_as(nanhunt.check(path)) == {"logits": "cross-entropy", "query": "attention"}
    assert set(judged_as(nanhunt.compare(path)).values()) == {"cross-entropy", "attention"}
    assert judged_as(nanhunt.check(path, op="cross-entropy"))["query"] == "values"
    assert judged_as(nanhunt.check(path, logits="logits")) == {"logits": "cross-entropy"}


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": HEADS, "b": HEADS, "c": HEADS},  # the shapes of attention
        {"query": HEADS, "output": HEADS},
        {"q_proj": {"weight": torch.zeros(8, 8)}, "k_proj": {"weight": torch.zeros(8, 8)}},
        {"log_probs": TOKENS, "advantages": torch.ones(2)},
        {"layer0": {"query": HEADS}, "layer1": {"key": HEADS}},  # never in one place
        {"hidden_states": torch.zeros(2, 8)},
    ],
)
def test_half_a_set_is_values_only(saved, tensors):
    assert set(judged_as(nanhunt.check(saved(tensors))).values()) == {"values"}


def test_names_alone_never_refuse_numbers(saved):
    path = saved({**POLICY, "advantages": torch.ones(5)})
    report = nanhunt.check(path)
    assert not report.errors
    (tensor,) = [each for each in report.tensors if each.tensor == "per_token_logps"]
    assert tensor.operation == "values"
    assert "cannot be judged so: --op ppo: these shapes do not fit" in tensor.notes[0]


def test_roles_say_which_operation_is_meant(saved):
    path = saved(
        {"a": TOKENS, "b": TOKENS, "c": torch.ones(2), "x": torch.zeros(2, 4), "y": torch.tensor([0, 1])}
    )
    policy = nanhunt.check(path, role=["log_probs=a", f"old_log_probs={path}:b", "advantages=c"])
    assert judged_as(policy) == {"a": "ppo"}
    (logits,) = nanhunt.check(path, role=["logits=x", "targets=y"]).tensors
    assert (logits.operation, logits.targets.source) == ("cross-entropy", f"{path}:y")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"role": ["qery=a"]}, "Did you mean query?"),
        ({"role": ["mu"]}, "is not ROLE=[FILE:]NAME"),
        ({"role": ["query=a", "advantages=a"]}, "No operation has all the roles advantages, query"),
        ({"op": "cross-entropy", "role": ["advantages=a"]}, "--role advantages is not known"),
        ({"op": "ppo"}, 'Did you mean "old_log_prbs"? Say which: --role old_log_probs=NAME'),
        ({"op": "attention"}, "query float32 (2, 3), q_states float32 (2, 3) could each be query"),
    ],
)
def test_what_is_missing_or_unclear_is_said(saved, options, said):
    path = saved(
        {"log_probs": TOKENS, "old_log_prbs": TOKENS, "advantages": torch.ones(2), "query": TOKENS,
         "q_states": TOKENS, "key": TOKENS}
    )  # fmt: skip
    (error,) = nanhunt.check(path, **options).errors
    assert said in error.message + " " + error.hint


@pytest.mark.parametrize(
    ("op", "tensors", "shape"),
    [
        ("ppo", POLICY, (2, 3)),
        ("masked-mean", {"values": TOKENS}, (2, 3)),
        ("attention", {"query": HEADS, "key": HEADS}, (4, 4)),
    ],
)
@pytest.mark.parametrize("number", [-10_000, 2])
def test_a_mask_of_other_numbers_than_0_and_1_is_none(saved, op, tensors, shape, number):
    mask = torch.zeros(shape, dtype=torch.long)
    mask[0] = 1
    assert nanhunt.check(saved({**tensors, "mask": mask}), op=op).tensors
    mask[1, 1] = number
    (error,) = nanhunt.check(saved({**tensors, "mask": mask}), op=op).errors
    assert "is no mask: it holds values from" in error.message


def test_a_tensor_of_the_wrong_kind_is_told_as_that(saved):
    (error,) = nanhunt.check(
        saved({**POLICY, "advantages": torch.ones(2, dtype=torch.long)}), op="ppo"
    ).errors
    assert (
        "has advantages int64 (2,), and advantages of --op ppo is (B, T), (B, 1) or (B,) float"
        in error.message
    )


def test_an_array_without_a_name_is_the_one_that_is_needed(tmp_path):
    np.save(tmp_path / "one.npy", np.ones((3, 4), np.float32))
    (tensor,) = nanhunt.check(tmp_path / "one.npy", op="norm").tensors
    assert tensor.roles == {"hidden_states": str(tmp_path / "one.npy")}
    assert nanhunt.check(tmp_path / "one.npy", op="kl").errors
    (values,) = nanhunt.check(tmp_path / "one.npy").tensors
    assert values.operation != "norm"


def test_paths_of_hdf5_are_names(saved):
    path = saved({"net": {"logits": torch.zeros(2, 3), "labels": torch.tensor([0, 1])}})
    for spelled in ("net/logits", "/net/logits", "net.logits", "net/*its"):
        (tensor,) = nanhunt.check(path, logits=spelled, targets=f"{path}:net/labels").tensors
        assert (tensor.tensor, tensor.targets.source) == ("net.logits", f"{path}:net.labels")
        (tensor,) = nanhunt.check(path, op="norm", role=f"hidden_states={spelled}").tensors
        assert tensor.tensor == "net.logits"


@pytest.mark.parametrize(
    "words",
    [
        ["--role", "logitz=logits"],
        ["--op", "bce", "--role", "query=logits"],
        ["--op", "bcee"],
        ["--function", "losses.py:loss"],
    ],
)
def test_a_typo_is_told_once_and_not_once_a_file(words, tmp_path):
    for number in range(3):
        torch.save({"logits": torch.zeros(2, 3)}, tmp_path / f"{number}.pt")
    done = CliRunner().invoke(app, ["check", str(tmp_path), *words])
    assert isinstance(done.exception, nanhunt.NanhuntError)
    assert "NOT READ" not in done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"op": "bce", "causal": True}, "--causal means nothing to --op bce: it is an option of attention."),
        ({"op": "attention", "gamma": 2.0}, "attention takes --mask-drops, --scale,"),
        ({"op": "ppo", "logits": "log_probs"}, "--logits means nothing to --op ppo: it is an option of cross-entropy"),
        ({"op": "entropy", "class_axis": 0}, "--class-axis means nothing to --op entropy"),
        ({"op": "values", "temperature": 2.0}, "--temperature means nothing to --op values"),
        ({"stable": "losses.py:right"}, "--stable is compared with --function, and there is none."),
        ({"function": "losses.py:loss", "op": "ppo"}, "--op ppo asks for another operation"),
        ({"function": "losses.py:loss", "eps": 1e-3}, "--eps means nothing to --op function"),
    ],
)  # fmt: skip
def test_an_option_of_another_operation_is_refused(saved, options, said):
    with pytest.raises(nanhunt.NanhuntError) as error:
        nanhunt.check(saved(POLICY), **options)
    assert said in f"{error.value} {error.value.hint}"


def test_an_option_of_a_configuration_file_is_for_the_operations_that_have_it(saved, tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("[tool.nanhunt]\ncausal = true\n")
    monkeypatch.chdir(tmp_path)
    path = str(saved({"logits": torch.zeros(2), "targets": torch.ones(2)}))
    assert CliRunner().invoke(app, ["check", path, "--op", "bce"]).exit_code == 0
    refused = CliRunner().invoke(app, ["check", path, "--op", "bce", "--scale", "0.0"])
    assert isinstance(refused.exception, nanhunt.NanhuntError)


def test_names_that_say_two_operations_alike_are_told_and_judged_as_numbers():
    pairs = {
        "mu": torch.ones(4, 3),
        "logvar": torch.ones(4, 3),
        "values": torch.ones(4, 5),
        "mask": torch.ones(4, 5),
    }
    report = nanhunt.check(pairs)
    assert {tensor.operation for tensor in report.tensors} == {"values"}
    notes = {note for tensor in report.tensors for note in tensor.notes}
    assert notes == {"by name this could be gaussian-kl or masked-mean: say --op"}


def test_what_else_stood_there_is_told_though_it_shares_no_tensor():
    heads, latent = torch.zeros(1, 2, 3, 4), torch.zeros(3, 2)
    dump = {"query": heads, "key": heads, "value": heads, "mu": latent, "logvar": latent}
    notes = [note for tensor in nanhunt.check(dump).tensors for note in tensor.notes]
    assert notes == ["--op attention by name: query, key stand together; also possible: --op gaussian-kl"]
