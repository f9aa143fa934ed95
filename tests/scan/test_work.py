"""However the work is divided, the reports add up to the one of a single run, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from nanhunt.cli.app import app
from nanhunt.errors import NanhuntError
from nanhunt.results.report import Report, merge
from nanhunt.scan import inputs, work
from nanhunt.scan.inputs import Scan
from nanhunt.scan.options import Options
from nanhunt.scan.work import WorkOptions, part_of, workers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight files: logits, weights, labels alone, a damaged one, text."""
    rng = np.random.default_rng(0)
    for number in range(4):
        logits = rng.standard_normal((50, 7)).astype(np.float32)
        logits[number, 2] = np.nan if number % 3 == 0 else 200
        np.savez(tmp_path / f"step-{number}.npz", logits=logits, labels=rng.integers(0, 7, 50))
    torch.save({"a.weight": torch.ones(3, 4), "b.weight": torch.full((3,), torch.inf)}, tmp_path / "w.pt")
    np.save(tmp_path / "labels.npy", np.arange(3))
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY\x01\x00")
    (tmp_path / "notes.txt").write_text("hello")
    return tmp_path


def ran(*arguments: object) -> tuple[str, int]:
    done = CliRunner().invoke(
        app, [*map(str, arguments), "--isolated"] if arguments[0] == "check" else [*map(str, arguments)]
    )
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.stdout, done.exit_code


@pytest.mark.parametrize(("parts", "verbose"), [(3, []), (3, ["-v"]), (9, [])])
def test_merged_shards_are_the_single_run(folder: Path, parts: int, verbose: list[str]) -> None:
    whole, code = ran("check", folder, "--format", "json", *verbose)
    saved = []
    for number in range(1, parts + 1):
        saved.append(folder.parent / f"part-{number}.json")
        saved[-1].write_text(
            ran("check", folder, "--shard", f"{number}/{parts}", "--format", "json", *verbose)[0]
        )
    merged, merged_code = ran("report", *saved, "--format", "json", *verbose)
    assert merged == whole
    assert (merged_code, code) == (2, 2)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"])
def test_shards_that_there_are_not(text: str) -> None:
    with pytest.raises(NanhuntError, match="is not I/N"):
        part_of(text)


@pytest.mark.parametrize("large", [1 << 26, 1500])
def test_jobs_judge_files_side_by_side(folder: Path, monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    monkeypatch.setattr(inputs, "LARGE", large)
    whole, code = ran("check", folder, "--format", "json")
    assert ran("check", folder, "--format", "json", "--jobs", 3) == (whole, code)


def test_labels_alone_are_no_error_side_by_side(tmp_path: Path) -> None:
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.arange(3))
    whole = ran("check", tmp_path, "--format", "json")
    assert ran("check", tmp_path, "--format", "json", "--jobs", 2) == whole


# ------------------------------------------------------------------------------------------------ JSON lines


def test_lines_are_written_while_the_scan_runs_and_add_up(folder: Path) -> None:
    lines: list[str] = []
    scan = Scan(Options(), told=lambda report: lines.extend(each.tensor for each in report.tensors))
    reports = scan.paths([str(folder)])
    next(reports)
    next(each for each in reports if each.tensors)
    assert len(lines) == 1
    text, code = ran("check", folder, "--format", "jsonl")
    *tensors, end = map(json.loads, text.splitlines())
    whole = json.loads(ran("check", folder, "--format", "json")[0])
    assert [each["record"] for each in tensors] == ["tensor"] * len(whole["tensors"])
    assert [each["findings"] for each in sorted(tensors, key=lambda each: each["file"])] == [
        each["findings"] for each in whole["tensors"]
    ]
    assert (end["tensors"], end["healthy"], end["errors"]) == (
        len(tensors),
        whole["healthy"],
        whole["errors"],
    )
    assert (end["exit_code"], end["options"]) == (code, whole["options"])
    assert (
        ran("check", folder, "--format", "jsonl", "--jobs", "2")[0].splitlines()[-1] == text.splitlines()[-1]
    )
    saved = folder.parent / "saved.json"
    saved.write_text(json.dumps(whole))
    again, _ = ran("report", saved, "--format", "jsonl")
    assert sorted(again.splitlines()) == sorted(text.splitlines())


def test_healthy_tensors_are_counted_and_a_million_take_little_room() -> None:
    from nanhunt.render import render

    values = {f"layer.{number}.weight": np.ones(2, np.float32) for number in range(500)}
    import nanhunt

    report = nanhunt.check(values)
    assert len(report.tensors) == 500
    counted = report.counted()
    many = merge(_renamed(counted, f"run/step-{step}/model.safetensors") for step in range(2000))
    text = render(many, "jsonl")
    assert sum(sum(group.files.values()) for group in many.healthy) == 1_000_000
    assert len(text) < 1_000_000


def _renamed(report: Report, file: str) -> Report:
    import dataclasses

    groups = [dataclasses.replace(group, files={file: sum(group.files.values())}) for group in report.healthy]
    return dataclasses.replace(report, healthy=tuple(groups), cells=())


# ----------------------------------------------------------------------------------------------------- Dask


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two workers, as threads: tests/benchmarks/cluster.py has processes, and kills one."""
    distributed = pytest.importorskip("dask.distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, silence_logs=50,
        protocol="tcp://",
    ) as made:  # fmt: skip
        yield made


@pytest.mark.filterwarnings("ignore")
def test_a_dask_cluster_says_the_same(folder: Path, cluster: Any) -> None:
    whole = ran("check", folder, "--format", "json")
    assert ran("check", folder, "--format", "json", "--dask", cluster.scheduler_address) == whole


@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask.distributed")
    monkeypatch.setattr(work, "PATIENCE", "0.1s")
    with pytest.raises(NanhuntError, match="no Dask scheduler"):
        workers(WorkOptions(dask="tcp://127.0.0.1:9"))
