"""Steps in other threads are watched as those of the first."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

import pytest
from warm import Warm

START = """
import queue, threading, time, torch
from concurrent.futures import ThreadPoolExecutor
def train(bad=True):
    x = torch.nn.Parameter(torch.tensor([-1.0 if bad else 1.0]))
    for step in range(3):
        x.sqrt().sum().backward()
"""
WAYS = {
    "joined": "thread = threading.Thread(target=train); thread.start(); thread.join(); print('went on')",
    "left to end": "threading.Timer(0.1, train).start()",
    "waited for": "threading.Thread(target=train, daemon=True).start(); queue.Queue().get()",
    "beside another": """
        threads = [threading.Thread(target=train, args=(bad,)) for bad in (False, True)]
        [thread.start() for thread in threads]
        train(False)
        [thread.join() for thread in threads]
    """,
    "executor": "with ThreadPoolExecutor() as pool: list(pool.map(train, [False, True]))",
}


def run(warm: Warm, folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "train.py").write_text(START + textwrap.dedent(text))
    return warm.run(["run", "train.py"], folder)


@pytest.mark.parametrize("way", WAYS)
def test_a_fault_in_a_thread_is_named_and_stops_the_script(way: str, warm: Warm, tmp_path: Path) -> None:
    done = run(warm, tmp_path, WAYS[way])
    assert done.returncode == 1
    assert done.stderr.count("nanhunt: step") == 1
    assert "sqrt at train.py:7 in train made 1 NaN" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("way", ["joined", "waited for"])
@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "signal.SIG_DFL", "lambda *_: None"])
def test_what_becomes_of_ctrl_c_does_not_matter(way: str, handler: str, warm: Warm, tmp_path: Path) -> None:
    """A shell without job control starts background jobs deaf to SIGINT; others see to it themselves."""
    done = run(warm, tmp_path, f"import signal\nsignal.signal(signal.SIGINT, {handler})\n{WAYS[way]}\n")
    assert done.returncode == 1
    assert "sqrt at train.py:7 in train made 1 NaN" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_healthy_threads_are_counted_and_an_idle_pool_ends(warm: Warm, tmp_path: Path) -> None:
    done = run(warm, tmp_path, "pool = ThreadPoolExecutor()\npool.submit(train, False)\n")
    assert (done.returncode, done.stderr) == (0, "nanhunt: all clear, no NaN or infinity in 3 steps\n")
