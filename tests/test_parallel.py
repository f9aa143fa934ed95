"""Work on several cores: results in order, errors in their turn, nothing begun that nobody wants."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nanhunt
from nanhunt import parallel
from nanhunt.errors import NanhuntError
from nanhunt.load.rows import Rows
from nanhunt.operations.values import check as values
from nanhunt.operations.values import health
from nanhunt.parallel import Fastest
from nanhunt.parallel.forks import Forks, _Child
from nanhunt.parallel.threads import AHEAD, Threads
from nanhunt.scan.inputs import Scan
from nanhunt.scan.options import Options

InOrder = Callable[[Callable[[int], int], Iterator[int]], Iterator[int]]
FORKS = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")


@pytest.fixture(
    params=[
        *(pytest.param((Threads, count), id=f"{count} threads") for count in (1, 2, 5)),
        *(pytest.param((Forks, count), id=f"{count} processes", marks=FORKS) for count in (1, 2, 5)),
    ]
)
def in_order(request: pytest.FixtureRequest) -> InOrder:
    """Every promise holds for any number of either."""
    strategy, count = request.param
    return strategy(count).map


def slow_first(item: int) -> int:
    """Early items take longest, so that they finish last."""
    time.sleep(0.002 * max(0, 5 - item))
    return item * item


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_results_come_in_the_order_of_the_items(in_order: InOrder, count: int) -> None:
    assert list(in_order(slow_first, iter(range(count)))) == [item * item for item in range(count)]


def test_what_work_raises_comes_after_the_results_before_it(in_order: InOrder) -> None:
    def work(item: int) -> int:
        if item == 7:
            raise NanhuntError("The seventh is damaged.", "Write it again.")
        return slow_first(item)

    results = in_order(work, iter(range(100)))
    assert [next(results) for _ in range(7)] == [item * item for item in range(7)]
    with pytest.raises(NanhuntError, match="The seventh") as raised:
        next(results)
    assert raised.value.hint == "Write it again."


def test_what_the_items_raise_comes_after_the_results_before_it(in_order: InOrder) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("the file has gone")

    results = in_order(slow_first, items())
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(OSError, match="the file has gone"):
        next(results)


def children() -> set[str]:
    """Process numbers of this process's children; none where there is no /proc, as nothing is forked there."""
    lists = Path("/proc/self/task").glob("*/children")
    return {number for each in lists for number in each.read_text().split()}


def test_an_interrupt_is_not_kept_waiting(in_order: InOrder) -> None:
    parent = os.getpid()

    def work(item: int) -> int:
        here = os.getpid() == parent and threading.current_thread() is threading.main_thread()
        if here and item > 3:
            raise KeyboardInterrupt
        time.sleep(0.001)
        return item

    before = threading.active_count(), children()
    with pytest.raises(KeyboardInterrupt):
        list(in_order(work, iter(range(1000))))
    assert (threading.active_count(), children()) == before


def test_threads_take_only_a_few_items_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    results = Threads(3).map(lambda item: item, items())
    for _ in range(10):
        next(results)
    assert len(taken) <= 10 + 3 * AHEAD
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == 1 or all(
        not thread.name.endswith("(_help)") for thread in threading.enumerate()
    )


@FORKS
def test_the_death_of_a_process_is_an_error_and_not_a_missing_result() -> None:
    parent = os.getpid()

    def work(item: int) -> int:
        if os.getpid() != parent and item > 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    results = Forks(2).map(work, range(10))
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(NanhuntError, match="was ended"):
        next(results)


@FORKS
@pytest.mark.parametrize("allowed", [0, 2])
def test_where_no_more_processes_are_allowed_one_does_everything(
    allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork, before = os.fork, [allowed]

    def refusing() -> int:
        before[0] -= 1
        if before[0] < 0:
            raise BlockingIOError
        return fork()

    monkeypatch.setattr(os, "fork", refusing)
    assert list(Forks(4).map(slow_first, range(9))) == [item * item for item in range(9)]


ORPHANS = """
import os, signal, sys, time
from pathlib import Path
from nanhunt.parallel.forks import Forks

def work(item):
    if sys.argv[2] == "busy":  # whoever writes learns by that that nobody reads
        time.sleep(1000 * (item > 2))
        return b""
    return bytes(1 << 16)

if int(sys.argv[1]) != signal.SIGKILL:
    signal.signal(int(sys.argv[1]), signal.SIG_DFL)  # nohup has it ignored
results = Forks(3).map(work, range(10**9))
next(results)
print(Path(f"/proc/self/task/{os.getpid()}/children").read_text(), flush=True)
os.kill(os.getpid(), int(sys.argv[1]))
time.sleep(1000)
"""


@FORKS
@pytest.mark.parametrize("at", ["busy", "writing"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_no_process_outlives_its_parent(number: int, at: str) -> None:
    """Neither one that is in the middle of its work, nor one that waits for its result to be read."""
    command = [sys.executable, "-c", ORPHANS, str(int(number)), at]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        orphans = process.stdout.readline().split()
    assert process.returncode == -number
    assert len(orphans) == 2
    deadline = time.monotonic() + 15
    while left := [each for each in orphans if lives(each)]:
        if time.monotonic() > deadline:
            for each in left:
                os.kill(int(each), signal.SIGKILL)
            raise AssertionError(f"{left} are still there")
        time.sleep(0.01)


def lives(process: str) -> bool:
    """Whether it exists and is not only waiting for somebody to ask how it ended."""
    try:
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


def test_a_library_never_forks_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", None)
    monkeypatch.setattr(parallel, "WORKERS", 2)
    assert list(Fastest().map(slow_first, range(10))) == [item * item for item in range(10)]


@FORKS
def test_it_works_where_ended_processes_vanish_at_once(tmp_path: Path) -> None:
    """Supervisors have their children ignore SIGCHLD; what those start inherits it."""
    np.save(tmp_path / "weights.npy", np.ones((5, 1 << 20), np.float32))
    # By Python's own hand: a shell may pass on that a signal is ignored or not.
    arguments = [sys.executable, "-m", "nanhunt", "check", "weights.npy", "--isolated", "--format", "json"]
    ignoring = (
        "import os, signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
        f"os.execv({sys.executable!r}, {arguments})"
    )
    done = subprocess.run(
        [sys.executable, "-c", ignoring], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def forking(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As on the command line, with batches of a kilobyte in two processes."""
    monkeypatch.setattr(parallel, "forks", True)
    monkeypatch.setattr(parallel, "WORKERS", 2)
    for name in parallel._THREADED:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(values, "SMALL_VALUES", 0)
    monkeypatch.setattr(values, "BATCH_BYTES", 1 << 10)
    return monkeypatch


@FORKS
def test_what_only_one_process_cannot_read_is_an_error_of_that_tensor(
    tmp_path: Path, forking: pytest.MonkeyPatch
) -> None:
    parent, read = os.getpid(), Rows.range

    def failing(rows: Rows, first: int, last: int) -> np.ndarray:
        if os.getpid() != parent and rows.classes == 33:
            raise MemoryError("no room")
        return read(rows, first, last)

    tensors = {name: np.asfortranarray(np.full((40, 32 + (name == "b")), np.nan)) for name in "abc"}
    path = tmp_path / "weights.npz"
    np.savez(path, **tensors)
    forking.setattr(Rows, "range", failing)
    report = Scan(Options()).path(str(path))
    assert {tensor.tensor: tensor.health.nan for tensor in report.tensors} == {"a": 40 * 32, "c": 40 * 32}
    assert [(error.file, error.message) for error in report.errors] == [(f"{path}:b", "no room")]


@FORKS
def test_what_was_known_survives_the_death_of_a_process(tmp_path: Path, forking: pytest.MonkeyPatch) -> None:
    parent, measure = os.getpid(), health.measure

    def killed(flat: np.ndarray, *rest: Any, **words: bool) -> health.Measured:
        if os.getpid() != parent and flat[0] == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return measure(flat, *rest, **words)

    path = tmp_path / "weights.npz"
    np.savez(path, **{name: np.full((4, 300), number, np.float32) for number, name in enumerate("abcd")})
    forking.setattr(health, "measure", killed)
    report = Scan(Options()).path(str(path))
    assert [tensor.tensor for tensor in report.tensors] == ["a", "b"]
    assert [error.message for error in report.errors] == [
        "A process that judged part of the input was ended."
    ]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_command_line_says_what_the_library_says(dtype: str, tmp_path: Path) -> None:
    """One forks and the other does not; enough blocks for both to have several."""
    path = tmp_path / "logits.npy"
    logits = np.random.default_rng(0).normal(size=(6000, 2000)).astype(np.float32)
    logits[[5, 4000]] += 200
    logits[17, 3] = np.nan
    np.save(path, logits)
    command = [
        sys.executable,
        "-m",
        "nanhunt",
        "check",
        str(path),
        "--dtype",
        dtype,
        "--format",
        "json",
        "--isolated",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    known = nanhunt.check(str(path), dtype=dtype).to_json()
    assert json.loads(done.stdout)["tensors"] == json.loads(known)["tensors"]


@FORKS
def test_half_a_result_is_none() -> None:
    reading, writing = os.pipe()
    os.write(writing, pickle.dumps((True, b"x" * 100))[:50])
    os.close(writing)
    with os.fdopen(reading, "rb") as stream, pytest.raises(NanhuntError, match="was ended"):
        _Child(os.getpid(), stream).result()


@FORKS
def test_a_process_whose_results_nobody_wants_is_ended_at_what_it_is_at(tmp_path: Path) -> None:
    begun, finished = tmp_path / "begun", tmp_path / "finished"

    def work(item: int) -> int:
        if item:
            begun.write_text(str(os.getpid()))
            time.sleep(20)
            finished.touch()
        return item

    results = Forks(2).map(work, range(2))
    assert next(results) == 0
    while not begun.exists() or not begun.read_text():
        time.sleep(0.01)
    results.close()  # type: ignore[attr-defined]
    assert not finished.exists()
    assert not lives(begun.read_text())


@FORKS
def test_ctrl_c_is_for_the_first_process_alone() -> None:
    def holds_back(_: int) -> bool:
        return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    assert list(Forks(3).map(holds_back, range(4))) == [False, True, True, False]
    assert not holds_back(0)
