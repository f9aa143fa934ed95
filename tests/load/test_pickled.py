"""The unpickler that runs nothing: plain data as Python's own gives it, everything else as names and arguments."""

from __future__ import annotations

import io
import pickle
import random
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanhunt.errors import NanhuntError
from nanhunt.load import RefusedTensor, open_path
from nanhunt.load.readers.numpy_pickle import numpy_array
from nanhunt.load.readers.objects import contents
from nanhunt.load.readers.pickled import BadPickle, External, Global, Instance, as_bytes, load

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=300),
)  # fmt: skip
KEYS = st.one_of(st.integers(), st.text(max_size=5), st.tuples(st.integers(), st.text(max_size=5)))
PLAIN = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner), st.dictionaries(KEYS, inner), st.tuples(inner), st.tuples(inner, inner, inner, inner)
    ),
    max_leaves=20,
)


@settings(deadline=None, max_examples=100)
@given(content=PLAIN, protocol=st.integers(0, 5))
def test_plain_data_is_what_python_gives(content: object, protocol: int) -> None:
    pickled = pickle.dumps(content, protocol)
    loaded = load(b"before" + pickled + b"behind", 6)
    assert loaded.object == content
    assert loaded.end == 6 + len(pickled)


@pytest.mark.parametrize("protocol", range(6))
def test_bytes_sets_and_shared_objects(protocol: int) -> None:
    shared = [1.5]
    content = {"bytes": bytes(range(256)), "empty": b"", "shared": [shared, shared]}
    found = load(pickle.dumps(content, protocol)).object
    assert as_bytes(found["bytes"]) == content["bytes"]
    assert as_bytes(found["empty"]) == b""
    assert found["shared"][0] is found["shared"][1]
    if protocol >= 4:
        assert load(pickle.dumps({1, 2}, protocol)).object == {1, 2}
        assert load(pickle.dumps(frozenset((1, 2)), protocol)).object == {1, 2}


@pytest.mark.parametrize("protocol", range(6))
def test_calls_are_kept_as_they_are_written(protocol: int) -> None:
    found = load(pickle.dumps(random.Random(1).gauss, protocol)).object  # a bound method
    assert isinstance(found, Instance)
    assert found.made_by == Global("builtins", "getattr")
    assert isinstance(found.args[0], Instance)
    assert found.args[1] == "gauss"


def test_external_objects_in_binary_and_in_text() -> None:
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            return "name" if isinstance(obj, complex) else None

    for protocol in (0, 2):
        stream = io.BytesIO()
        Pickler(stream, protocol).dump([1j])
        loaded = load(stream.getvalue())
        assert isinstance(loaded.object[0], External)
        assert [each.identity for each in loaded.externals] == ["name"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x80\x02", b"\x80\x02N", b".", b"\x80\x02X\xff\xff\xff\x7fab.", b"\x80\x02h\x01.", b"I12",
        b"\x80\x02K\x01(R.", b"\x80\x02K\x01)R.", b"\x80\x02]K\x01K\x02s.", b"NNa.", b"(", b"t.", b"\xff.",
        b"\x80\x02cos\nsystem\nK\x01R.", b"I" + b"1" * 5000 + b"\n.", b"}](s.", b"}]Ns.", b"\x82\x01.", b"\x97.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", b"(K\x01i\n", b"\x8b\xff\xff\xff\xff.", b"\x86.",
    ],
)  # fmt: skip
def test_what_is_no_whole_pickle(content: bytes) -> None:
    with pytest.raises(BadPickle):
        load(content)


def test_keys_that_nest_without_end_are_not_hashed() -> None:
    deep = b"N" + b"\x85" * 300_000  # hashing it would end the process
    for pickled in (
        b"}" + deep + b"Ns.",
        b"(" + deep + b"Nd.",
        b"\x8f(" + deep + b"\x90.",
        b"(" + deep + b"\x91.",
    ):
        with pytest.raises(BadPickle, match="nest absurdly"):
            load(b"\x80\x04" + pickled)


def test_a_large_memo_index_costs_no_memory() -> None:
    assert load(b"\x80\x02Nr\xff\xff\xff\xff.").object is None


def test_whole_numbers_too_large_for_a_float_are_finite() -> None:
    assert contents([1.0, 10**400]).numbers == [(("0",), [1.0])]


def test_an_array_whose_bytes_do_not_fit() -> None:
    found = load(pickle.dumps(np.ones(3))).object
    found.state = (*found.state[:-1], found.state[-1][:-8])
    with pytest.raises(RefusedTensor, match="do not fit"):
        numpy_array(found, "x.pt:a")


def test_a_storage_of_another_byte_order_and_a_view_of_one(tmp_path) -> None:
    """As torch wrote storages before 1.6: (count, values) behind the pickles; views are a part of one."""

    def written(view: tuple[str, int, int] | None, little: bool) -> str:
        storage, marker = ("storage", torch.FloatStorage, "0", "cpu", 10, view), object()

        class Pickler(pickle.Pickler):
            def persistent_id(self, obj: object) -> object:
                return storage if obj is marker else None

        class Rebuilt:
            def __reduce__(self) -> object:
                return torch._utils._rebuild_tensor, (marker, 1, (2,), (1,))

        stream = io.BytesIO()
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": little}):
            pickle.dump(part, stream, 2)
        Pickler(stream, 2).dump(Rebuilt())
        pickle.dump(["0"], stream, 2)
        order = "<" if little else ">"
        stream.write(struct.pack(f"{order}q10f", 10, *range(10)))
        (tmp_path / "x.pt").write_bytes(stream.getvalue())
        return str(tmp_path / "x.pt")

    for little in (True, False):
        assert open_path(written(None, little)).tensors[""].data.tolist() == [1, 2]
        assert open_path(written(("v", 3, 4), little)).tensors[""].data.tolist() == [4, 5]
    for view in (("v", 9, 4), ("v", -1, 4), ("v", 3, 2)):
        with pytest.raises(NanhuntError, match="damaged"):
            open_path(written(view, little=True))
