"""A script under ``nanhunt run`` does, prints and returns what it does without it."""

from __future__ import annotations

import copy
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch
from warm import Warm

from nanhunt.watch.session import Session, Settings

RUN = [sys.executable, "-m", "nanhunt", "run"]

PROBE = """
    import atexit, inspect, logging, os, pickle, signal, sys, threading, traceback, warnings
    import numpy, torch, torch.nn.functional as F

    print(sys.argv, sys.path[0], sorted(name for name in vars(sys.modules["__main__"]) if name.startswith("__")))
    print(__name__, __doc__, __package__, __spec__, __file__, __cached__, __builtins__, type(__loader__))
    print(signal.getsignal(signal.SIGINT), sys.excepthook is sys.__excepthook__, sys.getrecursionlimit())
    class Sample: pass
    print(type(pickle.loads(pickle.dumps(Sample()))) is Sample, inspect.getsource(Sample))
    atexit.register(print, "registered first")
    atexit.register(print, "registered second")

    x = torch.nn.Parameter(torch.ones(3, 3))
    F.softmax(x)  # given by Python code of torch, two frames up
    F.softmax(x)
    for _ in range(2):
        torch.nn.Softmax()(x)  # five frames up
    warnings.warn("mine", DeprecationWarning)  # shown only where __main__ gave it
    torch.tensor(x)  # given by C++
    torch.ones(3).T
    frozen = numpy.ones(3)
    frozen.flags.writeable = False
    torch.from_numpy(frozen)
    torch.manual_seed(0)
    with torch.no_grad():  # one kernel, unless a mode is in the way
        print(torch.nn.TransformerEncoderLayer(8, 2, batch_first=True).eval()(torch.randn(2, 5, 8)).tolist())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        F.softmax(x), torch.tensor(x)
    print([(str(item.message)[:20], item.filename, item.lineno) for item in caught])

    def fails():
        return torch.ones(2) @ torch.ones(3)

    class Refuses(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            raise ValueError("in forward")

    calls = [fails, lambda: torch.nn.Linear(2, 2)(torch.ones(3)), lambda: Refuses.apply(x),
             lambda: torch.ones(2).sum().backward(), lambda: torch.optim.SGD([x]).step(lambda: fails())]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for call in [*calls, lambda: F.softmax(x), lambda: torch.tensor(x)]:
            try:
                call()
            except (RuntimeError, ValueError, UserWarning) as error:
                traceback.print_exc()
                logging.exception("and in a log")
    thread = threading.Thread(target=fails, name="worker")
    thread.start()
    thread.join()
    threading.Timer(0.2, lambda: print("the last thread ends")).start()
    try:
        F.cross_entropy(torch.ones(2, 3), torch.ones(5))
    except ValueError as error:
        raise KeyError("uncaught") from error
"""


Two = tuple[subprocess.CompletedProcess[str], subprocess.CompletedProcess[str]]


def both(folder: Path, text: str, *arguments: str, warm: Warm | None = None) -> Two:
    """The script run by Python, and by nanhunt with our own line taken off standard error.

    With ``warm`` nanhunt does not start with the script, and ends without Python's own last steps.
    """
    text = textwrap.dedent(text)
    (folder / "train.py").write_text(text)
    arguments = arguments or ("train.py",)
    plain = started([sys.executable, *arguments], folder, text)
    if warm is None:
        watched = started([*RUN, *arguments], folder, text)
    else:
        watched = warm.run(["run", *arguments], folder, stdin=text.encode())
    lines = watched.stderr.splitlines(keepends=True)
    ours = [line for line in lines if line.startswith("nanhunt: ")]
    assert len(ours) <= 1
    watched.stderr = "".join(line for line in lines if line not in ours)
    return plain, watched


def started(command: list[str], folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=100, check=False, input=text
    )


def test_output_warnings_and_tracebacks_are_the_same(tmp_path: Path) -> None:
    plain, watched = both(tmp_path, PROBE, "train.py", "--lr", "0.1")
    assert plain.returncode == 1
    assert "KeyError: 'uncaught'" in plain.stderr
    assert plain.stderr.count("Implicit dimension choice") >= 4
    assert watched.stdout == plain.stdout
    assert watched.stderr == plain.stderr
    assert watched.returncode == plain.returncode


ENDINGS = {
    "end": "print('done')",
    "code": "import sys; sys.exit(3)",
    "code beyond a byte": "import sys; sys.exit(-1)",
    "text": "import sys; sys.exit('a message')",
    "exception": "{}['missing']",
    "syntax": "def (:",
    "at once": "import os; print('lost'); os._exit(5)",
    "closed output": "import sys; print('done'); sys.stdout.close()",
    "closed descriptor": "import os; os.close(1)",
    "no output": "import sys; sys.stdout = sys.stderr = None",
    "own hook": "import sys; sys.excepthook = lambda *error: print('mine', error[0], error[2].tb_lineno); 1 / 0",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "interrupted": "raise KeyboardInterrupt",
    "own handler": "from signal import *; signal(SIGINT, lambda *_: print('heard')); raise_signal(SIGINT)",
    "group": "raise ExceptionGroup('several', [ValueError(1), TypeError(2)])",
    "broken at exit": "import atexit; atexit.register(int, 'x')",
}


AT_EXIT = {"closed output", "closed descriptor", "no output", "broken at exit"}
"""What Python itself looks at last of all."""


@pytest.mark.parametrize("ending", ENDINGS)
def test_it_ends_the_same_way(tmp_path: Path, warm: Warm, ending: str) -> None:
    plain, watched = both(tmp_path, ENDINGS[ending], warm=None if ending in AT_EXIT else warm)
    assert (watched.returncode, watched.stdout) == (plain.returncode, plain.stdout)
    assert watched.stderr == plain.stderr
    if ending == "interrupted":
        assert plain.returncode == -signal.SIGINT


NAMES = """
import re, sys
names = {name: re.sub("0x[0-9a-f]+", "", str(value)) for name, value in globals().items()}
print(names, sys.argv, sys.path[0])
"""


def test_main_is_the_same_module_from_standard_input_as_a_module_and_as_a_folder(
    tmp_path: Path, warm: Warm
) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(NAMES)
    for arguments in (["-", "x"], ["-m", "train", "x"], ["-m", "package"], ["package", "-m"]):
        plain, watched = both(tmp_path, NAMES, *arguments, warm=warm)
        assert watched.stdout == plain.stdout
        assert plain.returncode == watched.returncode == 0


def test_torch_is_as_before_when_modules_have_run_in_threads_that_overlap() -> None:
    before = torch.overrides.has_torch_function
    layer = torch.nn.TransformerEncoderLayer(8, 2, batch_first=True).eval()
    first, second = threading.Event(), threading.Event()

    def ends_first(*_: object) -> None:
        first.set()
        second.wait(5)

    def ends_last(*_: object) -> None:
        second.set()
        other.join(5)

    layers = [copy.deepcopy(layer), copy.deepcopy(layer)]
    for each, hook in zip(layers, (ends_first, ends_last), strict=True):
        each.register_forward_pre_hook(hook)
    x = torch.ones(2, 5, 8)
    with Session(Settings(), lambda _: None):
        other = threading.Thread(target=lambda: layers[0].requires_grad_(False)(x))
        other.start()
        first.wait(5)
        layers[1].requires_grad_(False)(x)
    assert torch.overrides.has_torch_function is before
