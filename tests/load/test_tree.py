"""Where in a run a tensor stands, as the paths and names of real writers say it."""

from __future__ import annotations

from typing import Any

import pytest

from nanhunt.errors import NanhuntError
from nanhunt.load.tree import coordinates, fits_layout

HF = "out/checkpoint-500"
DEEPSPEED = "run/global_step10"
MSPROBE = "m/step2/rank1/dump_tensor_data"
DEBUGGER = "dbg/model.layers.0.self_attn"

WRITERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "plain dump": ("dumps/step-20.npz", "logits", {"run": "dumps", "path": "dumps/step-20.npz", "step": 20}),
    "rank folder": (
        "run/rank_3/step_7.pt", "transformer.h.0.attn",
        {"run": "run", "path": "run/rank_3/step_7.pt", "rank": 3, "step": 7, "layer": 0},
    ),
    "Trainer": (
        f"{HF}/model.safetensors", "model.layers.11.mlp.weight",
        {"run": "out", "path": HF, "step": 500, "layer": 11, "phase": "model"},
    ),
    "Trainer, optimizer": (
        f"{HF}/optimizer.pt", "state.0.exp_avg", {"run": "out", "path": HF, "step": 500, "phase": "optimizer"},
    ),
    "Trainer, DeepSpeed inside": (
        f"{HF}/global_step500/mp_rank_00_model_states.pt", "module.wte.weight",
        {"run": "out", "path": HF, "step": 500, "tp": 0, "phase": "model"},
    ),
    "Lightning": (
        "ckpt/epoch=3-step=1200.ckpt", "optimizer_states.0.state.1.exp_avg",
        {"run": "ckpt", "path": "ckpt/epoch=3-step=1200.ckpt", "epoch": 3, "step": 1200, "phase": "optimizer"},
    ),
    "DeepSpeed, ZeRO": (
        f"{DEEPSPEED}/bf16_zero_pp_rank_3_mp_rank_01_optim_states.pt", "optimizer_state_dict.fp32_flat_groups.0",
        {"run": "run", "path": DEEPSPEED, "step": 10, "dp": 3, "tp": 1, "phase": "optimizer"},
    ),
    "DeepSpeed, experts": (
        f"{DEEPSPEED}/layer_4_expert_2_mp_rank_00_model_states.pt", "w",
        {"run": "run", "path": DEEPSPEED, "step": 10, "layer": 4, "expert": 2, "tp": 0, "phase": "model"},
    ),
    "Megatron": (
        "ck/iter_0000100/mp_rank_00_001/model_optim_rng.pt", "optimizer.optimizer.state.0.exp_avg",
        {"run": "ck", "path": "ck/iter_0000100", "step": 100, "tp": 0, "pp": 1, "phase": "optimizer"},
    ),
    "torchtitan": (
        "outputs/step-10", "layers.0.attention.wq.weight",
        {"run": "outputs", "path": "outputs/step-10", "step": 10, "layer": 0, "phase": "model"},
    ),
    "torchtune": (
        "x/epoch_3/model-00001-of-00002.safetensors", "a.weight",
        {"run": "x", "path": "x/epoch_3", "epoch": 3, "phase": "model"},
    ),
    "verl": (
        "global_step_20/actor/optim_world_size_8_rank_2.pt", "state.model.layers.1.exp_avg",
        {"run": "", "path": "global_step_20", "step": 20, "rank": 2, "layer": 1, "phase": "optimizer"},
    ),
    "TransformerEngine": (
        "tensor_dumps/rank_0/iter_000010/transformer_layer_3_self_attention_qkv_dgrad.pt", "high_precision",
        {
            "run": "tensor_dumps", "path": "tensor_dumps/rank_0/iter_000010", "rank": 0, "step": 10, "layer": 3,
            "module": "transformer_layer_3_self_attention_qkv", "phase": "backward", "side": "output",
        },
    ),
    "TransformerEngine, a weight": (
        "dumps/rank_0/iter_000010/layers_3_fc1_weight.pt", "high_precision",
        {
            "run": "dumps", "path": "dumps/rank_0/iter_000010", "rank": 0, "step": 10, "layer": 3,
            "module": "layers_3_fc1", "phase": "forward", "side": "input",
        },
    ),
    "TransformerEngine, an output": (
        "dumps/rank_0/iter_000010/layers_3_fc1_output.pt", "quantized",
        {
            "run": "dumps", "path": "dumps/rank_0/iter_000010", "rank": 0, "step": 10, "layer": 3,
            "module": "layers_3_fc1", "phase": "forward", "side": "output",
        },
    ),
    "a weight by itself, called as TransformerEngine's": (
        "saved/step_10/layers_3_fc1_weight.pt", "",
        {"run": "saved", "path": "saved/step_10", "step": 10, "layer": 3},
    ),
    "SGLang dumper": (
        "d/exp/step=3___rank=0___dump_index=12___name=attn_out___layer_id=5.pt", "value",
        {
            "run": "d/exp", "path": "d/exp/step=3___rank=0___dump_index=12___name=attn_out___layer_id=5.pt",
            "step": 3, "rank": 0, "order": 12, "module": "attn_out", "layer": 5,
        },
    ),
    "SGLang hook": (
        "d/TP1_PP0_Rank1_pid433/Pass00003.pt", "model.layers.0.self_attn",
        {"run": "d", "path": "d/TP1_PP0_Rank1_pid433/Pass00003.pt", "tp": 1, "pp": 0, "rank": 1, "step": 3, "layer": 0},
    ),
    "msprobe": (
        f"{MSPROBE}/Module.module.layers.0.mlp.Linear.forward.0.output.0.pt", "",
        {
            "run": "m", "path": "m/step2", "step": 2, "rank": 1, "layer": 0,
            "module": "module.layers.0.mlp.Linear", "phase": "forward", "side": "output",
        },
    ),
    "msprobe without ranks": (
        "m/step2/proc123/dump_tensor_data/Functional.linear.12.backward.input.1.pt", "",
        {
            "run": "m", "path": "m/step2", "step": 2, "module": "linear.12", "phase": "backward", "side": "input",
        },
    ),
    "transformers' debugger": (
        f"{DEBUGGER}_inputs_hidden_states.safetensors", "data",
        {"run": "dbg", "layer": 0, "module": "model.layers.0.self_attn", "phase": "forward", "side": "input"},
    ),
    "transformers' debugger, the whole model": (
        "dbg/Net_outputs_loss.safetensors", "data",
        {"run": "dbg", "module": "Net", "phase": "forward", "side": "output"},
    ),
    "a module called input_layernorm": (
        "dbg/model.layers.0.input_layernorm_outputs.safetensors", "data",
        {"run": "dbg", "layer": 0, "module": "model.layers.0.input_layernorm", "phase": "forward", "side": "output"},
    ),
    "BERT's output is a weight": (
        "bert.bin", "encoder.layer.0.attention.output.dense.weight", {"layer": 0, "phase": "model"},
    ),
    "gradients": ("grads.pt", "layers.2.grad", {"layer": 2, "phase": "backward"}),
    "the innermost step": ("step-1/step-2.npy", "", {"run": "step-1", "path": "step-1/step-2.npy", "step": 2}),
    "a folder around the run": (
        "/step3/run/epoch_1/step_20/a.npy", "", {"run": "/step3/run", "path": "/step3/run/epoch_1/step_20", "epoch": 1,
         "step": 20},
    ),
    "the outermost layer": ("x.pt", "layers.3.experts.h.1", {"layer": 3}),
    "words that only end alike": ("footstep3.npy", "sublayers.4", {}),
    "shards are no ranks": ("model-00001-of-00005.safetensors", "w", {"phase": "model"}),
    "no number that long": ("step-" + "9" * 40 + ".npy", "", {}),
    "outputs of a model": ("model_outputs.pt", "", {"phase": "forward"}),
}  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS)
def test_layouts_of_real_writers(writer: str) -> None:
    file, tensor, expected = WRITERS[writer]
    assert coordinates(file, tensor) == expected


@pytest.mark.parametrize(
    ("file", "layout", "expected"),
    [
        (
            "x/dumps/0012/3/4_attn.out.pt", "dumps/{step}/{rank}/{layer}_{name}.pt",
            {"run": "x", "path": "x/dumps/0012", "step": 12, "rank": 3, "layer": 4, "module": "attn.out"},
        ),
        ("x_30_2.pt", "x_{step}_{rank}.pt", {"run": "", "path": "x_30_2.pt", "step": 30, "rank": 2}),
        ("a/run7/b/12.pt", "run*/b/{step}.pt", {"run": "a", "path": "a/run7/b/12.pt", "step": 12}),
        ("a/9.backward.npy", "{step}.{phase}.npy",
         {"run": "a", "path": "a/9.backward.npy", "step": 9, "phase": "backward"}),
        ("step-1/5.npy", "{epoch}.npy", {"run": "step-1", "step": 1, "path": "step-1/5.npy", "epoch": 5}),
        ("other/3.npy", "dumps/{step}.npy", {}),
    ],
)  # fmt: skip
def test_a_layout_says_it_where_it_cannot_be_known(file: str, layout: str, expected: dict[str, Any]) -> None:
    assert coordinates(file, "", layout) == expected
    assert fits_layout(file, layout) == ("run" in expected)


@pytest.mark.parametrize(
    ("layout", "why"),
    [
        ("dumps/*.pt", "names no coordinate"),
        ("{stpe}.pt", "{stpe} is not known"),
        ("{step}/{step}.pt", "{step} stands in it twice"),
    ],
)
def test_a_layout_that_says_nothing_is_refused(layout: str, why: str) -> None:
    with pytest.raises(NanhuntError, match=why.replace("{", r"\{")) as refused:
        coordinates("x.pt", "", layout)
    assert "{rank}" in refused.value.hint
