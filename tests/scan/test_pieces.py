"""A tensor in pieces is judged as the whole one is, and is never put together."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest

from nanhunt.load.container import Container
from nanhunt.load.shards import Shard
from nanhunt.load.tensor import Tensor
from nanhunt.operations import bounds, registry
from nanhunt.operations.cross_entropy import units
from nanhunt.scan.inputs import Scan
from nanhunt.scan.options import Options


def whole(name: str, array: np.ndarray) -> Tensor:
    return Tensor("dump", name, str(array.dtype), array.shape, lambda: array)


def cut(tensor: Tensor) -> Tensor:
    """The same in four pieces; nobody may ask for all of it."""

    def read() -> np.ndarray:
        raise AssertionError(f"{tensor.name} is put together")

    halves = [((0, size // 3), (size // 3, size)) for size in tensor.shape[:2]]
    shards = [
        Shard(
            tuple(low for low, _ in box) + (0,) * (len(tensor.shape) - len(box)),
            tensor.data[tuple(slice(low, high) for low, high in box)],
        )
        for box in itertools.product(*halves)
    ]
    return replace(tensor, read=read, pieces=lambda: shards)


def said(tensors: list[Tensor], compares: bool = False, **options: object) -> str:
    scan = Scan(Options(**options), compares)  # type: ignore[arg-type]
    container = Container("dump", {tensor.name: tensor for tensor in tensors}, "memory")
    return scan.container(container, registry.find(scan.options.op)).to_json(verbose=True)


RNG = np.random.default_rng(0)
TROUBLED = RNG.standard_normal((600, 7)).astype(np.float32)
TROUBLED[::50] *= 100
TROUBLED[3, 2] = np.nan
IMAGES = np.ascontiguousarray(np.moveaxis(TROUBLED.reshape(6, 10, 10, 7), -1, 1))
LABELS = whole("labels", RNG.integers(0, 7, 600))
MASKS = whole("labels", LABELS.data.reshape(6, 10, 10))


@pytest.mark.parametrize("compares", [False, True])
def test_pieces_are_judged_as_the_whole_and_never_joined(
    compares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "BLOCK_VALUES", 1 << 10)
    monkeypatch.setattr(units, "SCREEN_BYTES", 1 << 12)
    monkeypatch.setattr(bounds, "BLOCK_VALUES", 1 << 10)
    rows, images = whole("logits", TROUBLED), whole("logits", IMAGES)
    soft = whole("targets", RNG.dirichlet(np.ones(7), 600).astype(np.float32))
    yes = whole("targets", (TROUBLED > 0).astype(np.float32))
    assert said([cut(rows), LABELS], compares) == said([rows, LABELS], compares)
    assert said([cut(rows), cut(soft)], compares) == said([rows, soft], compares)
    assert said([cut(images), MASKS], compares) == said([images, MASKS], compares)
    bce = said([cut(rows), cut(yes)], compares, op="bce")
    assert bce == said([rows, yes], compares, op="bce")
    assert '"code": "NH705"' in bce
    heads = [
        whole(name, RNG.standard_normal((6, 5, 8)).astype(np.float32)) for name in ("query", "key", "value")
    ]
    heads[0].data[4, 2, 3] = np.nan
    attention = said([cut(each) for each in heads], compares, op="attention")
    assert attention == said(heads, compares, op="attention")
    assert '"code": "NH601"' in attention


def test_weights_in_pieces_are_never_joined() -> None:
    weight = whole("weight", TROUBLED)
    found = said([cut(weight)], dtype=("float16",), op="values")
    assert found == said([weight], dtype=("float16",), op="values")
    assert '"code": "NH501"' in found


def test_rows_in_pieces_can_be_pickled() -> None:
    rows = cut(whole("logits", TROUBLED)).rows(-1)
    again = pickle.loads(pickle.dumps(rows))
    np.testing.assert_array_equal(again.range(5, 50), TROUBLED[5:50])
