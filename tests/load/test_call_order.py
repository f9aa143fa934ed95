"""The order of calls, as the index files of real writers say it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nanhunt.load.call_order import read_call_order


def test_a_debug_tree_has_outputs_of_children_before_those_of_the_parent(tmp_path: Path) -> None:
    tree = {
        "module_path": "Net",
        "children": [{"module_path": "Net.b"}, {"module_path": "Net.a", "children": []}],
    }
    index = tmp_path / "Net_debug_tree_SUMMARY.json"
    index.write_text(json.dumps(tree))
    order = read_call_order([str(index)])
    names = (
        "Net_inputs_x",
        "Net.b_inputs",
        "Net.b_outputs",
        "Net.a_inputs_0",
        "Net.a_outputs",
        "Net_outputs_loss",
    )
    assert [order.of(str(tmp_path / f"{name}.safetensors")) for name in names] == list(range(6))
    assert order.of(str(tmp_path / "Net.c_outputs.safetensors")) is None
    assert order.of(str(tmp_path.parent / "Net_inputs.safetensors")) is None


def test_msprobes_index_is_in_the_order_of_calls(tmp_path: Path) -> None:
    index = tmp_path / "dump.json"
    index.write_text(
        json.dumps({"data": {"Functional.linear.0.forward": {}, "Module.a.Linear.forward.1": {}}})
    )
    order = read_call_order([str(index)])
    folder = tmp_path / "dump_tensor_data"
    assert order.of(str(folder / "Functional.linear.0.forward.output.0.pt")) == 0
    assert order.of(str(folder / "Module.a.Linear.forward.1.input.0.pt")) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"data": 3}', '{"children": []}'])
@pytest.mark.parametrize("name", ["dump.json", "Net_debug_tree_SUMMARY.json"])
def test_a_damaged_index_says_nothing(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert (
        read_call_order([str(tmp_path / name), str(tmp_path / "gone" / name)]).of(
            str(tmp_path / "a_inputs.pt")
        )
        is None
    )
