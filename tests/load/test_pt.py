from __future__ import annotations

import argparse
import collections
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import nanhunt
from nanhunt.errors import NanhuntError
from nanhunt.load import NotNumbers, open_path
from nanhunt.load.readers import objects, pt
from nanhunt.load.tensor import BITS, FLOATING, INTEGER
from nanhunt.results.report import Report

LEGACY = {"_use_new_zipfile_serialization": False}
NOT_IN_LEGACY = ("float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64")
FORMS = pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])


def save(path, content, **options):
    torch.save(content, path, **options)
    return str(path)


class Bomb:
    """Whoever unpickles it leaves a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@FORMS
@pytest.mark.parametrize("dtype", [*FLOATING, *INTEGER])
def test_every_dtype_has_the_bits_that_were_saved(tmp_path, dtype, options):
    if options and dtype in NOT_IN_LEGACY:
        pytest.skip("torch itself cannot load this dtype in the old form")
    values = (torch.arange(12).reshape(3, 4) % 5).to(getattr(torch, dtype))
    tensor = open_path(save(tmp_path / "x.pt", {"logits": values}, **options)).tensors["logits"]
    assert (tensor.dtype, tensor.shape) == (dtype, (3, 4))
    bits = values.view(getattr(torch, BITS[dtype])) if dtype in BITS else values
    np.testing.assert_array_equal(tensor.data, bits.numpy())
    assert tensor.data.dtype == bits.numpy().dtype


@FORMS
def test_nested_names(tmp_path, options):
    content = {
        "epoch": 3,
        "state_dict": collections.OrderedDict({"head.weight": torch.ones(2, 2), "head.bias": torch.zeros(2)}),
        "optimizer_states": [
            {"state": {0: {"exp_avg": torch.ones(2), "step": torch.tensor(1.0)}}, "lr": 0.1}
        ],
        "pair": (torch.ones(1), None),
    }
    container = open_path(save(tmp_path / "lightning.ckpt", content, **options))
    assert container.format == ("pt-legacy" if options else "pt")
    assert list(container.tensors) == [
        "state_dict.head.weight",
        "state_dict.head.bias",
        "optimizer_states.0.state.0.exp_avg",
        "optimizer_states.0.state.0.step",
        "pair.0",
    ]


@FORMS
def test_a_bare_tensor_has_no_name(tmp_path, options):
    container = open_path(save(tmp_path / "x.pt", torch.arange(3.0), **options))
    assert list(container.tensors) == [""]
    assert container.tensors[""].data.tolist() == [0, 1, 2]


@FORMS
def test_views_parameters_and_tied_weights(tmp_path, options):
    weight = torch.nn.Parameter(torch.arange(12.0).reshape(3, 4))
    content = {
        "weight": weight,
        "tied": weight,
        "turned": weight.t(),
        "row": weight[1],
        "wide": weight[:, :1].expand(3, 9),
    }
    container = open_path(save(tmp_path / "x.pt", content, **options))
    assert list(container.tensors) == list(content)
    for name, tensor in content.items():
        np.testing.assert_array_equal(container.tensors[name].data, tensor.detach().numpy())


def test_conjugate_and_negative_views(tmp_path):
    values = torch.tensor([1 + 2j, 3 - 4j])
    conjugate = open_path(save(tmp_path / "conjugate.pt", values.conj()))
    assert conjugate.tensors[""].data.tolist() == [1 - 2j, 3 + 4j]
    negative = open_path(save(tmp_path / "negative.pt", values.conj().imag))
    assert negative.tensors[""].data.tolist() == [-2, 4]


def test_names_that_collide_are_both_kept(tmp_path):
    content = {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}}
    container = open_path(save(tmp_path / "x.pt", content))
    assert [tensor.data[0] for tensor in container.tensors.values()] == [0, 1]
    assert list(container.tensors) == ["a.b", "a.b#2"]


def test_a_container_saved_twice_is_walked_twice_and_a_loop_once(tmp_path):
    weights = {"w": torch.ones(1)}
    content = {"model": weights, "ema": weights}
    content["self"] = content
    assert list(open_path(save(tmp_path / "x.pt", content)).tensors) == ["model.w", "ema.w"]


def test_lists_that_multiply_end(tmp_path, refusal, monkeypatch):
    monkeypatch.setattr(objects, "MOST_OBJECTS", 10_000)
    nested = [torch.ones(1)]
    for _ in range(40):
        nested = [nested, nested]
    assert "absurdly" in refusal(save(tmp_path / "x.pt", nested)).message


def test_lists_that_nest_without_end(tmp_path, refusal):
    nested = [torch.ones(1)]
    for _ in range(200):
        nested = [nested]
    assert "101 levels" in refusal(save(tmp_path / "x.pt", nested)).message


@pytest.mark.skipif(sys.platform != "linux", reason="reads what is mapped from /proc")
def test_zip_checkpoints_are_mapped(tmp_path):
    values = torch.zeros(1 << 20)
    path = save(tmp_path / "x.pt", values)
    data = open_path(path).tensors[""].data
    assert path in Path("/proc/self/maps").read_text()
    data[0] = 7
    assert torch.load(path)[0] == 0


def test_a_recompressed_checkpoint_is_not_mapped_as_packed_bytes(tmp_path):
    values = torch.arange(1000.0)
    path = save(tmp_path / "x.pt", {"w": values})
    with (
        zipfile.ZipFile(path) as whole,
        zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in whole.infolist():
            packed.writestr(entry.filename, whole.read(entry))
    np.testing.assert_array_equal(open_path(str(tmp_path / "y.pt")).tensors["w"].data, values.numpy())


def rewritten(path, change, packed=zipfile.ZIP_STORED):
    """The checkpoint with some entries of its zip changed: ``change(name, content)``."""
    with zipfile.ZipFile(path) as whole:
        entries = {name: change(name, whole.read(name)) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_checkpoint_of_a_big_endian_machine(tmp_path, packed):
    values = torch.arange(5.0)

    def swapped(name, content):
        if name.endswith("byteorder"):
            return b"big"
        return values.numpy().astype(">f4").tobytes() if "/data/" in name else content

    path = rewritten(save(tmp_path / "x.pt", {"w": values}), swapped, packed)
    assert open_path(path).tensors["w"].data.tolist() == values.tolist()


def test_a_tensor_that_reaches_past_its_storage(tmp_path, refusal):
    path = save(tmp_path / "x.pt", {"w": torch.arange(64.0)})
    rewritten(path, lambda name, content: content[:-4] if "/data/" in name else content)
    with pytest.raises(NanhuntError, match="reaches past the end"):
        open_path(path)


def test_a_checkpoint_called_safetensors_is_still_a_checkpoint(tmp_path):
    container = open_path(save(tmp_path / "x.safetensors", {"w": torch.ones(2)}))
    assert container.tensors["w"].data.tolist() == [1, 1]


@FORMS
@pytest.mark.parametrize("protocol", range(2, 6))
def test_objects_of_any_class_are_read_through_and_nothing_runs(tmp_path, options, protocol):
    content = {
        "w": torch.ones(2),
        "args": argparse.Namespace(lr=1, mean=torch.zeros(3)),
        "bomb": Bomb(tmp_path / "ran"),
    }
    path = save(tmp_path / "x.ckpt", content, pickle_protocol=protocol, **options)
    assert list(open_path(path).tensors) == ["w", "args.mean"]
    assert not (tmp_path / "ran").exists()


@FORMS
def test_a_whole_module_has_the_names_of_its_state_dict(tmp_path, options):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    container = open_path(save(tmp_path / "x.pt", module, **options))
    assert list(container.tensors) == list(module.state_dict())
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(container.tensors[name].data, tensor.numpy())


class Wrapped(torch.Tensor):
    """A subclass with an attribute."""


def test_subclasses_and_their_attributes(tmp_path):
    values = torch.arange(3.0).as_subclass(Wrapped)
    values.scale = 2.0
    buffer = torch.nn.Buffer(torch.ones(2))
    container = open_path(save(tmp_path / "x.pt", {"a": values, "b": buffer}))
    assert container.tensors["a"].data.tolist() == [0, 1, 2]
    assert container.tensors["b"].data.tolist() == [1, 1]


@FORMS
@pytest.mark.parametrize("protocol", range(2, 6))
def test_numpy_arrays_and_scalars(tmp_path, options, protocol):
    arrays = {
        "plain": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">f2"),
        "complex": np.array([1 + 2j]),
        "scalar": np.float64(7),
        "empty": np.zeros((0, 3)),
    }
    container = open_path(save(tmp_path / "x.pt", arrays, pickle_protocol=protocol, **options))
    assert list(container.tensors) == list(arrays)
    for name, array in arrays.items():
        found = container.tensors[name]
        assert (found.dtype, found.shape) == (array.dtype.name, array.shape)
        np.testing.assert_array_equal(found.data, array)
        assert found.data.dtype.isnative


def test_arrays_that_are_no_numbers_are_refused_one_by_one(tmp_path):
    arrays = {"w": np.ones(2), "text": np.array(["a"]), "objects": np.array([{}], object)}
    container = open_path(save(tmp_path / "x.pt", arrays))
    assert list(container.tensors) == ["w"]
    assert {name: type(error) for name, error in container.refused.items()} == {
        "text": NotNumbers,
        "objects": NotNumbers,
    }


def test_plain_numbers_are_looked_at(tmp_path):
    content = {
        "w": torch.ones(2),
        "best": float("inf"),
        "groups": [{"lr": 0.1, "betas": (0.9, float("nan"))}],
        "z": complex(1, float("nan")),
        "steps": [1, 2, 3],
    }
    numbers = open_path(save(tmp_path / "x.pt", content)).numbers
    assert list(numbers) == ["best", "groups.0.betas", "z", "(plain numbers)"]
    assert numbers["best"].data.shape == ()
    np.testing.assert_array_equal(numbers["groups.0.betas"].data, [0.9, np.nan])
    assert numbers["(plain numbers)"].data.tolist() == [0.1]


def test_raw_bytes_are_said_not_to_be_looked_at(tmp_path):
    container = open_path(save(tmp_path / "x.pt", {"w": torch.ones(2), "blob": [bytes(40)]}))
    assert container.unread == {"blob.0": "40 raw bytes"}


def test_plain_pickles_run_nothing(tmp_path, refusal):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    assert "pickle" in refusal(path).message
    assert not (tmp_path / "ran").exists()


def test_the_tensors_of_a_torchscript_program_are_read_and_the_program_is_not_run(tmp_path):
    module = torch.nn.Linear(2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(tmp_path / "x.pt"))
    container = open_path(str(tmp_path / "x.pt"))
    assert list(container.tensors) == ["weight", "bias"]
    np.testing.assert_array_equal(container.tensors["weight"].data, module.weight.detach().numpy())


def test_a_checkpoint_costs_no_torch(tmp_path):
    path = save(tmp_path / "x.pt", {"w": torch.arange(2.0), "args": argparse.Namespace(lr=0.1)})
    script = "import sys, nanhunt; assert nanhunt.check(sys.argv[1]).ok; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script, path], check=False).returncode == 0


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch on its own meta tensors
def test_tensors_without_plain_values_are_refused_by_name(tmp_path):
    dense = torch.eye(3)
    content = {
        "fine": dense,
        "meta": torch.empty(2, 2, device="meta"),
        "other": torch.zeros(2, dtype=torch.float8_e4m3fnuz),
        "half_complex": torch.zeros(2, dtype=torch.complex32),
    }
    container = open_path(save(tmp_path / "x.pt", content))
    assert list(container.tensors) == ["fine"]
    words = {name: error.message for name, error in container.refused.items()}
    assert "meta" in words["meta"]
    assert "float8_e4m3fnuz" in words["other"]
    assert "complex32" in words["half_complex"]


@FORMS
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch on its own nested tensors
def test_a_jagged_tensor_is_listed_once(tmp_path, options):
    pieces = [torch.ones(2, 3), torch.full((1, 3), torch.inf)]
    content = {"j": torch.nested.nested_tensor(pieces, layout=torch.jagged)}
    path = save(tmp_path / "x.pt", content, **options)
    assert {name: tensor.data.tolist() for name, tensor in open_path(path).tensors.items()} == {
        "j": torch.cat(pieces).tolist()
    }


@FORMS
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch on its own quantized and nested tensors
def test_quantized_tensors_are_judged_by_their_scales_and_nested_ones_by_their_values(tmp_path, options):
    scales = torch.tensor([0.1, torch.nan, 0.2])
    content = {
        "per_tensor": torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8),
        "per_channel": torch.quantize_per_channel(torch.eye(3), scales, torch.zeros(3), 0, torch.qint8),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.full((3,), torch.inf)]),
    }
    report = nanhunt.check(save(tmp_path / "x.pt", content, **options))
    assert not report.errors
    assert {each.tensor: each.findings[0].message for each in report.tensors if each.findings} == {
        "per_channel": "1 NaN of 3 values, the first at [1]",
        "nested": "3 +inf of 5 values, the first at [2]",
    }
    assert {note.partition(":")[0] for each in report.tensors for note in each.notes} == {
        "quantized",
        "nested",
    }


@FORMS
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch on its own sparse tensors
def test_the_stored_values_of_sparse_tensors_are_checked(tmp_path, options):
    bad = torch.diag(torch.tensor([1.0, torch.nan, 2.0]))
    content = {"logits": bad.to_sparse(), "csr": bad.to_sparse_csr(), "csc": bad.to_sparse_csc()}
    report = nanhunt.check(save(tmp_path / "x.pt", content, **options))
    assert not report.errors
    assert {each.tensor: each.findings[0].message for each in report.tensors} == dict.fromkeys(
        content, "1 NaN of 3 values, the first at [1]"
    )
    assert {each.notes for each in report.tensors} == {("sparse: the values that are stored",)}


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch on its own sparse tensors
def test_sparse_integers_hold_nothing_to_judge_and_sparse_complex_numbers_do(tmp_path):
    content = {
        "mask": torch.eye(2, dtype=torch.int64).to_sparse(),
        "c": torch.tensor([[complex(0, torch.nan)]]).to_sparse(),
        "w": torch.arange(3.0),
    }
    report = nanhunt.check(save(tmp_path / "x.pt", content))
    assert {each.tensor: len(each.findings) for each in report.tensors} == {"c": 1, "w": 0}


@FORMS
def test_truncations(tmp_path, refusal, options):
    path = tmp_path / "x.pt"
    save(path, {"w": torch.ones(100), "v": torch.ones(3)}, **options)
    whole = path.read_bytes()
    for length in (40, 200, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:length])
        refusal(path)


def test_a_pickle_that_claims_more_than_the_file(tmp_path, refusal):
    path = tmp_path / "x.pt"
    save(path, {"w": torch.ones(4)}, **LEGACY)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"K\x04", b"J\xff\xff\xff\x7f"))
    assert "damaged" in refusal(path).message


def test_few_bytes_that_are_shown_again_and_again_are_not_read_as_many(tmp_path):
    container = open_path(
        save(tmp_path / "x.pt", {"x": torch.zeros(1).expand(1 << 20, 1 << 20), "y": torch.ones(2)})
    )
    assert list(container.tensors) == ["y"]
    assert "again and again" in container.refused["x"].message


def test_a_view_lies_inside_of_its_storage_to_its_last_value():
    storage = pt.Storage(16, lambda offset, dtype, count: np.zeros(count, dtype))
    pt._View(storage, "float32", 2, (2,), (1,), False, False).check()
    for offset, stride in ((3, 1), (1, 3), (4, 1)):
        with pytest.raises(pt.Damaged):
            pt._View(storage, "float32", offset, (2,), (stride,), False, False).check()


def test_a_record_that_does_not_lie_where_the_table_of_contents_says(tmp_path):
    path = Path(save(tmp_path / "x.pt", {"w": torch.arange(1000.0), "v": torch.ones(3)}))
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        places = {
            name.rpartition("/data/")[2]: archive.getinfo(name)
            for name in archive.namelist()
            if "/data/" in name
        }
    moved = bytearray(whole)
    moved[places["0"].header_offset] = 0  # no header of a record begins there
    longer = bytearray(whole)
    at = longer.rindex(places["1"].filename.encode()) - 46
    claimed = len(whole) - places["1"].header_offset  # from behind its header on, past the end
    struct.pack_into("<II", longer, at + 20, claimed, claimed)
    for content in (moved, longer):
        path.write_bytes(content)
        with pytest.raises(NanhuntError, match="truncated or damaged"):
            open_path(str(path))


def test_code_that_a_file_names_is_listed_as_not_run(tmp_path: Path) -> None:
    """Each class and function once; not those that put tensors and plain data together."""
    args = argparse.Namespace(lr=0.1)
    content: dict[str, object] = {
        "w": torch.ones(3),
        "x": np.ones(2),
        "m": torch.nn.Linear(2, 2),
        "set": {1},
        "args": args,
        "bomb": Bomb(tmp_path / "fired"),
    }
    torch.save(content, tmp_path / "a.pt")
    torch.save({"w": torch.ones(3), "args": argparse.Namespace()}, tmp_path / "b.pt")
    report = nanhunt.check([tmp_path / "a.pt", tmp_path / "b.pt"])
    assert [(Path(each.file).name, each.name) for each in report.not_run] == [
        ("a.pt", "argparse.Namespace"), ("a.pt", "io.open"), ("b.pt", "argparse.Namespace")
    ]  # fmt: skip
    assert "not run: argparse.Namespace, io.open (2 files)" in str(report)
    assert Report.from_json(report.to_json()).not_run == report.not_run
    assert not (tmp_path / "fired").exists()
