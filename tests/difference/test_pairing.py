"""Names of two sides brought together."""

from __future__ import annotations

import numpy as np
import pytest

from nanhunt.difference.pairing import Item, pair, place_of, renaming
from nanhunt.errors import NanhuntError
from nanhunt.load.memory import tensor_of


def items(*names: str, place: str = "") -> list[Item]:
    return [Item(place, name, tensor_of(np.zeros(2), name)) for name in names]


def names(a: list[Item], b: list[Item]) -> dict[str, str]:
    return {one.name: other.name for one, other in pair(a, b).pairs}


LAYERS = [f"layers.{number}.{word}" for number in range(3) for word in ("w", "b")]


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: f"state_dict.model.{name}",
        lambda name: name.replace("layers.", "layers._checkpoint_wrapped_module."),
        lambda name: f"transformer.h.{name}",
    ],
)
def test_what_frameworks_put_around_names_is_seen_through(wrapped) -> None:
    other = [wrapped(name) for name in LAYERS]
    assert names(items(*LAYERS), items(*other)) == dict(zip(LAYERS, other, strict=True))
    assert names(items(*other), items(*LAYERS)) == dict(zip(other, LAYERS, strict=True))


def test_a_prefix_that_not_all_names_have() -> None:
    found = names(
        items("model.layers.0.w", "model.norm", "lm_head.w"), items("layers.0.w", "norm", "lm_head.w")
    )
    assert found == {"model.layers.0.w": "layers.0.w", "model.norm": "norm", "lm_head.w": "lm_head.w"}


def test_nothing_is_guessed() -> None:
    assert names(items("a.w", "b.w"), items("c.w", "d.w")) == {}
    assert names(items("encoder.w", "decoder.w", "x"), items("w", "x")) == {"x": "x"}


def test_two_lone_tensors_are_partners_whatever_they_are_called() -> None:
    assert names(items("x"), items("y")) == {"x": "y"}


def test_the_same_name_in_several_files_is_told_apart_by_the_file() -> None:
    a = [*items("logits", place="step-1"), *items("logits", place="step-2"), *items("x", place="step-1")]
    b = [*items("logits", place="step-2"), *items("logits", place="step-1"), *items("x", place="step-3")]
    assert [(one.place, other.place) for one, other in pair(a, b).pairs] == [
        ("step-1", "step-1"), ("step-2", "step-2"), ("step-1", "step-3"),
    ]  # fmt: skip


def test_files_of_one_tree_are_the_names_of_another() -> None:
    a = [*items("w", place="layers/0"), *items("w", place="layers/1")]
    assert names(a, items("layers.0.w", "layers.1.w")) == {"w": "layers.1.w"}
    assert len(pair(a, items("layers.0.w", "layers.1.w")).pairs) == 2


def test_renaming_is_a_regular_expression() -> None:
    renamed = renaming(
        [r"^tok_embeddings=embed_tokens", r"layers\.(\d+)\.attention\.w([qkv])=layers.\1.self_attn.\2_proj"]
    )
    assert renamed("layers.12.attention.wq.weight") == "layers.12.self_attn.q_proj.weight"
    assert renamed("tok_embeddings.weight") == "embed_tokens.weight"
    for wrong in ("no separator", "(=x", r"a=\9"):
        with pytest.raises(NanhuntError, match="--rename"):
            renaming([wrong])


def test_the_place_is_the_path_below_what_was_named() -> None:
    assert place_of("runs/x/step-1/a.pt", "runs/x") == "step-1/a"
    assert place_of("runs/x.pt", "runs/x.pt") == ""
