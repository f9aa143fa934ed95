"""Processes that the script starts are watched; their reports reach the first process's report."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from pathlib import Path

import pytest
from warm import Warm

TRAIN = """
import sys, torch
def train(n):
    x = torch.nn.Parameter(torch.tensor([-1.0 if n else 1.0]))
    for step in range(3):
        x.sqrt().sum().backward()
"""
METHODS = {
    "spawn": """
        from torch.multiprocessing import get_context
        processes = [get_context("spawn").Process(target=train, args=(n,), name=f"trainer {n}") for n in range(2)]
        [process.start() for process in processes]
        [process.join() for process in processes]
        print([process.exitcode for process in processes])
    """,
    "pool": """
        import multiprocessing
        with multiprocessing.get_context("fork").Pool(2) as pool:
            pool.map(train, [0, 0, 1, 0])
    """,
    "executor": """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
            list(pool.map(train, [1, 0]))
    """,
    "forks": """
        import os
        for n in range(2):
            child = os.fork()
            if not child:
                train(n)
                sys.exit()
            os.waitpid(child, 0)
    """,
    "subprocess": """
        import subprocess
        subprocess.run([sys.executable, "-c", "from train import train; train(0); train(1)"])
    """,
}


def script(folder: Path, method: str) -> None:
    main = textwrap.indent(textwrap.dedent(method), "    ")
    (folder / "train.py").write_text(f"{TRAIN}\nif __name__ == '__main__':\n{main}")


def run(warm: Warm, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return warm.run(["run", "--output", "report.json", "train.py"], folder, environment)


@pytest.mark.parametrize("method", METHODS)
def test_a_fault_in_a_child_is_in_the_report(method: str, warm: Warm, tmp_path: Path) -> None:
    script(tmp_path, METHODS[method])
    done = run(warm, tmp_path)
    assert done.returncode == 1
    report = json.loads((tmp_path / "report.json").read_text())
    [incident] = report["incidents"]
    assert incident["culprits"][0]["site"]["source"] == "x.sqrt().sum().backward()"
    assert incident["process"]
    assert (tmp_path / incident["capture"]).is_file()
    assert done.stderr.count("nanhunt: process") == 1
    assert "all clear" not in done.stderr
    if method == "spawn":
        assert done.stdout == "[0, 1]\n"
        assert incident["process"] == "trainer 1"
        assert report["steps"] == 3


def test_steps_of_healthy_children_are_counted_and_their_start_is_undisturbed(
    warm: Warm, tmp_path: Path
) -> None:
    healthy = METHODS["subprocess"].replace(
        "train(1)", "import sitecustomize as s; print(s.MINE, sys.path[0])"
    )
    script(tmp_path, healthy.replace("train(0)", "import sys; train(0)"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "sitecustomize.py").write_text("MINE = 'my own'\n")
    done = run(warm, tmp_path, PYTHONPATH=str(tmp_path / "mine"))
    assert (done.returncode, done.stdout) == (0, "my own \n")
    assert done.stderr == "nanhunt: all clear, no NaN or infinity in 3 steps\n"
    assert json.loads((tmp_path / "report.json").read_text())["steps"] == 3


def test_an_exception_over_a_nan_in_a_child_is_examined(warm: Warm, tmp_path: Path) -> None:
    script(
        tmp_path,
        METHODS["subprocess"].replace(
            "train(1)", "import torch; torch.multinomial(torch.ones(3).log() / 0, 1)"
        ),
    )
    done = run(warm, tmp_path)
    assert "RuntimeError was raised: multinomial was given nan" in done.stderr
    assert done.returncode == 1
