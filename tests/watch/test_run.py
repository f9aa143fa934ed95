"""``nanhunt run`` as a process: the script must not notice it, and its report must arrive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from typer.main import get_command
from typer.testing import CliRunner
from warm import Warm

import nanhunt
from nanhunt.cli.app import app
from nanhunt.cli.options import SettingsOptions
from nanhunt.errors import NanhuntError
from nanhunt.options import declared
from nanhunt.watch.options import RunOptions, WatchOptions

RUN = [sys.executable, "-m", "nanhunt", "run"]
FAULT = """
    import torch
    x = torch.nn.Parameter(torch.tensor([1.0, 100.0]))
    e = torch.exp(x)
    (e / e.sum()).max().backward()
    print("went on")
"""


def script(folder: Path, text: str, name: str = "train.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def run(warm: Warm, folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return warm.run(["run", *arguments], folder, stdin=stdin.encode())


def test_arguments_exit_code_and_main_are_the_scripts_own(warm: Warm, tmp_path: Path) -> None:
    script(
        tmp_path,
        """
        import pickle, sys
        class Sample: pass
        assert __name__ == "__main__" and __file__ == sys.path[0] + "/train.py" and __spec__ is None
        assert type(pickle.loads(pickle.dumps(Sample()))) is Sample
        print(sys.argv, sys.path[0], input())
        sys.exit(7)
        """,
    )
    done = run(warm, tmp_path, "train.py", "--lr", "0.1", "--", "-m", "x", "--continue", stdin="from stdin\n")
    assert done.returncode == 7
    assert (
        done.stdout == f"['train.py', '--lr', '0.1', '--', '-m', 'x', '--continue'] {tmp_path} from stdin\n"
    )
    assert done.stderr.startswith("nanhunt: no step was seen, so nothing was checked")


def test_a_module_with_relative_imports(warm: Warm, tmp_path: Path) -> None:
    script(tmp_path, "VALUE = 3\n", "package/settings.py")
    script(tmp_path, "", "package/__init__.py")
    script(
        tmp_path,
        "import sys\nfrom .settings import VALUE\nprint(VALUE, sys.argv[1:], __package__)\n",
        "package/train.py",
    )
    done = run(warm, tmp_path, "-m", "package.train", "--output", "mine")
    assert (done.returncode, done.stdout) == (0, "3 ['--output', 'mine'] package\n")


def test_a_script_from_standard_input(warm: Warm, tmp_path: Path) -> None:
    done = run(warm, tmp_path, "-", "a", stdin="import sys\nprint(sys.argv)\n")
    assert (done.returncode, done.stdout) == (0, "['-', 'a']\n")


def test_an_exception_is_printed_as_python_prints_it(warm: Warm, tmp_path: Path) -> None:
    script(tmp_path, "def fail():\n    raise ValueError('mine')\nfail()\n")
    plain = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    done = run(warm, tmp_path, "train.py")
    assert done.returncode == plain.returncode == 1
    assert done.stderr.startswith(plain.stderr)
    assert "nanhunt/watch" not in done.stderr


def test_an_interrupt_ends_it_by_the_signal(tmp_path: Path) -> None:
    script(tmp_path, "import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    # A shell without job control starts background jobs, and all that they start, deaf to SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*RUN, "train.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert errors.splitlines()[-1] == "KeyboardInterrupt"


def test_a_bad_step_stops_the_script_and_leaves_a_capture_check_reads(warm: Warm, tmp_path: Path) -> None:
    script(tmp_path, FAULT)
    done = run(warm, tmp_path, "--output", "report.json", "--output", "report.txt", "train.py")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "exp at train.py:4" in done.stderr
    assert "NH101 exp-overflow: max 100 > 88.7228" in done.stderr
    assert "proven by repeating step 1" in done.stderr
    assert (tmp_path / "report.txt").read_text() == done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["exit_code"] == 1
    [incident] = report["incidents"]
    assert incident["culprits"][0]["site"] == {
        "file": "train.py",
        "line": 4,
        "column": 5,
        "end_column": 17,
        "function": "<module>",
        "source": "e = torch.exp(x)",
    }
    assert incident["culprits"][0]["out"]["posinf"] == 1
    capture = tmp_path / incident["capture"]
    assert torch.load(capture, weights_only=True)["logits"].tolist() == [1.0, 100.0]
    assert [finding.code for finding in nanhunt.check(capture).findings if finding.code == "NH101"]


def test_continue_reports_and_lets_the_script_run(warm: Warm, tmp_path: Path) -> None:
    script(tmp_path, FAULT)
    done = run(warm, tmp_path, "--continue", "--format", "json", "train.py")
    assert (done.returncode, done.stdout) == (1, "went on\n")
    assert len(json.loads(done.stderr)["incidents"]) == 1


@pytest.mark.parametrize("clause", ["except:", "except BaseException:", "except SystemExit:"])
def test_a_script_that_swallows_the_stop_still_ends_with_1(warm: Warm, tmp_path: Path, clause: str) -> None:
    body = "import torch\nx = torch.nn.Parameter(torch.tensor([-1.0]))\nfor n in range(9):\n"
    script(
        tmp_path,
        f"{body}    try:\n        x.sqrt().sum().backward()\n    {clause}\n        print(n, flush=True)\n",
    )
    done = run(warm, tmp_path, "train.py")
    assert (done.returncode, done.stdout) == (1, "0\n1\n")
    assert done.stderr.count("nanhunt: step") == 1


def test_a_forked_child_reports_and_the_parent_knows(warm: Warm, tmp_path: Path) -> None:
    script(
        tmp_path,
        """
        import os, torch
        child = os.fork()
        if not child:
            x = torch.nn.Parameter(torch.tensor([-1.0]))
            x.sqrt().sum().backward()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
    )
    done = run(warm, tmp_path, "train.py")
    assert (done.returncode, done.stdout) == (1, "1\n")
    assert "sqrt at train.py:6" in done.stderr
    assert "all clear" not in done.stderr


def test_each_process_names_its_rank_and_the_first_bad_one(tmp_path: Path) -> None:
    script(
        tmp_path,
        """
        import os, time, torch, torch.distributed as dist
        from torch.nn.parallel import DistributedDataParallel
        dist.init_process_group("gloo")
        rank = dist.get_rank()
        torch.manual_seed(0)
        model = DistributedDataParallel(torch.nn.Linear(2, 2))
        for step in range(3):
            bad = rank == 1 and step == 2
            out = model(torch.zeros(3, 2) if bad else torch.ones(3, 2))
            loss = (out - out.detach() * bad).abs().pow(0.5).sum()
            loss.backward()
            print("step", step, flush=True)
        """,
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "-m", "nanhunt", "run", "--output", "report.json", "train.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1
    assert "rank 1 · step 3" in done.stderr
    assert "the backward of pow" in done.stderr
    assert json.loads((tmp_path / "report-rank-1.json").read_text())["incidents"][0]["rank"] == 1
    assert {file.name for file in (tmp_path / "nanhunt-capture").glob("*.pt")} == {
        "step-3-rank-1.pt",
        "step-3-rank-1-replay.pt",
    }
    assert "rank 1 was the first to go bad, at step 3" in done.stderr
    assert "repeated on this rank alone, 2 of 2 gradients are finite: another rank's came in" in done.stderr


def test_a_missing_script_is_one_clear_message(warm: Warm, tmp_path: Path) -> None:
    done = run(warm, tmp_path, "nowhere.py")
    assert done.returncode == 2
    assert done.stderr.startswith("nanhunt: cannot read the script nowhere.py: No such file or directory")


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (("--format", "jason"), "--format jason is not known", "Did you mean json?"),
        (("--max-reports", "0"), "--max-reports 0 is out of its range", "at least 1"),
        (("--continue",), "no script was given", "nanhunt run train.py"),
        (("",), "no script was given", "nanhunt run train.py"),
    ],
)
def test_a_wrong_option_is_said_before_a_script_is_looked_for(
    arguments: tuple[str, ...], said: str, hint: str
) -> None:
    done = CliRunner().invoke(app, ["run", *arguments])
    assert isinstance(done.exception, NanhuntError)
    assert said in done.exception.message
    assert hint in done.exception.hint


def test_every_option_of_run_is_declared() -> None:
    taken = {option for each in get_command(app).get_command(None, "run").params for option in each.opts}  # type: ignore[attr-defined]
    known = [each for part in (WatchOptions, RunOptions, SettingsOptions) for each in declared(part).values()]
    assert {each.flag for each in known} == taken - {"-m", "words"}


def test_help_and_the_command_do_not_import_torch() -> None:
    code = "import sys, nanhunt.cli.commands.run; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
