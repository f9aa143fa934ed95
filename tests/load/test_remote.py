"""URLs: what is fetched, how often, and what is said when it does not come."""

from __future__ import annotations

import contextlib
import pickle
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from seeds import SMALL, onnx
from test_folders_as_formats import write_dcp

import nanhunt
from nanhunt.load import fetched, find, open_path, remote
from nanhunt.load.checkpoints import checkpoints
from nanhunt.scan.last_good import last_good

pytest.importorskip("fsspec")
WHOLE = torch.arange(300_000.0).reshape(300, 1000)


@pytest.fixture
def failing() -> list[str]:
    """Paths whose next request fails."""
    return []


@pytest.fixture
def server(tmp_path, monkeypatch, failing):
    """(a URL that serves ranges of the files in tmp_path, the ranges that were asked for).

    Files called "whole" are sent whole, whatever is asked for.
    """
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(remote, "PAUSES", (0.01, 0.01))
    asked: list[tuple[str, int, int]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None: ...

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = tmp_path / self.path.lstrip("/")
            if path.is_dir():
                links = "".join(f'<a href="{each.name}{"/" * each.is_dir()}">' for each in path.iterdir())
                return self.send(200, links.encode(), {"Content-Type": "text/html"}, body=body)
            if not path.is_file():
                return self.send(404, b"", {}, body=False)
            if body and self.path in failing:
                failing.remove(self.path)
                return self.send(503, b"", {}, body=False)
            content = path.read_bytes()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if wanted is None or "whole" in path.name:
                return self.send(200, content, {}, body=body)
            first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
            asked.append((path.name, first, last + 1))
            where = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            return self.send(206, content[first : last + 1], where, body=body)

        def send(self, code: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                with contextlib.suppress(OSError):
                    self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}", asked
        made.shutdown()


def counted(asked: list[tuple[str, int, int]]) -> int:
    """Bytes that were sent, each once."""
    spans = sorted(asked)
    assert all(one[0] != other[0] or one[2] <= other[1] for one, other in pairwise(spans)), spans
    return sum(end - begin for _, begin, end in spans)


def test_only_headers_and_the_tensors_that_are_read_are_fetched(tmp_path, server):
    url, asked = server
    save_file({f"{name}.weight": WHOLE + at for at, name in enumerate("abc")}, tmp_path / "m.safetensors")
    container = open_path(f"{url}/m.safetensors")
    assert counted(asked) == remote.HEADER
    np.testing.assert_array_equal(container.tensors["b.weight"].flat(0, 300_000), WHOLE.flatten() + 1)
    assert counted(asked) == remote.HEADER + 4 * WHOLE.numel()


@pytest.mark.parametrize("form", ["safetensors", "pt"])
def test_many_small_tensors_take_few_requests_and_every_byte_is_fetched_once(tmp_path, server, form):
    url, asked = server
    weights = {f"layers.{number}.weight": torch.full((500,), float(number)) for number in range(2000)}
    weights["layers.7.weight"][3] = torch.nan
    name = f"m.{form}"
    save_file(weights, tmp_path / name) if form == "safetensors" else torch.save(weights, tmp_path / name)
    report = nanhunt.check(f"{url}/{name}")
    assert [(each.tensor, each.findings[0].rows) for each in report.tensors if each.findings] == [
        ("layers.7.weight", (3,))
    ]
    size = (tmp_path / name).stat().st_size
    assert counted(asked) <= size
    assert len(asked) < 20


def test_more_is_fetched_ahead_in_several_requests_at_once(tmp_path, server, monkeypatch):
    monkeypatch.setattr(remote, "PART", 1 << 16)
    url, asked = server
    np.save(tmp_path / "x.npy", WHOLE)
    nanhunt.check(f"{url}/x.npy")
    assert counted(asked) == (tmp_path / "x.npy").stat().st_size
    assert max(end - begin for _, begin, end in asked) == 1 << 16


def test_what_was_fetched_is_given_up_and_fetched_again(tmp_path, server, monkeypatch):
    monkeypatch.setattr(fetched, "BUDGET", 1 << 17)
    url, asked = server
    np.save(tmp_path / "x.npy", WHOLE)
    tensor = open_path(f"{url}/x.npy").tensors[""]
    for _ in range(2):
        np.testing.assert_array_equal(tensor.flat(0, 300_000), WHOLE.flatten())
    assert sum(end - begin for _, begin, end in asked) > 2 * 4 * WHOLE.numel() - remote.HEADER


def test_headers_are_kept_until_their_files_had_their_turn(tmp_path, server, monkeypatch):
    """All files of a folder are opened before the first is judged, and more is read than is kept at once."""
    monkeypatch.setattr(fetched, "BUDGET", 3 << 19)
    monkeypatch.setattr(remote, "BUDGET", 3 << 19)
    monkeypatch.setattr(remote, "AT_ONCE", 2)
    url, asked = server
    (tmp_path / "run").mkdir()
    for number in range(10):
        save_file({"a.weight": WHOLE[:60]}, tmp_path / "run" / f"m-{number}.safetensors")
    assert nanhunt.check(f"{url}/run/").exit_code == 0
    assert counted(asked) == sum(path.stat().st_size for path in (tmp_path / "run").iterdir())


def test_the_last_good_checkpoint_takes_every_byte_of_those_it_reads_once(tmp_path, server):
    url, asked = server
    for step in (1, 2, 3):
        weights = WHOLE.clone()
        weights[5, 7] = torch.nan if step == 3 else 0
        save_file({"a.weight": weights}, tmp_path / f"checkpoint-{step}.safetensors")
    assert last_good(checkpoints(f"{url}/")).checkpoint.step == 2
    counted(asked)


def test_of_two_folders_every_byte_is_fetched_once(tmp_path, server):
    url, asked = server
    for name in "ab":
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / f"{name}.npy", WHOLE)
    assert len(nanhunt.check([f"{url}/a/", f"{url}/b/"]).tensors) == 2
    assert counted(asked) == 2 * (tmp_path / "a" / "a.npy").stat().st_size


def test_rows_far_away_are_those_of_the_array(tmp_path, server):
    url, _ = server
    np.save(tmp_path / "x.npy", WHOLE.reshape(3, 100, 1000))
    here, there = (open_path(each).tensors[""].rows(-1) for each in (str(tmp_path / "x.npy"), f"{url}/x.npy"))
    assert (here.count, here.classes, here.leading) == (there.count, there.classes, there.leading)
    for (first, block), (other, same) in zip(here.blocks(100), there.blocks(100), strict=True):
        assert first == other
        np.testing.assert_array_equal(block, same)
    numbers = np.array([299, 0, 7])
    np.testing.assert_array_equal(here.take(numbers), there.take(numbers))
    assert there.take(numbers[:0]).shape == (0, 1000)


def test_an_array_in_column_order_is_read_as_it_lies(tmp_path, server):
    url, _ = server
    values = np.arange(600.0).reshape(20, 30)
    np.save(tmp_path / "x.npy", np.asfortranarray(values))
    tensor = open_path(f"{url}/x.npy").tensors[""]
    np.testing.assert_array_equal(tensor.flat(45, 75), values.reshape(-1)[45:75])
    np.testing.assert_array_equal(tensor.rows(-1).take(np.array([19, 2])), values[[19, 2]])


def test_views_of_a_checkpoint_are_read_as_they_lie(tmp_path, server):
    url, _ = server
    whole = torch.arange(600.0).reshape(20, 30)
    spun = torch.complex(whole[0], whole[1]).clone().conj()
    views = {"t": whole.t(), "part": whole[1:, ::2], "conj": spun, "neg": torch._neg_view(torch.arange(6.0))}
    torch.save(views, tmp_path / "x.pt")
    tensors = open_path(f"{url}/x.pt").tensors
    for name, view in views.items():
        read = tensors[name].flat(0, view.numel())
        np.testing.assert_array_equal(read, view.resolve_conj().resolve_neg().numpy().reshape(-1))


@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"index"}))
def test_every_format_says_the_same_from_afar(tmp_path, server, name):
    url, _ = server
    (tmp_path / "x.pt").write_bytes(SMALL[name])
    (tmp_path / "whole.pt").write_bytes(SMALL[name])
    here = {name: tensor.data for name, tensor in open_path(str(tmp_path / "x.pt")).tensors.items()}
    for there in (f"{url}/x.pt", f"{url}/whole.pt"):
        tensors = open_path(there).tensors
        assert tensors.keys() == here.keys()
        for each, tensor in tensors.items():
            np.testing.assert_array_equal(tensor.data, here[each])


def test_an_error_of_the_network_is_tried_again(tmp_path, server, failing):
    url, _ = server
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    failing += ["/x.npy", "/x.npy"]
    assert nanhunt.check(f"{url}/x.npy").ok


def test_one_that_stays_is_told(tmp_path, server, failing):
    url, _ = server
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    failing += ["/x.npy"] * 10
    assert "503" in nanhunt.check(f"{url}/x.npy").errors[0].message


def test_a_folder_of_a_web_server(tmp_path, server):
    url, _ = server
    for step in (2, 10):
        (tmp_path / f"step-{step}").mkdir()
        np.save(tmp_path / f"step-{step}" / "x.npy", np.ones((2, 3), np.float32))
    assert find([f"{url}/"]).files == [f"{url}/step-2/x.npy", f"{url}/step-10/x.npy"]


def test_a_checkpoint_with_its_index_and_a_missing_shard(tmp_path, server):
    url, _ = server
    bad = WHOLE.clone()
    bad[7, 3] = torch.nan
    torch.save({"a.weight": bad}, tmp_path / "1.bin")
    (tmp_path / "x.index.json").write_text('{"weight_map": {"a.weight": "1.bin", "v": "2.bin"}}')
    report = nanhunt.check(f"{url}/x.index.json")
    assert [(each.tensor, each.findings[0].rows) for each in report.tensors] == [("a.weight", (7003,))]
    assert "2.bin does not exist" in report.errors[0].message


def test_a_truncated_object_is_found_by_its_header(tmp_path, server, refusal):
    url, asked = server
    save_file({"w": WHOLE}, tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(whole[:-4])
    assert "truncated" in refusal(f"{url}/m.safetensors").message
    assert sum(end - begin for _, begin, end in asked) < len(whole) // 2


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch on saving without other ranks
def test_of_a_distributed_checkpoint_only_what_is_read_is_fetched(tmp_path, server):
    url, asked = server
    halves = {(0, 0): WHOLE[:150].clone(), (150, 0): WHOLE[150:].clone()}
    halves[150, 0][7, 3] = torch.nan
    write_dcp(tmp_path / "ckpt", halves, WHOLE.shape)
    tensor = open_path(f"{url}/ckpt/").tensors["w"]
    assert counted(asked) < 10 * remote.HEADER
    before = counted(asked)
    values = tensor.flat(149_000, 151_000)
    np.testing.assert_array_equal(values, WHOLE.flatten()[149_000:151_000])
    assert counted(asked) - before <= 2 * remote.HEADER
    asked.clear()
    (report,) = nanhunt.check(f"{url}/ckpt/").tensors
    assert report.findings[0].rows == (157,)
    assert counted(asked) <= sum(each.stat().st_size for each in (tmp_path / "ckpt").iterdir())


def test_formats_that_are_mapped_whole_are_copied_to_a_file_without_a_name(tmp_path, server):
    url, _ = server
    (tmp_path / "m.onnx").write_bytes(onnx())
    assert open_path(f"{url}/m.onnx").tensors["w"].data.shape == (3, 4)


def test_what_others_will_read_is_only_recognised(tmp_path, server):
    url, asked = server
    (tmp_path / "run").mkdir()
    np.save(tmp_path / "run" / "x.npy", WHOLE)
    assert find([f"{url}/run/"], fetches=False).files == [f"{url}/run/x.npy"]
    time.sleep(0.1)
    assert counted(asked) == remote.HEADER


def test_who_is_handed_pieces_fetches_no_others(tmp_path, server):
    url, asked = server
    save_file({"w": WHOLE}, tmp_path / "x.safetensors")
    tensor = pickle.loads(pickle.dumps(open_path(f"{url}/x.safetensors").tensors["w"]))
    for start in (50_000, 100_000):  # what follows is somebody else's
        np.testing.assert_array_equal(tensor.flat(start, start + 50_000), WHOLE.flatten()[start:][:50_000])
    time.sleep(0.1)
    assert counted(asked) <= 2 * 4 * 50_000 + 2 * remote.HEADER


def test_dask_can_tell_tensors_far_away_by_what_they_are(tmp_path, server):
    """Its executor does so with all that it is given, and refuses what it cannot tell again."""
    tokenize = pytest.importorskip("dask.tokenize").tokenize
    url, _ = server
    np.save(tmp_path / "x.npy", WHOLE)
    tensor = open_path(f"{url}/x.npy").tensors[""]
    assert tokenize(tensor, ensure_deterministic=True)


def test_what_does_not_exist(server, refusal):
    url, _ = server
    assert "does not exist" in refusal(f"{url}/none.npy").message


def test_any_file_system_of_fsspec(tmp_path):
    import fsspec

    with fsspec.open("memory://dumps/x.npy", "wb") as stream:
        np.save(stream, np.array([[1.0, np.nan]], np.float32))
    (report,) = nanhunt.check("memory://dumps/x.npy").tensors
    assert report.findings[0].code == "NH001"


def test_a_folder_is_searched(tmp_path):
    import fsspec

    files = fsspec.filesystem("memory")
    for name in ("step-2/x.npy", "step-10/x.npy", "notes.txt", ".hidden.npy", "skipped/x.npy"):
        with files.open(f"/run/{name}", "wb") as stream:
            if name.endswith(".npy"):
                np.save(stream, np.ones((2, 3), np.float32))
            else:
                stream.write(b"hello")
    found = find(["memory://run"], ["skipped*"])
    assert found.files == ["memory://run/step-2/x.npy", "memory://run/step-10/x.npy"]
    assert [what for _, what in found.passed_over] == ["text"]
    assert len(nanhunt.check("memory://run").tensors) == 3


def test_a_scheme_that_nobody_serves(refusal: object, tmp_path: Path) -> None:
    report = nanhunt.check("nothing://x.npy")
    assert "nothing://x.npy" in report.errors[0].message
