"""What --rename is proposed for names that do not pair: tried on the spellings of four programs for one model."""

from __future__ import annotations

import html
import re
import shlex
from itertools import permutations

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

import nanhunt
from nanhunt.cli.app import app
from nanhunt.render.difference import DIFFERENCE_FORMATS, render_difference
from nanhunt.results.difference import Difference

LAYERS, WIDTH, INNER = 3, 8, 24
META = (
    (r"model\.embed_tokens", "tok_embeddings"),
    (r"self_attn\.([qkvo])_proj", r"attention.w\1"),
    (r"mlp\.gate_proj", "feed_forward.w1"),
    (r"mlp\.up_proj", "feed_forward.w3"),
    (r"mlp\.down_proj", "feed_forward.w2"),
    ("input_layernorm", "attention_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("lm_head", "output"),
    (r"^model\.", ""),
)
GGUF = (
    (r"model\.embed_tokens", "token_embd"),
    (r"model\.layers", "blk"),
    (r"self_attn\.([qkv])_proj", r"attn_\1"),
    (r"self_attn\.o_proj", "attn_output"),
    (r"mlp\.(gate|up|down)_proj", r"ffn_\1"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("lm_head", "output"),
    (r"^model\.norm", "output_norm"),
)
COMPILED = ((r"^model\.layers\.", "_orig_mod.decoder.blocks_"),)


def transformers_names() -> dict[str, np.ndarray]:
    """A Llama of three layers, norms near 1."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (40, WIDTH),
        "model.norm.weight": (WIDTH,),
    }
    for layer in range(LAYERS):
        inside = f"model.layers.{layer}"
        shapes |= {f"{inside}.self_attn.{word}_proj.weight": (WIDTH, WIDTH) for word in "qkvo"}
        shapes |= {f"{inside}.mlp.{word}_proj.weight": (INNER, WIDTH) for word in ("gate", "up")}
        shapes[f"{inside}.mlp.down_proj.weight"] = (WIDTH, INNER)
        shapes |= {f"{inside}.{word}_layernorm.weight": (WIDTH,) for word in ("input", "post_attention")}
    shapes["lm_head.weight"] = (40, WIDTH)
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def spelled(rules: tuple[tuple[str, str], ...]) -> dict[str, np.ndarray]:
    """The same tensors as another program calls them."""
    found = {}
    for name, value in transformers_names().items():
        for old, new in rules:
            name = re.sub(old, new, name)  # noqa: PLW2901
        found[name] = value
    return found


SPELLINGS = {"transformers": (), "meta": META, "gguf": GGUF, "compiled": COMPILED}


@pytest.mark.parametrize(("a", "b"), list(permutations(SPELLINGS, 2)))
def test_the_rules_proposed_pair_everything(a: str, b: str) -> None:
    one, other = spelled(SPELLINGS[a]), spelled(SPELLINGS[b])
    before = nanhunt.diff(one, other)
    after = nanhunt.diff(one, other, rename=before.renames)
    assert len(after.tensors) - len(before.tensors) == before.renamed > 0
    assert (after.only_a, after.only_b, after.renames) == ((), (), ())
    assert {tensor.grade for tensor in after.tensors} == {"identical"}  # each with its own, not with its like


def test_words_that_differ_by_a_letter_are_one_rule() -> None:
    rules = nanhunt.diff(spelled(META), spelled(())).renames
    assert r"\battention\.w([koqv])\b=self_attn.\1_proj" in rules
    rules = nanhunt.diff(spelled(GGUF), spelled(())).renames
    assert rules[0] == r"^blk\b=model.layers"


def test_rules_given_are_kept_and_more_are_proposed_after_them() -> None:
    given = [r"feed_forward\.w1=mlp.gate_proj"]
    found = nanhunt.diff(spelled(META), spelled(()), rename=given)
    assert not any("w1" in rule for rule in found.renames)
    assert nanhunt.diff(spelled(META), spelled(()), rename=[*given, *found.renames]).only_a == ()


def test_another_model_and_equals_as_far_as_anyone_can_tell_propose_nothing() -> None:
    one = {"a.w": np.ones((2, 3)), "b.w": np.ones((2, 3))}
    assert nanhunt.diff(one, {"c.w": np.ones((2, 3)), "d.w": np.ones((2, 3))}).renames == ()
    assert nanhunt.diff(one, {"c.w": np.ones((3, 2))}).renames == ()


def test_two_runs_of_one_model_under_two_prefixes() -> None:
    """No value is the same, norms are all near 1, and both programs put a prefix of their own before all names."""
    rng = np.random.default_rng(0)

    def saved(prefix: str) -> dict[str, np.ndarray]:
        names = [
            f"layers.{n}.{word}.weight" for n in range(3) for word in ("norm1", "norm2", "linear1", "linear2")
        ]
        values = {
            name: rng.normal(1 if "norm" in name else 0, 0.01, 8) for name in (*names, "embed.w", "head.w")
        }
        return {f"{prefix}.{name}": value for name, value in values.items()}

    one, other = saved("state_dict.net"), saved("model")
    found = nanhunt.diff(one, other)
    assert found.renames == (r"^state_dict\.net\b=model",)
    again = nanhunt.diff(one, other, rename=found.renames)
    assert {(each.a.split(".", 2)[2], each.b.split(".", 1)[1]) for each in again.tensors} == {
        (name.split(".", 2)[2], name.split(".", 2)[2]) for name in one
    }


def test_names_with_what_rules_are_written_in() -> None:
    rng = np.random.default_rng(0)
    values = {word: rng.standard_normal(5) for word in "xyz"}
    found = nanhunt.diff(
        {"a=1(": values["x"], "h.#.k": values["y"], "same": values["z"]},
        {"b\\1": values["x"], "g.#.l": values["y"], "same": values["z"]},
    )
    again = nanhunt.diff({"a=1(": values["x"], "same": values["z"]}, {"b\\1": values["x"], "same": values["z"]},
                         rename=found.renames)  # fmt: skip
    assert again.only_a == ()


@pytest.mark.parametrize("format", DIFFERENCE_FORMATS)
def test_what_is_proposed_is_shown_as_it_is_to_be_typed(format: str) -> None:
    found = nanhunt.diff(spelled(META), spelled(GGUF))
    shown = render_difference(found, format, width=60)
    if format in ("json", "jsonl"):
        assert Difference.from_json(shown).renames == found.renames
    elif format in ("text", "markdown", "html"):
        assert html.unescape(shown).count("--rename '") >= len(found.renames)
        assert r"--rename '\battention\.w([kqv])\b=attn_\1'" in html.unescape(shown)


def test_where_nothing_pairs_at_all_it_is_shown_too() -> None:
    one, other = {"a.w": np.arange(4.0)}, {"b.w": np.arange(4.0), "c": np.ones(3)}
    assert r"--rename '^a\b=b'" in str(nanhunt.diff(one, other))


def test_pasted_into_a_shell_it_works(tmp_path) -> None:
    a, b = str(tmp_path / "meta.safetensors"), str(tmp_path / "hf.safetensors")
    save_file(spelled(META), a)
    save_file(spelled(()), b)
    first = CliRunner().invoke(app, ["diff", a, b, "--isolated"])
    typed = first.stdout[first.stdout.index("--rename") :].partition("\n\n")[0]
    second = CliRunner().invoke(app, ["diff", a, b, "--isolated", *shlex.split(typed.replace("\\\n", ""))])
    assert (first.exit_code, second.exit_code) == (1, 0)
    assert "bit for bit equal" in second.stdout
