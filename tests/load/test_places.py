"""Roles as data: what stands near what, and which places hold a complete set."""

from __future__ import annotations

import numpy as np
import pytest

from nanhunt.errors import NanhuntError
from nanhunt.load import Container, Role, Tensor, tensor_at
from nanhunt.load.roles import Candidates, complete_sets, is_called, place

QUERY = Role("query", "q|query", ("float32",), dimensions=2)
KEY = Role("key", "k|key", ("float32",))
MASK = Role("mask", "mask", ("bool",), required=False)


def tensor(name: str, dtype: str = "float32", shape: tuple[int, ...] = (2, 3)) -> Tensor:
    return Tensor("x.npz", name, dtype, shape, lambda: np.empty(0))


def sets(*tensors: Tensor) -> list[dict[str, str]]:
    container = Container("x.npz", {each.name: each for each in tensors}, "npz")
    return [
        {role: each.name for role, each in found.items()}
        for found in complete_sets(container, (QUERY, KEY, MASK))
    ]


def test_complete_sets() -> None:
    q, k = tensor("0.q"), tensor("0.k")
    assert sets(q, k) == [{"query": "0.q", "key": "0.k"}]
    assert sets(q, k, tensor("0.mask", "bool"))[0]["mask"] == "0.mask"
    assert sets(q, k, tensor("1.query"), tensor("1.key"))[1] == {"query": "1.query", "key": "1.key"}
    assert sets(q) == sets(k) == []
    assert sets(q, tensor("1.k")) == []
    assert sets(q, k, tensor("0.key")) == []  # two could be the key
    assert sets(tensor("0.q", shape=(3,)), k) == sets(tensor("0.q", "float64"), k) == []


@pytest.mark.parametrize(
    ("name", "candidates", "nearest"),
    [
        ("a.logits", ["y", "a.y"], ["a.y"]),
        ("a.b.logits", ["y", "a.y", "c.y"], ["a.y"]),
        ("a.b.logits", ["c.y", "y"], ["y"]),
        ("a.logits_2", ["a.y", "a.y_2", "a.y_1"], ["a.y_2"]),
        ("a.logits_2", ["a.y", "b.y_2"], ["a.y"]),
        ("a.2.logits", ["b.1.y", "b.2.y"], ["b.2.y"]),
        ("logits", ["b.y", "c.y"], ["b.y", "c.y"]),
        ("logits", [], []),
    ],
)
def test_what_stands_nearest(name: str, candidates: list[str], nearest: list[str]) -> None:
    found = Candidates(map(tensor, candidates)).nearest(tensor(name))
    assert [each.name for each in found] == nearest


def test_a_name_is_its_innermost_word() -> None:
    assert place("Steps.3/out.Logits_4.1").word == "logits"
    assert place("Steps.3/out.Logits_4.1").spot == (("Steps", "3", "out"), ("4", "1"))
    assert place("Steps.3/out.Logits_4.1").numbers == ("3", "4", "1")
    assert (place("0.1").word, place("").word) == ("", "")
    assert not is_called(".*", "0.1")


def test_one_name_means_one_tensor() -> None:
    held = Container("x.npz", {name: tensor(name) for name in ("a.k", "b.k", "*.k")}, "npz")
    assert tensor_at("*.k", KEY, None, held).name == "*.k"  # the name itself comes before the glob
    with pytest.raises(NanhuntError, match=r'"\?.k" \(--role key\) means 3 tensors: a.k float32'):
        tensor_at("?.k", KEY, None, held)
