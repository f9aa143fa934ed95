"""A real S3 server on the loopback: runs, checkpoints and folders that are a format, and what is asked of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import nanhunt
from nanhunt.cli.app import app
from nanhunt.errors import NanhuntError
from nanhunt.load import remote

s3fs = pytest.importorskip("s3fs")
botocore = pytest.importorskip("botocore.exceptions")
server = pytest.importorskip("moto.server")
Put = Callable[[Path], str]
BAD = torch.ones(4, 3)
BAD[2, 1] = torch.nan


@pytest.fixture(scope="module")
def files() -> Iterator[Any]:
    """fsspec's view of a server that runs as long as these tests."""
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*running.get_host_and_port()))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "none")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setattr(remote, "PAUSES", (0.01, 0.01))
        yield s3fs.S3FileSystem()
    running.stop()


@pytest.fixture
def put(files: Any, tmp_path: Path) -> Put:
    """``put(folder)`` copies a folder into a bucket of the test's own, and gives its URL."""
    bucket = re.sub("[^a-z0-9]", "-", tmp_path.name.lower()).strip("-")
    files.mkdir(bucket)

    def copied(folder: Path) -> str:
        files.put(f"{folder}/", f"{bucket}/run/", recursive=True)
        return f"s3://{bucket}/run"

    return copied


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """(call, key, range) of everything that is asked of the server from here on."""
    seen: list[tuple[str, str, str]] = []
    plain = s3fs.S3FileSystem._call_s3

    async def watched(self: Any, method: str, *given: Any, **named: Any) -> Any:
        seen.append((method, str(named.get("Key", "")), str(named.get("Range", ""))))
        return await plain(self, method, *given, **named)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", watched)
    return seen


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three checkpoints of a Trainer; the last has a NaN."""
    for step, head in ((10, torch.ones(4, 3)), (20, torch.ones(4, 3)), (30, BAD)):
        folder = tmp_path / "run" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        weights = {f"layers.{layer}.weight": torch.ones(8, 8) for layer in range(40)}
        save_file({**weights, "head.weight": head}, folder / "model.safetensors")
        torch.save({"state": {0: {"exp_avg": torch.ones(4)}}}, folder / "optimizer.pt")
    state = {"log_history": [{"step": step, "loss": loss} for step, loss in ((20, 1.0), (30, float("nan")))]}
    (tmp_path / "run" / "checkpoint-30" / "trainer_state.json").write_text(json.dumps(state))
    return tmp_path / "run"


def said(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code in (0, 1), result.output
    return " ".join(result.output.split())


def test_a_run_is_judged_with_one_listing_and_one_request_a_file(put: Put, run: Path, calls) -> None:
    url = put(run)
    calls.clear()
    here, there = nanhunt.check(str(run)), nanhunt.check(url)
    assert there.to_json().replace(url, str(run)) == here.to_json()
    assert [each.file for each in there.tensors if each.findings] == [
        f"{url}/checkpoint-30/model.safetensors"
    ]
    assert there.logged
    assert sorted(method for method, _, _ in calls) == ["get_object"] * 7 + ["list_objects_v2"]


def test_the_first_bad_step_the_last_good_one_and_what_differs(put: Put, run: Path) -> None:
    url = put(run)
    assert "opened 3 of 3 checkpoints" in said("check", url, "--first")
    assert said("last-good", url).endswith(f"{url}/checkpoint-20")
    told = said("diff", f"{url}/checkpoint-10", f"{url}/checkpoint-30")
    assert "1 of 42 tensors differ" in told
    assert "DIFFERENT 1 of 42" in said("diff", str(run / "checkpoint-10"), f"{url}/checkpoint-30")


def test_a_marked_checkpoint_is_not_gone_on_from(put: Put, run: Path) -> None:
    (run / "checkpoint-20" / "NANHUNT_BAD").write_text("it diverged")
    url = put(run)
    assert f"{url}/checkpoint-10" in said("last-good", url)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch on saving without other ranks
def test_a_distributed_checkpoint(put: Put, tmp_path: Path) -> None:
    from torch.distributed import checkpoint

    checkpoint.save(
        {"w": BAD, "fine": torch.ones(3)}, checkpoint_id=tmp_path / "run" / "step-5", no_dist=True
    )
    report = nanhunt.check(put(tmp_path / "run"))
    assert [(each.tensor, each.findings[0].rows) for each in report.tensors if each.findings] == [("w", (7,))]
    assert not report.errors


def test_a_zarr_folder(put: Put, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    zarr.save(str(tmp_path / "run" / "acts.zarr"), w=BAD.numpy(), fine=np.ones(3))
    report = nanhunt.check(put(tmp_path / "run"))
    assert [each.tensor for each in report.tensors if each.findings] == ["w"]
    assert not report.errors


def test_labels_beside_the_logits(put: Put, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    np.save(tmp_path / "run" / "x.npy", np.eye(2, 3, dtype=np.float32))
    np.save(tmp_path / "run" / "y.npy", np.array([0, 7]))
    url = put(tmp_path / "run")
    report = nanhunt.check(f"{url}/x.npy", targets=f"{url}/y.npy")
    assert [each.code for each in report.findings] == ["NH005"]


def test_a_truncated_object_is_found_from_its_header_and_size(put: Put, tmp_path: Path, calls) -> None:
    (tmp_path / "run").mkdir()
    save_file({"w": torch.ones(3000, 1000)}, tmp_path / "run" / "m.safetensors")
    whole = (tmp_path / "run" / "m.safetensors").read_bytes()
    (tmp_path / "run" / "m.safetensors").write_bytes(whole[:-4])
    url = put(tmp_path / "run")
    calls.clear()
    report = nanhunt.check(url)
    assert "truncated" in report.errors[0].message
    assert [span for method, _, span in calls if method == "get_object"] == [f"bytes=0-{remote.HEADER - 1}"]


def test_what_is_written_meanwhile_is_seen_by_the_next_check(put: Put, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    np.save(tmp_path / "run" / "x.npy", np.zeros((2, 3), np.float32))
    url = put(tmp_path / "run")
    assert nanhunt.check(url).ok
    np.save(tmp_path / "run" / "x.npy", np.full((2, 3), np.nan, np.float32))
    np.save(tmp_path / "run" / "y.npy", np.full((2, 3), np.nan, np.float32))
    put(tmp_path / "run")
    assert len(nanhunt.check(url).tensors) == 2
    assert not nanhunt.check(f"{url}/x.npy").ok


def test_missing_credentials_are_told_without_another_try() -> None:
    tries = []

    def call() -> None:
        tries.append(None)
        raise botocore.NoCredentialsError

    with pytest.raises(NanhuntError, match=r"Unable to locate credentials\.") as raised:
        remote.tried("s3://bucket/x", call)
    assert raised.value.hint == "Check the credentials of its backend."
    assert len(tries) == 1


def test_a_bucket_that_does_not_exist(put: Put) -> None:
    report = nanhunt.check("s3://no-such-bucket/run/")
    assert "s3://no-such-bucket/run/ does not exist" in report.errors[0].message
