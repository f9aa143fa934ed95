"""Dumps by the names that libraries give their tensors are recognised, without --op where those names tell."""

from __future__ import annotations

import pytest
import torch

import nanhunt

TOKENS, PAIRS, ROWS = torch.full((2, 3), -1.0), torch.ones(2), torch.ones(2, 3)
PADDED = torch.tensor([[False, False, True], [False, False, False]])
KEPT = torch.ones(2, 3, dtype=torch.long)
HEADS, CAUSAL = torch.zeros(1, 2, 4, 8), torch.zeros(1, 1, 4, 4)
DUMPS = {
    "TRL, GRPO": (
        "ppo",
        {"per_token_logps": TOKENS, "old_per_token_logps": TOKENS, "ref_per_token_logps": TOKENS, "advantages": PAIRS,
         "completion_mask": KEPT},
    ),
    "TRL, vLLM": (
        "ppo",
        {"per_token_logps": TOKENS, "sampling_per_token_logps": TOKENS, "advantages": PAIRS, "completion_mask": KEPT},
    ),
    "TRL, DPO": (
        "bce",
        {"chosen_logps": PAIRS, "rejected_logps": PAIRS, "ref_chosen_logps": PAIRS, "ref_rejected_logps": PAIRS},
    ),
    "TRL, DPO, policy": (
        "bce",
        {"policy_chosen_logps": PAIRS, "policy_rejected_logps": PAIRS, "reference_chosen_logps": PAIRS,
         "reference_rejected_logps": PAIRS},
    ),
    "TRL, rewards": ("bce", {"rewards_chosen": PAIRS, "rewards_rejected": PAIRS}),
    "verl": (
        "ppo",
        {"log_prob": TOKENS, "old_log_prob": TOKENS, "ref_log_prob": TOKENS, "advantages": ROWS, "response_mask": KEPT},
    ),
    "verl, rollout": (
        "ppo", {"log_probs": TOKENS, "rollout_log_probs": TOKENS, "advantages": ROWS, "response_mask": KEPT},
    ),
    "verl, rewards": ("masked-mean", {"token_level_rewards": TOKENS, "response_mask": KEPT}),
    "verl, scores": ("masked-mean", {"token_level_scores": TOKENS, "response_mask": KEPT}),
    "OpenRLHF": (
        "ppo",
        {"action_log_probs": TOKENS, "old_action_log_probs": TOKENS, "base_action_log_probs": TOKENS,
         "advantages": ROWS, "action_mask": KEPT},
    ),
    "OpenRLHF, rewards": ("bce", {"chosen_reward": PAIRS, "reject_reward": PAIRS}),
    "transformers": (
        "attention",
        {"query_states": HEADS, "key_states": HEADS, "value_states": HEADS, "attention_mask": CAUSAL},
    ),
    "transformers, BERT": ("attention", {"query_layer": HEADS, "key_layer": HEADS, "value_layer": HEADS}),
    "Keras, attention": ("attention", {"query": HEADS, "key": HEADS, "value": HEADS, "mask": CAUSAL == 0}),
    "Keras, VAE": ("gaussian-kl", {"z_mean": PAIRS, "z_log_var": PAIRS}),
    "diffusers, VAE": ("gaussian-kl", {"mean": PAIRS, "logvar": PAIRS}),
    "distillation": (
        "kl", {"student_log_probs": TOKENS.log_softmax(-1), "teacher_probs": TOKENS.softmax(-1)},
    ),
    "groups": ("masked-mean", {"rewards": PAIRS, "group_ids": torch.tensor([0, 0])}),
}  # fmt: skip


@pytest.mark.parametrize("name", DUMPS)
def test_names_say_what_a_dump_is(name, tmp_path):
    operation, tensors = DUMPS[name]
    path = tmp_path / "dump.pt"
    torch.save({"step": {3: {**tensors, "lr": 1e-4}}}, path)
    (tensor,) = [each for each in nanhunt.check(path).tensors if each.operation != "values"]
    assert tensor.operation == operation
    assert {label.rpartition(".")[2] for label in tensor.roles.values()} == set(tensors)
    assert tensor.notes[0].startswith(f"--op {operation} by name")


TRL_PPO = {"log_probs": "new_logprobs", "old_log_probs": "logprobs", "advantages": "advantages"}
WHOLE = {
    # By library: (tensors that are log-probabilities or alike, who plays which role)
    "TRL, PPO": (
        "new_logprobs logprobs ref_logprobs advantages padding_mask values rewards returns",
        {**TRL_PPO, "mask": "padding_mask", "ref_log_probs": "ref_logprobs"},
    ),
    "TRL, PPO, a minibatch": (
        "new_logprobs mb_logprobs mb_advantage",
        {"log_probs": "new_logprobs", "old_log_probs": "mb_logprobs", "advantages": "mb_advantage"},
    ),
    "TRL, GRPO beside vLLM": (
        "per_token_logps old_per_token_logps sampling_per_token_logps advantages completion_mask prompt_mask",
        {"log_probs": "per_token_logps", "old_log_probs": "old_per_token_logps", "advantages": "advantages",
         "mask": "completion_mask"},
    ),
    "TRL, DPO with logits": (
        "chosen_logps rejected_logps chosen_logits rejected_logits",
        {"chosen": "chosen_logps", "rejected": "rejected_logps"},
    ),
    "verl": (
        "log_prob old_log_probs ref_log_prob rollout_log_probs advantages returns response_mask attention_mask "
        "token_level_scores token_level_rewards values",
        {"log_probs": "log_prob", "old_log_probs": "old_log_probs", "advantages": "advantages",
         "mask": "response_mask", "ref_log_probs": "ref_log_prob"},
    ),
    "OpenRLHF": (
        "action_log_probs old_action_log_probs base_action_log_probs rollout_log_probs advantages values action_mask "
        "attention_mask",
        {"log_probs": "action_log_probs", "old_log_probs": "old_action_log_probs", "advantages": "advantages",
         "mask": "action_mask", "ref_log_probs": "base_action_log_probs"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("library", WHOLE)
def test_what_else_lies_in_the_dump_takes_no_role(library, tmp_path):
    names, roles = WHOLE[library]
    path = tmp_path / "dump.pt"
    torch.save({name: KEPT if "mask" in name else TOKENS for name in names.split()}, path)
    judged = [each for each in nanhunt.check(path).tensors if each.operation in ("ppo", "bce")]
    (tensor,) = judged
    assert {role: label.rpartition(":")[2] for role, label in tensor.roles.items()} == roles


def test_a_padding_mask_is_true_where_a_token_is_left_out():
    padded = torch.tensor([[False, False, True], [False, False, False]])
    new = torch.tensor([[-1.0, -1.0, -1.0], [-1.0, -1.0, -101.0]])
    batch = {
        "new_logprobs": new, "logprobs": new - torch.tensor([0.0, 0.0, 99.0]), "advantages": ROWS,
        "padding_mask": padded,
    }  # fmt: skip
    (tensor,) = nanhunt.check(batch).tensors
    assert [(finding.code, finding.rows) for finding in tensor.findings] == [("NH805", (2,)), ("NH807", (5,))]
    assert tensor.notes[1] == "mask: 1 (True) leaves a token out; --no-mask-drops reads it the other way"
    (tensor,) = nanhunt.check(batch, mask_drops=False).tensors
    assert [(finding.code, finding.rows) for finding in tensor.findings] == [("NH805", (5,)), ("NH807", (2,))]


def test_scores_of_a_reward_model_are_no_attention():
    assert {each.operation for each in nanhunt.check({"token_level_scores": ROWS, "x": ROWS}).tensors} == {
        "values"
    }


@pytest.mark.parametrize(
    ("op", "tensors"),
    [
        ("bce", {"y_pred": ROWS, "y_true": ROWS}),
        ("distance", {"anchor": ROWS, "positive": ROWS}),
        ("contrastive", {"image_features": ROWS, "labels": torch.tensor([0, 0])}),
        ("norm", {"last_hidden_state": ROWS}),
        ("log1mexp", {"chosen_logps": PAIRS}),
        ("gumbel-softmax", {"router_logits": ROWS}),
    ],
)
def test_with_op_other_names_are_known_too(op, tensors):
    (tensor,) = nanhunt.check(tensors, op=op).tensors
    assert {label.rpartition(":")[2] for label in tensor.roles.values()} >= set(tensors)
