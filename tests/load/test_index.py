from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nanhunt.load import find, open_path


@pytest.fixture
def checkpoint(tmp_path):
    """A model in two shards, and its index."""
    save_file({"a.weight": torch.ones(2, 2)}, tmp_path / "model-1.safetensors")
    torch.save({"b.weight": torch.zeros(3, dtype=torch.bfloat16)}, tmp_path / "model-2.bin")
    index = tmp_path / "model.index.json"
    weight_map = {"b.weight": "model-2.bin", "a.weight": "model-1.safetensors"}
    index.write_text(json.dumps({"metadata": {"total_size": 22}, "weight_map": weight_map}, indent=2))
    return index


def test_tensors_of_all_shards_under_the_index(checkpoint):
    container = open_path(str(checkpoint))
    assert container.format == "index"
    assert list(container.tensors) == ["b.weight", "a.weight"]
    assert {tensor.file for tensor in container.tensors.values()} == {str(checkpoint)}
    np.testing.assert_array_equal(container.tensors["a.weight"].data, np.ones((2, 2)))
    assert container.tensors["b.weight"].dtype == "bfloat16"


@pytest.mark.parametrize("shard", ["model-1.safetensors", "model-2.bin"])
def test_a_missing_shard_is_named_and_the_rest_is_read(checkpoint, shard):
    (checkpoint.parent / shard).unlink()
    container = open_path(str(checkpoint))
    assert list(container.tensors) == (["b.weight"] if "1" in shard else ["a.weight"])
    (error,) = container.missing
    assert f"{shard}, which does not exist" in error.message


def test_a_damaged_shard_is_named_and_the_rest_is_read(checkpoint):
    shard = checkpoint.parent / "model-1.safetensors"
    shard.write_bytes(shard.read_bytes()[:-4])
    container = open_path(str(checkpoint))
    assert list(container.tensors) == ["b.weight"]
    assert "model-1.safetensors is not a whole" in container.missing[0].message


def test_all_shards_missing(checkpoint, refusal):
    for shard in ("model-1.safetensors", "model-2.bin"):
        (checkpoint.parent / shard).unlink()
    assert "does not exist" in refusal(checkpoint).message


def test_a_tensor_that_is_not_in_its_shard(checkpoint):
    body = json.loads(checkpoint.read_text())
    body["weight_map"]["a.weights"] = "model-1.safetensors"
    checkpoint.write_text(json.dumps(body))
    container = open_path(str(checkpoint))
    assert list(container.tensors) == ["b.weight", "a.weight"]
    assert "does not hold a.weights" in container.missing[0].message
    assert 'Did you mean "a.weight"' in container.missing[0].hint


def test_a_missing_shard_leaves_the_others_judged_and_fails(checkpoint):
    import nanhunt

    (checkpoint.parent / "model-2.bin").unlink()
    report = nanhunt.check(str(checkpoint.parent))
    assert [tensor.tensor for tensor in report.tensors] == ["a.weight"]
    assert "model-2.bin" in report.errors[0].message
    assert report.exit_code == 2


@pytest.mark.parametrize("shard", ["../model-1.safetensors", "/etc/passwd", "", ".", ".."])
def test_shards_outside_the_folder_are_not_opened(checkpoint, refusal, shard):
    checkpoint.write_text(json.dumps({"weight_map": {"a": shard}}))
    assert "not in its folder" in refusal(checkpoint).message or "is a folder" in refusal(checkpoint).message


@pytest.mark.parametrize("name", ["n" * 5000, "a\0b"])
def test_a_shard_that_no_file_system_can_hold(checkpoint, name):
    body = json.loads(checkpoint.read_text())
    body["weight_map"]["a.weight"] = name
    checkpoint.write_text(json.dumps(body))
    container = open_path(str(checkpoint))
    assert list(container.tensors) == ["b.weight"]
    assert name[:1] in container.missing[0].message
    assert len(container.missing[0].message) < 400


def test_an_index_of_itself(checkpoint, refusal):
    checkpoint.write_text(json.dumps({"weight_map": {"a": checkpoint.name}}))
    assert "itself an index" in refusal(checkpoint).message


@pytest.mark.parametrize("text", ['{"weight_map": ', '{"weight_map": [1]}', '{"weight_map": {"a": 1}}'])
def test_broken_indexes(checkpoint, refusal, text):
    checkpoint.write_text(text)
    assert "JSON" in refusal(checkpoint).message


def test_a_search_lists_the_index_and_not_its_shards(checkpoint):
    np.save(checkpoint.parent / "logits.npy", np.ones((2, 2)))
    names = [path.rpartition("/")[2] for path in find([str(checkpoint.parent)]).files]
    assert names == ["logits.npy", "model.index.json"]


def test_a_search_lists_the_shards_of_a_broken_index(checkpoint):
    checkpoint.write_text('{"weight_map": ')
    names = [path.rpartition("/")[2] for path in find([str(checkpoint.parent)]).files]
    assert names == ["model-1.safetensors", "model-2.bin", "model.index.json"]
