"""nanhunt.diff on dumps that differ as real ones do, beside what others say of the same pair."""

from __future__ import annotations

import inspect
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import nanhunt
from nanhunt.difference.comparison import Comparison
from nanhunt.difference.options import DiffOptions
from nanhunt.options import declared
from nanhunt.render.difference import render_difference
from nanhunt.results.difference import Difference

MILLION = 1_000_000


def one(found: Difference):
    (tensor,) = found.tensors
    return tensor


def codes(found: Difference) -> list[str]:
    return [finding.code for finding in found.findings]


def test_infinity_against_minus_infinity_is_a_difference() -> None:
    """A comparison that masks what is not finite on both sides takes them for equal."""
    a, b = np.array([1.0, np.inf, 2.0]), np.array([1.0, -np.inf, 2.0])
    both = ~np.isfinite(a) & ~np.isfinite(b)
    assert np.abs(np.where(both, 0, a) - np.where(both, 0, b)).max() == 0
    found = nanhunt.diff(a, b)
    assert codes(found) == ["NHD103"]
    assert one(found).changes[0].at == ((1,),)
    assert not found.ok
    assert nanhunt.diff(a, a).ok


def test_one_flipped_element_in_a_million() -> None:
    """Means and cosines of the whole do not see it."""
    a = torch.randn(1000, 1000, generator=torch.Generator().manual_seed(0))
    b = a.clone()
    b[123, 456] *= -1
    assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.9999
    assert float((a - b).abs().mean()) < 1e-5
    found = nanhunt.diff(a, b)
    assert codes(found) == ["NHD302"]
    assert one(found).verdict == "1 of 1,000,000 values differs"
    assert one(found).first_differing == (123, 456)


def test_one_nan_beside_a_large_difference() -> None:
    """assert_close prints NaN for the greatest difference, and so names neither."""
    a = torch.zeros(100)
    b = a.clone()
    b[3], b[70] = torch.nan, 1000.0
    with pytest.raises(AssertionError, match="Greatest absolute difference: nan"):
        torch.testing.assert_close(b, a, equal_nan=True)
    found = nanhunt.diff(a, b)
    assert set(codes(found)) == {"NHD101", "NHD301"}
    assert one(found).changes[0].at == ((3,),)
    assert (one(found).absolute.value, one(found).absolute.at) == (1000.0, (70,))


def test_a_cast_is_recognised_and_a_wrong_value_in_it_is_found() -> None:
    a = torch.randn(4, 500, generator=torch.Generator().manual_seed(1))
    b = a.bfloat16()
    found = nanhunt.diff({"w": a}, {"w": b})
    assert (one(found).verdict, found.ok) == ("B is A rounded to bfloat16", True)
    b[2, 5] += 1
    found = nanhunt.diff({"w": a}, {"w": b})
    assert codes(found)[:2] == ["NHD204", "NHD302"]
    assert one(found).first_beyond == (2, 5)


def test_another_order_of_additions_is_rounding() -> None:
    generator = torch.Generator().manual_seed(2)
    x, w = torch.randn(64, 512, generator=generator), torch.randn(512, 64, generator=generator)
    a = x @ w
    b = x[:, :256] @ w[:256] + x[:, 256:] @ w[256:]
    assert not torch.equal(a, b)
    found = nanhunt.diff({"h": a}, {"h": b})
    assert (one(found).grade, found.ok) == ("rounding", True)
    assert not nanhunt.diff({"h": a}, {"h": b}, max_ulp=0).ok
    assert nanhunt.diff({"h": a}, {"h": a * 1.001}, rtol=1e-2).ok
    assert not nanhunt.diff({"h": a}, {"h": a * 1.001}).ok


def test_float16_in_another_order_is_rounding_too() -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(256, 256, generator=generator).half()
    a = torch.softmax(x @ x, -1)
    b = torch.softmax((x.float() @ x.float()).half(), -1)
    assert nanhunt.diff({"p": a}, {"p": b}).ok


def llama(prefix: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    made = {f"{prefix}tok_embeddings.weight": torch.randn(40, 8, generator=generator)}
    for layer in range(12):
        for word in ("q", "k", "v", "o"):
            made[f"{prefix}layers.{layer}.attention.w{word}.weight"] = torch.randn(8, 8, generator=generator)
        made[f"{prefix}layers.{layer}.ffn_norm.weight"] = torch.ones(8)
    return made | {f"{prefix}output.weight": torch.randn(40, 8, generator=generator)}


RENAME = (
    r"tok_embeddings=embed_tokens",
    r"attention\.w([qkvo])=self_attn.\1_proj",
    r"ffn_norm=post_attention_layernorm",
    r"\boutput\.=lm_head.",
)


def huggingface(made: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As a conversion script writes it: other names, "model." before all but the head."""
    from nanhunt.difference.pairing import renaming

    names = {name: renaming(RENAME)(name) for name in made}
    return {
        name if name.startswith("lm_head") else f"model.{name}": made[old].clone()
        for old, name in names.items()
    }


def test_a_converted_checkpoint_is_compared_across_names_files_and_formats(tmp_path: Path) -> None:
    original, converted = llama(""), huggingface(llama(""))
    converted["model.layers.10.self_attn.k_proj.weight"][1, 2] += 1
    converted["model.layers.3.self_attn.o_proj.weight"] += 0.5
    torch.save({"model": original}, tmp_path / "consolidated.pth")
    half = len(converted) // 2
    (tmp_path / "hf").mkdir()
    for number, part in enumerate((list(converted.items())[:half], list(converted.items())[half:])):
        save_file(dict(part), tmp_path / "hf" / f"model-0000{number + 1}-of-00002.safetensors")
    found = nanhunt.diff(tmp_path / "consolidated.pth", tmp_path / "hf", rename=RENAME)
    assert (found.only_a, found.only_b, found.errors) == ((), (), ())
    assert found.first is not None
    assert (found.first.a, found.first.coordinates["layer"]) == ("model.layers.3.attention.wo.weight", 3)
    assert [tensor.b for tensor in found.tensors if tensor.grade != "identical"] == [
        "model.layers.3.self_attn.o_proj.weight", "model.layers.10.self_attn.k_proj.weight",
    ]  # fmt: skip
    missing = nanhunt.diff(tmp_path / "consolidated.pth", tmp_path / "hf", rename=RENAME[:2])
    assert len(missing.only_a) == len(missing.only_b) == 13
    assert {"NHD202", "NHD203"} <= set(codes(missing))


def test_the_first_is_first_as_people_count(tmp_path: Path) -> None:
    for step in (9, 10):
        values = {f"layers.{layer}.w": torch.full((3,), float(layer)) for layer in range(12)}
        for side in ("a", "b"):
            (tmp_path / side).mkdir(exist_ok=True)
            changed = {
                name: value
                + (1.0 if side == "b" and name.split(".")[1] in ("2", "11") and step == 10 else 0.0)
                for name, value in values.items()
            }
            save_file(changed, tmp_path / side / f"step-{step}.safetensors")
    found = nanhunt.diff(tmp_path / "a", tmp_path / "b")
    assert found.first is not None
    assert (found.first.a, found.first.coordinates["step"]) == ("layers.2.w", 10)
    assert found.order == "step, file, layer, name"


def test_shapes_dtypes_and_wholes() -> None:
    found = nanhunt.diff({"w": np.zeros((2, 3)), "x": np.ones(2)}, {"w": np.zeros((3, 2)), "y": np.ones(5)})
    assert codes(found) == ["NHD201", "NHD202", "NHD203"]
    assert "transposed" in found.findings[0].message
    assert nanhunt.diff({"n": np.array([1, 2])}, {"n": np.array([1, 3])}).findings[0].code == "NHD301"
    assert nanhunt.diff(np.zeros((0, 3)), np.zeros((0, 3))).ok
    assert nanhunt.diff(np.array([1 + 2j]), np.array([1 + 3j])).findings[0].code == "NHD301"


def test_logits_are_compared_as_a_softmax_sees_them() -> None:
    generator = torch.Generator().manual_seed(4)
    logits, labels = torch.randn(30, 10, generator=generator), torch.arange(30) % 10
    other = logits + torch.randn(30, 10, generator=generator) * 0.5
    found = nanhunt.diff({"logits": logits, "labels": labels}, {"logits": other, "labels": labels})
    rows = next(tensor.rows for tensor in found.tensors if tensor.a == "logits")
    assert rows is not None
    assert rows.loss_a == pytest.approx(float(torch.nn.functional.cross_entropy(logits.double(), labels)))
    assert "NHD401" in codes(found)
    assert rows.top1_changed == int((logits.argmax(-1) != other.argmax(-1)).sum())


def test_any_executor_any_medium_the_same_result(tmp_path: Path) -> None:
    values = {"w": torch.randn(300, 300, generator=torch.Generator().manual_seed(5))}
    other = {"w": values["w"] + 1e-3}
    save_file(values, tmp_path / "a.safetensors")
    torch.save(other, tmp_path / "b.pt")
    with ThreadPoolExecutor(2) as pool:
        pooled = nanhunt.diff(tmp_path / "a.safetensors", tmp_path / "b.pt", executor=pool)
    assert pooled == nanhunt.diff(tmp_path / "a.safetensors", tmp_path / "b.pt")
    memory = nanhunt.diff(values, other)
    assert one(memory).verdict == one(pooled).verdict
    assert one(memory).cosine == one(pooled).cosine


def test_it_survives_json() -> None:
    found = nanhunt.diff({"w": np.array([1.0, np.nan])}, {"w": np.array([np.inf, 2.0]), "v": np.zeros(2)})
    text = found.to_json(verbose=True)
    json.loads(text, parse_constant=pytest.fail)
    assert Difference.from_json(text).to_json(verbose=True) == text
    for wrong in ("[]", "{}", '{"diff_format_version": 99}', '{"diff_format_version": 1, "tensors": [1]}'):
        with pytest.raises(ValueError, match="diff"):
            Difference.from_json(wrong)


def test_a_damaged_part_is_told_and_the_rest_compared(tmp_path: Path) -> None:
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        np.save(tmp_path / side / "one.npy", np.zeros(3))
        np.save(tmp_path / side / "two.npy", np.zeros(3))
    (tmp_path / "b" / "two.npy").write_bytes((tmp_path / "b" / "two.npy").read_bytes()[:-8])
    found = nanhunt.diff(tmp_path / "a", tmp_path / "b")
    assert found.exit_code == 2
    assert [error.file for error in found.errors] == [str(tmp_path / "b" / "two.npy")]
    assert [tensor.grade for tensor in found.tensors] == ["identical"]


def test_wrong_keywords_are_said() -> None:
    with pytest.raises(nanhunt.NanhuntError, match="rtoll") as raised:
        nanhunt.diff([1.0], [1.0], rtoll=1)
    assert "rtol" in raised.value.hint
    with pytest.raises(nanhunt.NanhuntError, match="atol = -1"):
        nanhunt.diff([1.0], [1.0], atol=-1)


def test_the_size_of_both_sides_is_known_before_anything_is_compared(tmp_path: Path) -> None:
    for side in "ab":
        (tmp_path / side).mkdir()
        for step in range(2):
            np.save(tmp_path / side / f"{step}.npy", np.ones(5))
    told: list[int | None] = []
    Comparison(DiffOptions(), expect=told.append).paths(str(tmp_path / "a"), str(tmp_path / "b"))
    assert told == [4 * (tmp_path / "a" / "0.npy").stat().st_size]


@pytest.mark.parametrize("kept", [True, False])
def test_ctrl_c_leaves_what_was_known(tmp_path: Path, kept: bool) -> None:
    save_file({name: torch.ones(3) for name in "abc"}, tmp_path / "a.safetensors")
    told = iter([None, KeyboardInterrupt()])

    def advance(_: int) -> None:
        if interrupt := next(told):
            raise interrupt

    comparison = Comparison(DiffOptions(), advance=advance, ends_with_what_is_known=kept)
    both = [str(tmp_path / "a.safetensors")] * 2
    if not kept:
        with pytest.raises(KeyboardInterrupt):
            comparison.paths(*both)
        return
    found = comparison.paths(*both)
    assert (found.exit_code, [each.a for each in found.tensors]) == (130, ["a"])
    assert [error.message for error in found.errors] == ["interrupted after 1 of 3 pairs of tensors."]
    assert render_difference(found, "text", width=80, color=False).startswith("SAME AS FAR AS READ ")


def test_what_is_told_of_rounding_is_at_the_value_that_has_it() -> None:
    """The largest step counted in ULP is seldom the largest difference; --atol counts no ULP."""
    a = np.array([1000.0, 1.0, 0.0], np.float32)
    b = np.array([1000.0 + 2 * 2.0**-14, 1.0 + 3 * 2.0**-23, 0.0], np.float32)
    (told,) = nanhunt.diff(a, b).findings
    assert told.message == "2 of 3 values differ, by at most 3 ULP of float32, the most at [1]"
    (told,) = nanhunt.diff(a, np.array([1000.0, 1.5, 0.0], np.float32), atol=1.0).findings
    assert told.message == "1 of 3 values differs, by at most 0.5, the most at [1]"


def test_a_difference_that_is_ignored_is_not_called_the_same() -> None:
    found = nanhunt.diff(np.zeros(4), np.zeros(5), ignore=["NHD2"])
    assert found.ok
    assert render_difference(found, "text", width=80, color=False).startswith("DIFFERENT ")


def test_an_editor_completes_every_option_and_help_says_what_it_means() -> None:
    parameters = inspect.signature(nanhunt.diff).parameters
    options = declared(DiffOptions)
    assert [*parameters] == ["a", "b", *options, "executor"]
    assert all(parameters[name].default == each.default for name, each in options.items())
    assert all(f"{name}: " in str(nanhunt.diff.__doc__) for name in options)
    with pytest.raises(nanhunt.NanhuntError, match="The keyword rtl is not known"):
        nanhunt.diff(np.zeros(3), np.zeros(3), rtl=0.1)
    with pytest.raises(nanhunt.NanhuntError, match="rtol = 'x' is not a number"):
        nanhunt.diff(np.zeros(3), np.zeros(3), rtol="x")


def _debugged(folder: Path, bad_from: int) -> None:
    """As transformers' debugger writes: a file a call, all tensors called "data", the order of calls in an index."""
    folder.mkdir()
    modules = ("M.embed", "M.z_first", "M.a_second", "M")
    for number, module in enumerate(modules):
        data = torch.full((4, 3), torch.nan if number >= bad_from else 1.0)
        save_file({"data": data}, folder / f"{module}_outputs.safetensors")
    children = [{"module_path": module, "children": []} for module in modules[:-1]]
    tree = {"module_path": "M", "children": children}
    (folder / "M_debug_tree_SUMMARY.json").write_text(json.dumps(tree))


def test_calls_that_an_index_numbers_are_in_that_order_and_told_by_their_files(tmp_path: Path) -> None:
    _debugged(tmp_path / "a", 9)
    _debugged(tmp_path / "b", 1)
    found = nanhunt.diff(tmp_path / "a", tmp_path / "b")
    assert found.first is not None
    assert found.first.file_a.endswith("M.z_first_outputs.safetensors")
    told = " ".join(render_difference(found, "text", width=1000, color=False).split())
    assert (
        "M.z_first_outputs.safetensors:data (call 4): different: 12 of 12 values; in the order of A: call"
        in told
    )


def test_tensors_of_one_name_at_several_steps_are_told_apart(tmp_path: Path) -> None:
    for side in ("a", "b"):
        for step in (1, 2):
            folder = tmp_path / side / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            save_file({"layers.0.w": torch.full((3,), float(side == "b"))}, folder / "model.safetensors")
    text = str(nanhunt.diff(tmp_path / "a", tmp_path / "b"))
    assert "layers.0.w (step 1, layer 0)  (3,) float32" in text
    assert "layers.0.w (step 2, layer 0)  (3,) float32" in text
