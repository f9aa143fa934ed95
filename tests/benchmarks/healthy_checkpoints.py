"""Checkpoints that have nothing wrong: public model families x optimizers, fresh and after some steps.

Run as ``python tests/benchmarks/healthy_checkpoints.py``: a line a family, and every warning or error, of which there
should be none. Needs transformers; the models are tiny and start at random, nothing is downloaded.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

import nanhunt

WORDS, SIZE, HEADS = 32, 16, 2
Batch = Mapping[str, torch.Tensor]


def _text() -> Batch:
    return {"input_ids": torch.randint(3, WORDS, (2, 8)), "labels": torch.randint(3, WORDS, (2, 8))}


def _images() -> Batch:
    return {"pixel_values": torch.randn(2, 3, 16, 16), "labels": torch.tensor([0, 1])}


def _speech() -> Batch:
    return {"input_features": torch.randn(2, 8, 32), "labels": torch.randint(3, WORDS, (2, 8))}


_ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_STACK = {
    "vocab_size": WORDS, "hidden_size": SIZE, "intermediate_size": 2 * SIZE, "num_hidden_layers": 1,
    "num_attention_heads": HEADS, **_ENDS,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, str, dict[str, Any], Callable[[], Batch]]] = {
    "GPT-2": (
        "GPT2LMHeadModel", "GPT2Config",
        {"vocab_size": WORDS, "n_positions": 16, "n_embd": SIZE, "n_layer": 1, "n_head": HEADS, **_ENDS}, _text,
    ),
    "Llama": ("LlamaForCausalLM", "LlamaConfig", _STACK, _text),
    "BERT": ("BertForMaskedLM", "BertConfig", _STACK, _text),
    "T5": (
        "T5ForConditionalGeneration", "T5Config",
        {"vocab_size": WORDS, "d_model": SIZE, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": HEADS,
         "decoder_start_token_id": 0}, _text,
    ),
    "ViT": (
        "ViTForImageClassification", "ViTConfig",
        {"hidden_size": SIZE, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": HEADS,
         "image_size": 16, "patch_size": 4}, _images,
    ),
    "Mixtral": (
        "MixtralForCausalLM", "MixtralConfig", {**_STACK, "num_key_value_heads": HEADS, "num_local_experts": 4}, _text,
    ),
    "Mamba": (
        "MambaForCausalLM", "MambaConfig",
        {"vocab_size": WORDS, "hidden_size": SIZE, "num_hidden_layers": 1, "state_size": 4, **_ENDS}, _text,
    ),
    "Whisper": (
        "WhisperForConditionalGeneration", "WhisperConfig",
        {"vocab_size": WORDS, "d_model": SIZE, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
         "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 8,
         "max_source_positions": 16, "max_target_positions": 32, "decoder_start_token_id": 1, **_ENDS}, _speech,
    ),
    "ResNet": (
        "ResNetForImageClassification", "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, _images,
    ),
}  # fmt: skip
"""By name: model class, config class, what makes it tiny, and what it is trained on."""
Make = Callable[[Any], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "AdamW": lambda weights: torch.optim.AdamW(weights, lr=1e-3),
    "SGD with momentum": lambda weights: torch.optim.SGD(weights, lr=1e-2, momentum=0.9),
    "Adafactor": torch.optim.Adafactor,
    "Adam, amsgrad": lambda weights: torch.optim.Adam(weights, amsgrad=True),
    "RMSprop": lambda weights: torch.optim.RMSprop(weights, lr=1e-3, momentum=0.9, centered=True),
    "Adagrad": torch.optim.Adagrad,
    "Adadelta": torch.optim.Adadelta,
    "NAdam": torch.optim.NAdam,
    "Adamax": torch.optim.Adamax,
    "Rprop": torch.optim.Rprop,
}


def checkpoints(family: str, make: Make, steps: int) -> Iterator[dict[str, Any]]:
    """What a trainer saves before the first step, and after each."""
    import transformers

    torch.manual_seed(0)
    model_class, config_class, sizes, batch = FAMILIES[family]
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**sizes))
    optimizer = make(model.parameters())
    for step in range(steps + 1):
        if step:
            optimizer.zero_grad()
            model(**batch()).loss.backward()
            optimizer.step()
        yield {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}


def alarms(checkpoint: Mapping[str, Any], path: Path, **options: Any) -> list[str]:
    """What is said of the checkpoint, saved to ``path``, beside notes."""
    torch.save(checkpoint, path)
    report = nanhunt.check(path, **options)
    told = [
        f"{tensor.tensor}: {finding.code} {finding.message}"
        for tensor in report.tensors
        for finding in tensor.findings
        if finding.severity != "note"
    ]
    return told + [error.message for error in report.errors]


def main() -> int:
    """Prints the table; 1 where there was an alarm."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for family in FAMILIES:
            seen = 0
            for name, make in OPTIMIZERS.items():
                for checkpoint in checkpoints(family, make, 3):
                    seen += 1
                    for alarm in alarms(checkpoint, Path(folder) / "checkpoint.pt"):
                        failed += 1
                        print(f"{family}, {name}, step {checkpoint['step']}: {alarm}")
            print(f"{family}: {seen} checkpoints of {len(OPTIMIZERS)} optimizers")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
