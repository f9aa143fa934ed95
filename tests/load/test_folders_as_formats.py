"""Formats that are folders: distributed checkpoints, zarr, sharded safetensors, and a reader that a test adds."""

from __future__ import annotations

import io
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import nanhunt
from nanhunt.errors import NanhuntError
from nanhunt.load import find, open_path, reader
from nanhunt.load.container import Container
from nanhunt.load.reader import FileReader, Reading
from nanhunt.load.source import Source
from nanhunt.load.tensor import Tensor

WHOLE = torch.arange(24.0).reshape(4, 6)


def bad(folder: Path) -> dict[str, tuple[int, ...]]:
    """Tensors with findings, and the places."""
    found = nanhunt.check(str(folder), max_rows=100).tensors
    return {each.tensor: each.findings[0].rows for each in found if each.findings}


# ------------------------------------------------------------------------------- torch.distributed.checkpoint


def write_dcp(
    folder: Path, boxes: dict[tuple[int, int], torch.Tensor], shape: torch.Size | None = None
) -> None:
    """A folder as several ranks write it: one file a rank, each with its box of the tensor "w"."""
    from torch.distributed.checkpoint import filesystem, metadata

    folder.mkdir(exist_ok=True)
    storage, chunks = {}, []
    for rank, (offsets, values) in enumerate(boxes.items()):
        stream = io.BytesIO()
        torch.save(values.clone(), stream)
        before = b"x" * 7 * rank  # chunks lie anywhere in their file
        name = f"__{rank}_0.distcp"
        (folder / name).write_bytes(before + stream.getvalue() + b"behind")
        index = metadata.MetadataIndex("w", torch.Size(offsets))
        storage[index] = filesystem._StorageInfo(name, len(before), len(stream.getvalue()))
        chunks.append(metadata.ChunkStorageMetadata(torch.Size(offsets), values.shape))
    properties = metadata.TensorProperties(dtype=WHOLE.dtype)
    entry = metadata.TensorStorageMetadata(properties, shape or WHOLE.shape, chunks)
    with (folder / ".metadata").open("wb") as file:
        pickle.dump(metadata.Metadata({"w": entry}, None, storage), file)


def quarters(whole: torch.Tensor = WHOLE) -> dict[tuple[int, int], torch.Tensor]:
    return {(row, column): whole[row : row + 2, column : column + 3] for row in (0, 2) for column in (0, 3)}


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_what_torch_itself_saves(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    content = {
        "model": {"w": WHOLE, "b": torch.zeros(3, dtype=torch.bfloat16)},
        "opt": {"lr": 0.1, "step": 3},
    }
    dcp.save(content, checkpoint_id=tmp_path / "step-1", no_dist=True)
    container = open_path(str(tmp_path / "step-1"))
    assert container.format == "dcp"
    np.testing.assert_array_equal(container.tensors["model.w"].data, WHOLE.numpy())
    assert container.tensors["model.b"].dtype == "bfloat16"
    assert not container.missing
    assert nanhunt.check(str(tmp_path)).exit_code == 0
    content["opt"]["lr"] = float("nan")
    dcp.save(content, checkpoint_id=tmp_path / "step-2", no_dist=True)
    assert list(bad(tmp_path)) == ["opt.lr"]


def write_safetensors_dcp(folder: Path, boxes: dict[tuple[int, int], torch.Tensor]) -> None:
    """As FileSystemWriter(..., serialization_format=SAFETENSORS) does: the index tells no places in the files."""
    write_dcp(folder, boxes)
    body = pickle.loads((folder / ".metadata").read_bytes())
    for rank, (offsets, values) in enumerate(boxes.items()):
        said = json.dumps({"w": {"saved_offsets": offsets}, "v": {"saved_offsets": [0]}})
        tensors = {"v": torch.ones(2), "w": values.contiguous()}
        save_file(tensors, folder / f"__{rank}_0.distcp", {"DCP_SHARDING_INFO": said})
    for index, info in body.storage_data.items():
        info.offset, info.length = 0, 4 * boxes[tuple(index.offset)].numel()
    (folder / ".metadata").write_bytes(pickle.dumps(body))


def test_chunks_in_safetensors(tmp_path: Path) -> None:
    whole = WHOLE.clone()
    whole[1, 4] = float("nan")
    write_safetensors_dcp(tmp_path / "ckpt", quarters(whole))
    container = open_path(str(tmp_path / "ckpt"))
    np.testing.assert_array_equal(container.tensors["w"].data, whole.numpy())
    (tmp_path / "ckpt" / "__1_0.distcp").write_bytes((tmp_path / "ckpt" / "__0_0.distcp").read_bytes())
    with pytest.raises(NanhuntError, match="does not hold the chunk at"):
        open_path(str(tmp_path / "ckpt"))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_safetensors_that_torch_itself_saves(tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.filesystem import SerializationFormat

    writer = dcp.FileSystemWriter(tmp_path, serialization_format=SerializationFormat.SAFETENSORS)
    content = {"w": WHOLE, "b": torch.zeros(3, dtype=torch.bfloat16), "lr": 0.5, "epoch": 3}
    dcp.save(content, storage_writer=writer, no_dist=True)
    container = open_path(str(tmp_path))
    np.testing.assert_array_equal(container.tensors["w"].data, WHOLE.numpy())
    assert container.tensors["b"].dtype == "bfloat16"
    assert len(container.numbers) == 1
    assert not container.missing


def test_chunks_of_several_ranks_are_one_tensor_under_its_own_indices(tmp_path: Path) -> None:
    whole = WHOLE.clone()
    whole[1, 4] = whole[3, 0] = float("nan")
    write_dcp(tmp_path / "ckpt", quarters(whole))
    container = open_path(str(tmp_path / "ckpt"))
    assert container.tensors["w"].shape == (4, 6)
    np.testing.assert_array_equal(container.tensors["w"].data, whole.numpy())
    (report,) = nanhunt.check(str(tmp_path), logits="w").tensors
    assert report.findings[0].rows == (1, 3)
    found = nanhunt.check(str(tmp_path)).tensors[0]
    assert [each.code for each in found.findings][:1] == ["NH001"]


def test_a_weight_in_pieces_is_never_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = WHOLE.clone()
    whole[1, 4] = float("nan")
    monkeypatch.setattr(Tensor, "data", property(lambda tensor: tensor.read()))
    write_dcp(tmp_path, quarters(whole))
    tensor = open_path(str(tmp_path)).tensors["w"]
    monkeypatch.setattr("nanhunt.load.shards.unpacked", None)  # putting it together would fail
    rows = tensor.rows(-1)
    np.testing.assert_array_equal(rows.range(1, 3), whole[1:3].numpy())


def test_nothing_of_an_index_is_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> object:
            return open, (str(tmp_path / "ran"), "w")

    write_dcp(tmp_path / "ckpt", quarters())
    (tmp_path / "ckpt" / ".metadata").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(NanhuntError, match="no index of a distributed checkpoint"):
        open_path(str(tmp_path / "ckpt"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "__1_0.distcp").unlink(), "__1_0.distcp is not in the folder"),
        (lambda folder: (folder / "__1_0.distcp").write_bytes(b"x"), "__1_0.distcp is cut off"),
        (lambda folder: (folder / ".metadata").write_bytes(b"\x80\x04."), "no index"),
        (lambda folder: write_dcp(folder, {(0, 0): WHOLE[:, :3]}), "do not add up"),
        (lambda folder: write_dcp(folder, quarters() | {(2, 3): WHOLE[2:, 3:].half()}), "differ in dtype"),
    ],
)
def test_a_damaged_checkpoint_says_what_is_wrong(tmp_path: Path, damage, says: str) -> None:
    write_dcp(tmp_path, quarters())
    damage(tmp_path)
    with pytest.raises(NanhuntError, match=says):
        open_path(str(tmp_path))


@pytest.mark.parametrize("name", ["../w.distcp", "/etc/passwd", ".."])
def test_chunks_outside_of_the_folder_are_not_opened(tmp_path: Path, name: str) -> None:
    write_dcp(tmp_path / "ckpt", {(0, 0): WHOLE})
    index = tmp_path / "ckpt" / ".metadata"
    body = pickle.loads(index.read_bytes())
    for info in body.storage_data.values():
        info.relative_path = name
    index.write_bytes(pickle.dumps(body))
    with pytest.raises(NanhuntError, match="is not in the folder"):
        open_path(str(tmp_path / "ckpt"))


def with_chunk(folder: Path, **changes: object) -> None:
    """Changes the place of a chunk in the index."""
    body = pickle.loads((folder / ".metadata").read_bytes())
    for name, value in changes.items():
        setattr(next(iter(body.storage_data.values())), name, value)
    (folder / ".metadata").write_bytes(pickle.dumps(body))


def test_chunks_that_are_not_what_the_index_says(tmp_path: Path) -> None:
    write_dcp(tmp_path, quarters())
    with_chunk(tmp_path, transform_descriptors=["zstd"])
    with pytest.raises(NanhuntError, match="compressed or encrypted"):
        open_path(str(tmp_path))
    write_dcp(tmp_path, quarters())
    stream = io.BytesIO()
    torch.save(torch.ones(3, 2), stream)
    (tmp_path / "__0_0.distcp").write_bytes(stream.getvalue())
    with_chunk(tmp_path, length=len(stream.getvalue()))
    with pytest.raises(NanhuntError, match=r"a chunk is \(3, 2\) and should be \(2, 3\)"):
        open_path(str(tmp_path))


# ---------------------------------------------------------------------------------- safetensors of several ranks


def write_shards(folder: Path, boxes: dict[tuple[int, int], torch.Tensor]) -> None:
    folder.mkdir(exist_ok=True)
    for rank, (offsets, values) in enumerate(boxes.items(), 1):
        said = json.dumps({"w": {"saved_offsets": list(offsets)}})
        file = folder / f"shard-{rank:05}-model-00001-of-00001.safetensors"
        save_file({"w": values.contiguous()}, file, {"format": "pt", "DCP_SHARDING_INFO": said})


def test_safetensors_of_several_ranks_are_one_tensor(tmp_path: Path) -> None:
    whole = WHOLE.clone()
    whole[3, 5] = float("inf")
    write_shards(tmp_path / "sharded", quarters(whole))
    found = find([str(tmp_path)])
    assert [Path(path).name for path in found.files] == ["sharded"]
    container = open_path(found.files[0])
    np.testing.assert_array_equal(container.tensors["w"].data, whole.numpy())
    np.testing.assert_array_equal(container.tensors["w"].rows(0).range(4, 6), whole[:, 4:].T.numpy())


def test_an_absurd_place_in_a_tensor_is_told(tmp_path: Path) -> None:
    write_shards(tmp_path, {(0, 0): WHOLE, (1 << 40, 0): WHOLE})
    with pytest.raises(NanhuntError, match="do not make one tensor"):
        open_path(str(tmp_path))


def test_an_absurd_shape_of_a_distributed_checkpoint_is_told(tmp_path: Path) -> None:
    write_dcp(tmp_path, quarters())
    body = pickle.loads((tmp_path / ".metadata").read_bytes())
    body.state_dict_metadata["w"].size = torch.Size((1 << 40, 6))
    (tmp_path / ".metadata").write_bytes(pickle.dumps(body))
    with pytest.raises(NanhuntError, match="do not add up to its shape"):
        open_path(str(tmp_path))


def test_a_shard_of_a_few_bytes_is_told(tmp_path: Path) -> None:
    write_shards(tmp_path, quarters())
    (tmp_path / "shard-00002-model-00001-of-00001.safetensors").write_bytes(b"cut")
    with pytest.raises(NanhuntError, match="it has 3 bytes"):
        open_path(str(tmp_path))


def test_a_missing_rank_is_told(tmp_path: Path) -> None:
    write_shards(tmp_path, quarters())
    (tmp_path / "shard-00002-model-00001-of-00001.safetensors").unlink()
    with pytest.raises(NanhuntError, match="do not make one tensor"):
        open_path(str(tmp_path))


# ------------------------------------------------------------------------------------------------------- zarr


@pytest.mark.parametrize("version", [2, 3])
def test_zarr(tmp_path: Path, version: int) -> None:
    zarr = pytest.importorskip("zarr")
    values = np.linspace(-1, 1, 40, dtype=np.float32).reshape(10, 4)
    values[7, 2] = np.nan
    group = zarr.open_group(tmp_path / "dump.zarr", mode="w", zarr_format=version)
    group.create_array("layer/weight", shape=(10, 4), chunks=(4, 3), dtype="f4")[:] = values
    group.create_array("layer/bias", shape=(3,), dtype="f8")
    group.create_array("step", shape=(), dtype="i8")
    container = open_path(str(tmp_path / "dump.zarr"))
    assert set(container.tensors) == {"layer.weight", "layer.bias", "step"}
    np.testing.assert_array_equal(container.tensors["layer.weight"].data, values)
    assert bad(tmp_path) == {"layer.weight": (30,)}


def test_zarr_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zarr.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(NanhuntError) as caught:
        open_path(str(tmp_path))
    assert "nanhunt[zarr]" in caught.value.hint


@pytest.mark.parametrize(
    "sizes", [{"shape": (10**10,), "chunks": (10,)}, {"shape": (4,), "chunks": (10**10,)}]
)
def test_a_zarr_that_claims_what_its_bytes_cannot_hold(
    tmp_path: Path, sizes: dict[str, tuple[int, ...]]
) -> None:
    zarr = pytest.importorskip("zarr")
    zarr.open_group(tmp_path, mode="w").create_array("w", dtype="f4", **sizes)
    assert "claims more than its" in open_path(str(tmp_path)).refused["w"].message


def test_damaged_zarr(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(NanhuntError, match="damaged"):
        open_path(str(tmp_path))


# ------------------------------------------------------------------------------------------------ a new reader


def test_a_reader_is_one_line_in_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(source: Source, reading: Reading) -> Container:
        with source.open() as stream:
            values = np.array(stream.read().split()[1:], np.float32)
        return Container(
            source.file, {"w": Tensor(source.file, "w", "float32", values.shape, lambda: values)}, "toy"
        )

    toy = FileReader("toy", (".toy",), lambda source: source.head.startswith(b"TOY"), read)
    (tmp_path / "a.dat").write_text("TOY 1 nan 3")
    (tmp_path / "broken.toy").write_text("hello")
    assert [what for _, what in find_all(tmp_path)] == ["text", "text"]
    monkeypatch.setattr(reader, "READERS", [*reader.READERS, toy])
    report = nanhunt.check(str(tmp_path))
    assert [(tensor.tensor, len(tensor.findings)) for tensor in report.tensors] == [("w", 1)]
    assert "looks like text" in report.errors[0].message


def find_all(folder: Path) -> list[tuple[str, str]]:
    """What a search passes over where it finds something else."""
    np.save(folder / "x.npy", np.ones(2))
    found = find([str(folder)]).passed_over
    (folder / "x.npy").unlink()
    return found
